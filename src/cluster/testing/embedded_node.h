// A node of an embedded cluster for tests: a store in memory, pods without processes, a clock that the test
// moves. `restart` is the crash and return of the server.
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "cluster/conformance/cluster_conformance.h"
#include "cluster/controllers/task_set.h"
#include "cluster/embedded/embedded_cluster.h"
#include "cluster/testing/fake_pod_driver.h"
#include "resource/testing/memory_object_store.h"

namespace metier {

inline std::filesystem::path fresh_folder() {
  static int number = 0;
  return std::filesystem::temp_directory_path() /
         fmt::format("metier-cluster-{}-{}", getpid(), ++number);
}

inline EmbeddedOptions options_of(const std::filesystem::path& data) {
  EmbeddedOptions out;
  out.data = data.string();
  out.host = {.name = "node", .cpu_milli = 4000, .memory = 8LL << 30, .devices = {}, .notes = {}};
  out.controllers = {std::make_shared<TaskSetController>()};
  return out;
}

class Node final {
 public:
  explicit Node(std::function<void(EmbeddedOptions&)> change = {})
      : folder(fresh_folder()), change_(std::move(change)) {
    boot();
  }
  ~Node() {
    shut();
    std::error_code ignored;
    std::filesystem::remove_all(folder, ignored);
  }

  void boot() {
    auto options = options_of(folder);
    options.clock = &clock;
    if (change_) { change_(options); }
    cluster =
        std::make_unique<EmbeddedCluster>(loop.get_executor(), store, driver, std::move(options));
    const auto opened = run(cluster->open());
    EXPECT_TRUE(opened) << opened.error().text();
  }
  void shut() {
    (void)run(cluster->close());
    cluster.reset();
  }
  void restart() {
    shut();
    driver.forget();
    boot();
  }

  template <class T>
  T run(Async<T> task) {
    std::optional<T> out;
    std::exception_ptr broken;
    asio::co_spawn(loop.get_executor(), std::move(task), [&](std::exception_ptr error, T value) {
      broken = error;
      out.emplace(std::move(value));
    });
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (!out && std::chrono::steady_clock::now() < deadline) {
      loop.restart();
      loop.run_one_until(deadline);
    }
    if (broken) { std::rethrow_exception(broken); }
    return std::move(out.value());
  }
  // Everything that can happen now has happened.
  void settle() {
    loop.restart();
    while (loop.poll() > 0) { loop.restart(); }
  }
  // Waits for what real time brings; whether it came.
  template <class F>
  bool until(F condition) {
    for (int look = 0; look < 600 && !condition(); ++look) {
      loop.restart();
      loop.run_for(std::chrono::milliseconds(50));
    }
    return condition();
  }
  void advance(std::chrono::milliseconds by) {
    clock.advance(by);
    cluster->wake();
    settle();
  }
  Result<void> apply(std::vector<Resource> resources) {
    auto done = run(cluster->apply(std::move(resources)));
    settle();
    return done;
  }
  PodStatus pod(const std::string& name, const std::string& project = "conformance") {
    const auto object = store.get({.name_space = project, .kind = "Pod", .name = name});
    return object ? pod_status_from_json(object->status) : PodStatus{.phase = PodPhase::unknown};
  }
  void remove(Selector selector) {
    EXPECT_TRUE(run(cluster->remove(
        std::move(selector),
        {.how = StopOptions::How::forced, .grace = {}, .reason = {}, .message = {}})));
    settle();
  }

  std::filesystem::path folder;
  asio::io_context loop;
  ManualClock clock;
  MemoryObjectStore store{loop.get_executor()};
  FakePodDriver driver{loop.get_executor(), folder / "pods", clock};
  std::unique_ptr<EmbeddedCluster> cluster;

 private:
  std::function<void(EmbeddedOptions&)> change_;
};

inline const PodScript kForever{.run = PodScript::Run::until_stopped};

inline JsonObject& base_of(Resource& pod) {
  return pod.body["spec"].get_object()["containers"].get_array()[0].get_object();
}

inline Resource pod_with(const std::string& name, std::string_view container_fields,
                         std::string_view spec_fields = "{}", const PodScript& script = kForever) {
  auto out = conformance_pod(name, script);
  const auto fields = parse_json(container_fields).value();
  for (const auto& [key, value] : fields.as_object()) { base_of(out)[key] = value; }
  const auto more = parse_json(spec_fields).value();
  for (const auto& [key, value] : more.as_object()) { out.body["spec"].get_object()[key] = value; }
  return out;
}

inline Resource cpu_pod(const std::string& name, std::string_view cpu,
                        const PodScript& script = kForever) {
  return pod_with(name, fmt::format(R"({{"resources":{{"requests":{{"cpu":"{}"}}}}}})", cpu), "{}",
                  script);
}

inline Resource object_of(std::string api, std::string kind, std::string name,
                          std::string_view body) {
  Resource out{.api_version = std::move(api),
               .kind = std::move(kind),
               .metadata = {.name = std::move(name), .name_space = "conformance"}};
  const auto fields = parse_json(body).value();
  for (const auto& [key, value] : fields.as_object()) { out.body[key] = value; }
  return out;
}

inline std::map<std::string, std::string> env_of(const FakePodDriver& driver,
                                                 const std::string& pod) {
  const auto& list = driver.launched(pod).env.at("base");
  return {list.begin(), list.end()};
}

inline Resource task_set(const std::string& name, int replicas, bool gang, const PodScript& script,
                         std::string_view cpu = "1") {
  const auto pod = cpu_pod("template", cpu, script);
  auto out = object_of("metier.dev/v1", "TaskSet", name,
                       fmt::format(R"({{"spec":{{"replicas":{},"gang":{}}}}})", replicas, gang));
  out.body["spec"].get_object()["template"] =
      JsonObject{{"metadata", JsonObject{{"annotations", labels_json(pod.metadata.annotations)}}},
                 {"spec", pod.body.at("spec")}};
  return out;
}

}  // namespace metier
