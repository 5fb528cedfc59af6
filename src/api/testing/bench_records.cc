// CPU per request of the record routes, without the socket: api_bench [RUNS] → one line per route.
// 16 requests are under way at a time, as many as the connections of the published numbers.
#include <fmt/format.h>
#include <sys/resource.h>

#include <cstdlib>
#include <filesystem>
#include <string>

#include <boost/asio/detached.hpp>

#include "api/records_routes.h"

namespace metier::api {
namespace {

double cpu_seconds() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  const auto of = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) * 1e-6;
  };
  return of(usage.ru_utime) + of(usage.ru_stime);
}

struct Load {
  asio::io_context& io;
  Router& router;
  int failed = 0;

  Async<void> worker(int first, int count, const std::function<net::Request(int)>& make) {
    for (int i = first; i < count; i += 16) {
      auto response = co_await router.handle(make(i));
      if (response.status >= 300 && failed++ == 0) { fmt::print("{}\n", response.body); }
    }
  }
  void measure(std::string_view name, int count, const std::function<net::Request(int)>& make) {
    const auto cpu = cpu_seconds();
    const auto wall = std::chrono::steady_clock::now();
    for (int w = 0; w < 16; ++w) { asio::co_spawn(io, worker(w, count, make), asio::detached); }
    io.restart();
    io.run();
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - wall;
    if (!name.empty()) {
      fmt::print("{:<28} {:>8.1f} µs CPU {:>10.0f} /s\n", name, (cpu_seconds() - cpu) / count * 1e6,
                 count / took.count());
    }
  }
};

net::Request request(std::string method, std::string path,
                     std::vector<std::pair<std::string, std::string>> query = {},
                     std::string body = {}) {
  net::Request out;
  out.method = std::move(method);
  out.path = std::move(path);
  out.query = std::move(query);
  out.body = std::move(body);
  out.peer.unix_socket = true;
  return out;
}

std::string run_body(int i) {
  return fmt::format(
      R"({{"kind":"run","metadata":{{"uid":"u{0}","name":"n{1}","project":"p","iteration":0,"labels":{{"kind":"job","owner":"me","v3io_user":"me","mlrun/client_version":"1.12.1"}},"annotations":{{}}}},)"
      R"("spec":{{"function":"p/f@0123456789abcdef0123456789abcdef01234567","handler":"train","parameters":{{"lr":0.1,"depth":6,"text":"hello"}},"hyperparams":{{}},"inputs":{{"data":"store://datasets/p/d"}},)"
      R"("outputs":[],"output_path":"/data/p/artifacts/u{0}","notifications":[],"log_level":"info","state_thresholds":{{}},"node_selector":{{}}}},)"
      R"("status":{{"state":"running","results":{{"accuracy":0.97,"loss":0.03}},"start_time":"2026-11-25T10:00:00+00:00","artifact_uris":{{}}}}}})",
      i, i % 200);
}

}  // namespace
}  // namespace metier::api

int main(int argc, char** argv) {
  using namespace metier;
  using namespace metier::api;
  const int runs = argc > 1 ? std::atoi(argv[1]) : 10'000;
  char folder[] = "/tmp/metier-bench-XXXXXX";
  if (::mkdtemp(folder) == nullptr) { return 1; }
  asio::io_context io;
  auto store = Store::open(io.get_executor(), {.folder = folder});
  if (!store) {
    fmt::print("{}\n", store.error().text());
    return 1;
  }
  RecordsApi api{.store = **store,
                 .clock = system_clock(),
                 .artifact_path = "/a",
                 .api_url = "http://127.0.0.1:1"};
  api.forget_run = [](std::string, std::string) -> Async<Result<void>> {
    co_return Result<void>{};
  };
  Router router(Access{}, Logger());
  add_record_routes(router, api);
  Load load{io, router};
  load.measure("", 1, [](int) {
    return request("POST", "/api/v1/projects", {}, R"({"metadata":{"name":"p"}})");
  });
  const auto run = [](int i) { return "/api/v1/projects/p/runs/u" + std::to_string(i); };
  load.measure("POST run", runs,
               [&](int i) { return request("POST", run(i), {{"iter", "0"}}, run_body(i)); });
  const int n = std::min(runs, 3000);
  load.measure("PATCH run", n, [&](int i) {
    return request(
        "PATCH", run(i), {{"iter", "0"}},
        R"({"status.results":{"accuracy":0.98},"status.state":"running","status.last_update":"x","status.host":"box"})");
  });
  load.measure("PUT artifact", n, [&](int i) {
    return request(
        "PUT", "/api/v2/projects/p/artifacts/n_model",
        {{"tree", "u" + std::to_string(i)}, {"iter", "0"}},
        R"({"kind":"model","metadata":{"key":"model","project":"p","iter":0,"labels":{"a":"b"}},"spec":{"target_path":"/data/p/m.pkl","db_key":"n_model","size":123,)"
        R"("producer":{"name":"n","kind":"run","uri":"p/u"},"model_file":"m.pkl","metrics":{"accuracy":0.97},"parameters":{}},"status":{}})");
  });
  load.measure("GET run (standard)", n, [&](int i) {
    return request("GET", run(i), {{"iter", "0"}, {"format", "standard"}});
  });
  load.measure("GET run (full, 1 artifact)", n,
               [&](int i) { return request("GET", run(i), {{"iter", "0"}, {"format", "full"}}); });
  load.measure("GET artifact", n, [&](int i) {
    return request("GET", "/api/v2/projects/p/artifacts/n_model",
                   {{"tree", "u" + std::to_string(i)}, {"tag", "latest"}});
  });
  const std::vector<std::pair<std::string, std::string>> page{
      {"page", "1"}, {"page-size", "20"}, {"sort", "yes"}, {"iter", "no"}};
  load.measure("GET runs, default page 20", 1000,
               [&](int) { return request("GET", "/api/v1/projects/p/runs", page); });
  auto filtered = page;
  filtered.emplace_back("label", "owner=me");
  filtered.emplace_back("state", "running");
  load.measure("GET runs, label and state", 200,
               [&](int) { return request("GET", "/api/v1/projects/p/runs", filtered); });
  load.measure("GET healthz", 20'000, [](int) { return request("GET", "/api/v1/healthz"); });
  asio::co_spawn(
      io, [](Store& s) -> Async<void> { static_cast<void>(co_await s.close()); }(**store),
      asio::detached);
  io.restart();
  io.run();
  std::filesystem::remove_all(folder);
  return load.failed == 0 ? 0 : 1;
}
