// Pages of Dask and Spark with the user's token: read only, of own pods, a WebSocket's frames too.
#include "api/engine_api.h"
#include "engine/pages.h"
#include "net/forward.h"

namespace metier::api {
namespace {

using Found = std::vector<Page>;
using Find = std::function<Async<Result<Found>>(Call&)>;

// The first `count` segments of a target as it was sent, without the slash behind them.
std::string_view leading(std::string_view target, int count) {
  std::size_t at = 0;
  for (int i = 0; i < count && at != std::string_view::npos; ++i) {
    at = target.find_first_of("/?", at + 1);
    if (at != std::string_view::npos && target[at] == '?') { return target.substr(0, at); }
  }
  return target.substr(0, at);
}

bool outside(const Call& call) {
  return !call.caller.run_project.empty() && call.at("project") != call.caller.run_project;
}

net::Response no_page(const Call& call, const Found& pages) {
  std::string names;
  for (const Page& page : pages) { names += (names.empty() ? "" : ", ") + page.name; }
  return error_response(Error{.kind = ErrorKind::not_found,
                              .message = "there is no page " + quote(call.at("page")) + " here now",
                              .field = "page",
                              .fix = names.empty()
                                         ? "a page is there while its scheduler or driver "
                                           "runs; of Spark also afterwards"
                                         : "there is: " + names});
}

// /projects/P/runs/U/ui and /projects/P/functions/F/ui
constexpr int kListParts = 8;  // "api", "metier", "v1" and these

Async<net::Response> list(Find find, Call& call) {
  if (outside(call)) {
    co_return error_response(Error{.kind = ErrorKind::denied,
                                   .message = "a run reaches its own project only",
                                   .field = "project"});
  }
  METIER_API_TRY(pages, co_await find(call));
  const std::string base = std::string(leading(call.request.target, kListParts)) + "/";
  JsonArray out;
  for (const Page& page : pages) { out.push_back(to_json(page, base)); }
  co_return ok_json(JsonObject{{"pages", std::move(out)}});
}

Async<net::Response> show(Pages& finder, net::Client& client, Executor loop, Find find,
                          Call& call) {
  if (outside(call)) {
    co_return error_response(Error{.kind = ErrorKind::denied,
                                   .message = "a run reaches its own project only",
                                   .field = "project"});
  }
  METIER_API_TRY(pages, co_await find(call));
  const auto found = std::ranges::find(pages, call.at("page"), &Page::name);
  if (found == pages.end()) { co_return no_page(call, pages); }
  const std::string prefix(leading(call.request.target, kListParts + 1));
  std::string rest = call.request.target.substr(prefix.size());
  if (rest.empty() || rest.front() == '?') {  // the page's own links are relative
    net::Response moved;
    moved.status = 302;
    moved.headers = {{"location", prefix + "/"}};
    co_return moved;
  }
  if (found->origin.empty()) {
    METIER_API_TRY(html, co_await finder.kept(*found));
    net::Response out;
    out.headers = {{"content-type", "text/html; charset=utf-8"},
                   {"content-security-policy", "default-src 'none'; style-src 'unsafe-inline'"}};
    out.body = std::move(html);
    co_return out;
  }
  co_return net::forward(client, loop, std::move(call.request),
                         {.origin = found->origin,
                          .target = std::move(rest),
                          .headers = {{"authorization", ""},
                                      {"cookie", ""},
                                      {"x-mlrun-session", ""},
                                      {"x-forwarded-context", prefix}},  // Spark's links begin so
                          .prefix = prefix,
                          .answer = {{"x-content-type-options", "nosniff"}}});
}

}  // namespace

void add_page_routes(Router& router, Pages& pages, Describe& describe, net::Client& client,
                     Executor loop) {
  const Find of_run = [&pages, &describe](Call& call) -> Async<Result<Found>> {
    auto uid = describe.find_run(call.at("project"), call.at("uid"));
    if (!uid) { co_return fail(std::move(uid.error())); }
    co_return co_await pages.of_run(call.at("project"), std::move(*uid));
  };
  const Find of_function = [&pages](Call& call) -> Async<Result<Found>> {
    co_return co_await pages.of_function(call.at("project"), call.at("name"), call.query("tag"));
  };
  for (const auto& [base, find] :
       {std::pair<std::string, Find>("/runs/{uid}", of_run),
        std::pair<std::string, Find>("/functions/{name}", of_function)}) {
    const std::string path = "/projects/{project}" + base + "/ui";
    router.add(Api::metier, "GET", path, "pages of Dask and Spark that there are now",
               [find](Call& call) { return list(find, call); });
    for (const char* tail : {"/{page}", "/{page}/{rest*}"}) {
      router.add(Api::metier, "GET", path + tail, "a page of Dask or Spark, passed on",
                 [&pages, &client, loop, find](Call& call) {
                   return show(pages, client, loop, find, call);
                 });
    }
  }
}

}  // namespace metier::api
