// How much the embedded cluster itself costs: no-op pods through apply, queue, start and end with a store
// in memory and pods without processes. Usage: cluster_bench [PODS] [LIVE]
#include <fmt/format.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstdlib>

#include "cluster/conformance/cluster_conformance.h"
#include "cluster/embedded/embedded_cluster.h"
#include "cluster/testing/fake_pod_driver.h"
#include "resource/testing/memory_object_store.h"

namespace {

using namespace metier;

double cpu_seconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
         static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1e-6;
}

Resource bench_pod(const std::string& name, bool forever) {
  Resource out{.api_version = "v1",
               .kind = "Pod",
               .metadata = {.name = name, .name_space = "bench", .labels = {{"mlrun/uid", name}}}};
  out.metadata.annotations["fake.metier.dev/run"] = forever ? "until-stopped" : "at-once";
  JsonArray env;
  for (int i = 0; i < 8; ++i) {
    env.push_back(
        JsonObject{{"name", fmt::format("MLRUN_{}", i)}, {"value", std::string(200, 'x')}});
  }
  out.body["spec"] =
      JsonObject{{"restartPolicy", "Never"},
                 {"containers", JsonArray{JsonObject{{"name", "base"},
                                                     {"image", "x"},
                                                     {"command", JsonArray{"mlrun", "run"}},
                                                     {"env", env}}}}};
  return out;
}

Async<void> go(EmbeddedCluster& cluster, int count, const char* prefix, bool forever) {
  for (int i = 0; i < count; ++i) {
    std::vector<Resource> one;
    one.push_back(bench_pod(fmt::format("{}-{}", prefix, i), forever));
    auto applied = co_await cluster.apply(std::move(one));
    if (!applied) { fmt::print("{}\n", applied.error().text()); }
  }
}

}  // namespace

int main(int argc, char** argv) {
  const int pods = argc > 1 ? std::atoi(argv[1]) : 10'000;
  const int live = argc > 2 ? std::atoi(argv[2]) : 0;
  asio::io_context loop;
  MemoryObjectStore store(loop.get_executor());
  FakePodDriver driver(loop.get_executor(), std::filesystem::temp_directory_path() /
                                                fmt::format("metier-bench-{}", getpid()));
  EmbeddedOptions options;
  options.host = {
      .name = "node", .cpu_milli = 4000, .memory = 8LL << 30, .devices = {}, .notes = {}};
  options.most_pods = 1'000'000;
  EmbeddedCluster cluster(loop.get_executor(), store, driver, std::move(options));
  int ended = 0;
  const auto watch =
      cluster.watch({.name_space = {}, .kind = "Pod"}, [&](const ResourceStatus& status) {
        const auto phase = string_at(status.status, "phase");
        ended += phase == "Succeeded" || phase == "Failed" ? 1 : 0;
      });
  const auto turn = [&](auto task) {
    asio::co_spawn(loop.get_executor(), std::move(task), [](std::exception_ptr) {});
    loop.restart();
    loop.poll();
  };
  turn([&]() -> Async<void> { (void)co_await cluster.open(); }());
  turn(go(cluster, live, "live", true));
  const auto before = cpu_seconds();
  const auto began = std::chrono::steady_clock::now();
  turn(go(cluster, pods, "pod", false));
  loop.restart();
  while (ended < pods) { loop.run_one(); }
  const auto cpu = cpu_seconds() - before;
  const auto wall = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  fmt::print("{} pods beside {} live: {:.0f} pods/s, {:.0f} us CPU each, {} store writes\n", pods,
             live, pods / wall, cpu / pods * 1e6, store.writes);
  std::fflush(stdout);
  std::_Exit(0);
}
