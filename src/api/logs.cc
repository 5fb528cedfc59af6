// Logs of runs: bytes from an offset, long poll, appends of clients.
#include "api/engine_api.h"

namespace metier::api {
namespace {

constexpr std::int64_t kMostMarks = 10'000;

Async<net::Response> get_log(EngineApi& api, Call& call) {
  METIER_API_TRY(offset, call.number("offset", 0, 0, INT64_MAX));
  METIER_API_TRY(size, call.number("size", -1, -1, INT64_MAX));
  METIER_API_TRY(attempt, call.number("attempt", 0, 0, 1'000'000));
  METIER_API_TRY(wait, call.flag("wait", true));
  METIER_API_TRY(slice, co_await api.engine.log(call.at("project"), call.at("uid"),
                                                static_cast<std::uint64_t>(offset), size, attempt,
                                                wait, call.query("part")));
  net::Response response = ok_text(std::move(slice.bytes));
  response.headers.emplace_back("x-mlrun-run-state", slice.state);
  response.headers.emplace_back("x-metier-log-size", std::to_string(slice.size));
  co_return response;
}

Async<net::Response> get_times(EngineApi& api, Call& call) {
  const std::string project =
      call.caller.run_project.empty() ? call.query("project", "default") : call.caller.run_project;
  METIER_API_TRY(uid, api.describe.find_run(project, call.at("uid")));
  METIER_API_TRY(attempt, call.number("attempt", 0, 0, 1'000'000));
  METIER_API_TRY(marks, co_await api.engine.log_times(project, uid, attempt, call.query("part")));
  METIER_API_TRY(body, log_times_body(call, marks));
  co_return ok_json(std::move(body));
}

Async<net::Response> get_size(EngineApi& api, Call& call) {
  METIER_API_TRY(size, co_await api.engine.log_size(call.at("project"), call.at("uid")));
  co_return ok_json(JsonObject{{"size", size}});
}

Async<net::Response> post_log(EngineApi& api, Call& call) {
  METIER_API_TRY(append, call.flag("append", true));
  METIER_API_CHECK(
      api.engine.append_log(call.at("project"), call.at("uid"), call.request.body, append));
  co_return ok_json(JsonObject{});
}

}  // namespace

Result<Json> log_times_body(const Call& call, const std::vector<LogMark>& marks) {
  METIER_TRY(offset, call.number("offset", 0, 0, INT64_MAX));
  METIER_TRY(limit, call.number("limit", kMostMarks, 0, kMostMarks));
  std::uint64_t begin = 0;
  if (const auto since = call.query("since"); !since.empty()) {
    const auto time = from_iso(since);
    if (!time) {
      return fail(invalid("since", quote(since) + " is not a time",
                          "write 2026-11-25T16:20:28 or with an offset"));
    }
    begin = log_offset_at(marks, *time);
  }
  JsonArray times;
  for (const LogMark& mark : marks) {
    if (mark.end <= std::max(begin, static_cast<std::uint64_t>(offset))) { continue; }
    if (std::cmp_greater_equal(times.size(), limit)) { break; }
    times.push_back(JsonArray{mark.end, to_iso(mark.at)});
  }
  return Json(JsonObject{{"offset", begin}, {"times", std::move(times)}});
}

void add_log_routes(Router& router, EngineApi& api) {
  const auto bind = [&api](Async<net::Response> (*handler)(EngineApi&, Call&)) {
    return [&api, handler](Call& call) { return handler(api, call); };
  };
  for (const char* path : {"/projects/{project}/logs/{uid}", "/log/{project}/{uid}"}) {
    router.add(Api::v1, "GET", path, "bytes of a run's log", bind(get_log));
    router.add(Api::v1, "POST", path, "append to the log of a run that the client holds",
               bind(post_log));
  }
  router.add(Api::metier, "GET", "/runs/{uid}/log-times",
             "when the bytes of a run's log were written", bind(get_times));
  router.add(Api::v1, "GET", "/projects/{project}/logs/{uid}/size", "size of a run's log",
             bind(get_size));
}

}  // namespace metier::api
