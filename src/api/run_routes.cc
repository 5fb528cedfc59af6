#include <fmt/format.h>

#include <algorithm>

#include "api/paging.h"
#include "engine/records/records.h"
#include "model/run.h"

namespace metier::api {
namespace {

// Logs and snapshots are files named by the uid: it is a plain name, whatever the client made it of.
Result<void> check_uid(std::string_view uid) {
  const auto plain = [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
  };
  const bool fine = !uid.empty() && uid.size() <= 128 && plain(uid.front()) &&
                    std::ranges::all_of(
                        uid, [&](char c) { return plain(c) || c == '-' || c == '_' || c == '.'; });
  if (fine) { return {}; }
  return fail(
      invalid("uid", quote(uid) + " is not a run uid",
              "at most 128 letters, digits, '-', '_', '.', beginning with a letter or digit"));
}

Result<records::RunWrite> target_of(const RecordsApi& api, const Call& call) {
  METIER_TRY(iteration, call.number("iter", 0, 0, 10'000'000));
  records::RunWrite target{call.at("project"), call.at("uid"), iteration, false};
  METIER_CHECK(check_uid(target.uid));
  target.held = iteration == 0 && api.held && api.held(target.project, target.uid);
  return target;
}

Result<RunFilter> filter_of(const Call& call, const std::string& project) {
  RunFilter filter{.name = call.query("name"), .uids = call.query_all("uid")};
  if (project != "*") { filter.project = project; }
  for (const auto* name : {"state", "states"}) {
    for (auto& state : call.query_all(name)) {
      if (!run_state_from(state)) {
        return fail(invalid(name, quote(state) + " is not a run state",
                            "created, pending, running, completed, error, aborting, aborted…"));
      }
      filter.states.push_back(std::move(state));
    }
  }
  filter.labels = call.query_all("label");
  METIER_TRY(sort, call.flag("sort", true));
  METIER_TRY(iterations, call.flag("iter", true));
  METIER_TRY(last, call.number("last", 0, 0, 1'000'000));
  METIER_TRY(rows, call.number("rows-per-partition", 1, 1, 1000));
  METIER_TRY(most, call.number("max-partitions", 0, 0, 1'000'000));
  filter.sort = sort;
  if (!iterations) { filter.only_parents = true; }
  for (const auto& [name, field] : {std::pair{"start_time_from", &filter.start_from},
                                    {"start_time_to", &filter.start_to},
                                    {"last_update_time_from", &filter.updated_from},
                                    {"last_update_time_to", &filter.updated_to},
                                    {"end_time_from", &filter.end_from},
                                    {"end_time_to", &filter.end_to}}) {
    METIER_TRY(time, call.time(name));
    *field = time;
  }
  const auto by = call.query("partition-by");
  if (!by.empty()) {
    const auto order = call.query("partition-sort-by");
    if (by != "project_and_name") {
      return fail(invalid("partition-by", quote(by) + " is unknown", "project_and_name"));
    }
    if (order != "created" && order != "updated") {
      return fail(invalid("partition-sort-by",
                          order.empty() ? "is missing" : quote(order) + " is unknown",
                          "created or updated"));
    }
    filter.partition = true;
    filter.partition_sort = order;
    filter.rows_per_partition = rows;
    filter.partition_ascending = call.query("partition-order", "desc") == "asc";
    filter.max_partitions = most;
  }
  if (last > 0) { filter.limit = last; }
  return filter;
}

// What the SDK shows when nothing is asked: the newest run of each name, of the last seven days.
void default_filter(RunFilter& filter, const Call& call, Time now) {
  static constexpr std::array kAsked{"name",
                                     "uid",
                                     "label",
                                     "state",
                                     "states",
                                     "last",
                                     "start_time_from",
                                     "start_time_to",
                                     "last_update_time_from",
                                     "last_update_time_to",
                                     "end_time_from",
                                     "end_time_to",
                                     "partition-by"};
  for (const auto* name : kAsked) {
    if (!call.query(name).empty()) { return; }
  }
  filter.start_from = now - std::chrono::days(7);
  filter.partition = true;
  filter.partition_sort = "updated";
}

Async<net::Response> list_runs(RecordsApi api, Call& call, bool completed_only) {
  METIER_API_TRY(page, page_of(call, api));
  Call asked{page.request, call.path, call.caller, call.request_id};
  METIER_API_TRY(filter, filter_of(asked, call.at("project")));
  if (completed_only) {
    filter.states = {"completed"};
  } else {
    default_filter(filter, asked, api.clock.now());
  }
  if (page.number > 0) {
    filter.offset = page.offset();
    filter.limit = page.limit();
  }
  METIER_API_TRY(rows, api.store.records().runs(filter));
  // Bodies are stored as text and go out as text: nothing is parsed.
  const bool more = page.number > 0 && static_cast<std::int64_t>(rows.size()) > page.size;
  const auto shown = more ? static_cast<std::size_t>(page.size) : rows.size();
  JsonObject tail;
  METIER_API_CHECK(co_await finish_page(api, std::move(page), JsonArray(rows.size()), "x", tail));
  std::string body = "{\"runs\":[";
  for (std::size_t i = 0; i < shown; ++i) {
    if (i > 0) { body += ','; }
    body += rows[i].body;
  }
  body += "],\"pagination\":";
  dump_json_to(body, tail["pagination"]);
  body += '}';
  co_return net::json_response(200, std::move(body));
}

}  // namespace

void add_run_routes(Router& router, const RecordsApi& api) {
  router.add(Api::v1, "POST", "/projects/{project}/runs/{uid}", "store a run",
             [api](Call& call) -> Async<net::Response> {
               METIER_API_TRY(body, call.object());
               METIER_API_TRY(target, target_of(api, call));
               const auto now = api.clock.now();
               METIER_API_TRY(written, co_await api.store.write([&](Records& tx) {
                 return records::store_run(tx, target, std::move(body), now);
               }));
               if (target.iteration == 0 && api.run_changed) {
                 api.run_changed(target.project, target.uid, written.name, written.state);
               }
               co_return net::json_response(200, "{}");
             });

  router.add(Api::v1, "PATCH", "/projects/{project}/runs/{uid}", "change a run",
             [api](Call& call) -> Async<net::Response> {
               METIER_API_TRY(body, call.object());
               METIER_API_TRY(target, target_of(api, call));
               // Old clients abort by writing the state.
               if (const auto* state = body.if_contains("status.state");
                   state != nullptr && state->is_string() && state->get_string() == "aborted" &&
                   target.held) {
                 METIER_API_CHECK(co_await api.abort_run(target.project, target.uid, ""));
                 co_return net::json_response(200, "{}");
               }
               const auto now = api.clock.now();
               METIER_API_TRY(written, co_await api.store.write([&](Records& tx) {
                 return records::patch_run(tx, target, body, now);
               }));
               if (target.iteration == 0 && api.run_changed) {
                 api.run_changed(target.project, target.uid, written.name, written.state);
               }
               co_return net::json_response(200, "{}");
             });

  router.add(Api::v1, "GET", "/projects/{project}/runs/{uid}", "one run",
             [api](Call& call) -> Async<net::Response> {
               METIER_API_TRY(iteration, call.number("iter", 0, 0, 10'000'000));
               const bool full = call.query("format", "full") == "full";
               METIER_API_TRY(run, records::read_run_text(api.store.records(), call.at("project"),
                                                          call.at("uid"), iteration, full));
               co_return net::json_response(200, "{\"data\":" + run + "}");
             });

  router.add(Api::v1, "GET", "/projects/{project}/runs", "runs",
             [api](Call& call) { return list_runs(api, call, false); });
  router.add(Api::v1, "GET", "/projects/{project}/completed_runs", "completed runs",
             [api](Call& call) { return list_runs(api, call, true); });

  router.add(Api::v1, "DELETE", "/projects/{project}/runs/{uid}",
             "delete a run with its iterations", [api](Call& call) -> Async<net::Response> {
               const auto project = call.at("project");
               const auto uid = call.at("uid");
               METIER_API_CHECK(check_uid(uid));
               METIER_API_TRY(row, api.store.records().run(project, uid, 0));
               if (row && (row->state == "running" || row->state == "pending")) {
                 co_return error_response(
                     invalid("state", fmt::format("run {} is {}", quote(row->name), row->state),
                             "abort it first: metier abort " + uid.substr(0, 8)));
               }
               METIER_API_CHECK(co_await api.forget_run(project, uid));
               METIER_API_CHECK(co_await api.store.write_any(
                   [&](Records& tx) { return tx.delete_run(project, uid); }));
               co_return net::json_response(200, "{}");
             });

  router.add(Api::v1, "DELETE", "/projects/{project}/runs", "delete the runs that a filter finds",
             [api](Call& call) -> Async<net::Response> {
               METIER_API_TRY(filter, filter_of(call, call.at("project")));
               METIER_API_TRY(days, call.number("days_ago", 0, 0, 36'500));
               filter.only_parents = true;
               if (days > 0) { filter.start_to = api.clock.now() - std::chrono::days(days); }
               METIER_API_TRY(rows, api.store.records().runs(filter));
               for (const auto& row : rows) {
                 if (row.state == "running" || row.state == "pending" || row.state == "aborting") {
                   continue;
                 }
                 METIER_API_CHECK(co_await api.forget_run(row.project, row.uid));
                 METIER_API_CHECK(co_await api.store.write_any(
                     [&](Records& tx) { return tx.delete_run(row.project, row.uid); }));
               }
               co_return net::json_response(200, "{}");
             });
}

}  // namespace metier::api
