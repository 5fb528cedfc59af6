#include "api/paging.h"

#include <fmt/format.h>

#include "base/digest.h"

namespace metier::api {
namespace {

constexpr std::string_view kScope = "page";
constexpr std::int64_t kMostItems = 1000;

Json stored(const Page& page, std::int64_t next) {
  JsonArray query;
  for (const auto& [name, value] : page.request.query) {
    if (name != "page" && name != "page-size" && name != "page-token") { query.push_back(JsonArray{Json(name), Json(value)}); }
  }
  return JsonObject{{"page", next}, {"size", page.size}, {"path", page.request.path}, {"query", std::move(query)}};
}

}  // namespace

Result<Page> page_of(const Call& call, const RecordsApi& api) {
  Page page;
  page.request = call.request;
  page.request.body.clear();
  if (const auto token = call.query("page-token"); !token.empty()) {
    METIER_TRY(text, api.store.records().setting(std::string(kScope), token));
    auto known = text ? parse_json(*text) : Result<Json>(fail(ErrorKind::not_found, "no such token"));
    if (!known || string_at(*known, "path") != call.request.path) {
      return fail(Error{.kind = ErrorKind::not_found, .message = "this page token is unknown or has ended", .field = "page-token", .fix = "start the list again without it"});
    }
    const auto& object = known->get_object();
    page.number = int_in(object, "page").value_or(1);
    page.size = int_in(object, "size").value_or(20);
    page.request.query.clear();
    for (const auto& pair : *array_in(object, "query")) {
      page.request.query.emplace_back(std::string(pair.as_array()[0].as_string()), std::string(pair.as_array()[1].as_string()));
    }
    return page;
  }
  METIER_TRY(size, call.number("page-size", 0, 1, 1'000'000));
  METIER_TRY(number, call.number("page", size == 0 ? 0 : 1, 1, 1'000'000'000));
  if (size == 0 && number > 0) { size = 20; }
  page.number = number;
  page.size = std::min(size, kMostItems);
  return page;
}

Async<Result<void>> finish_page(RecordsApi api, Page page, JsonArray items, std::string list, JsonObject& answer) {
  JsonObject pagination{{"page", nullptr}, {"page-size", nullptr}, {"page-token", nullptr}};
  if (page.number > 0) {
    pagination["page"] = page.number;
    pagination["page-size"] = page.size;
    if (static_cast<std::int64_t>(items.size()) > page.size) {
      items.resize(static_cast<std::size_t>(page.size));
      const auto token = system_random().hex(16);
      const auto value = dump_json(stored(page, page.number + 1));
      const auto expires = api.clock.now() + std::chrono::hours(1);
      auto written = co_await api.store.write_any([&](Records& tx) { return tx.put_setting(std::string(kScope), token, value, expires); });
      if (!written) { co_return fail(std::move(written.error())); }
      pagination["page-token"] = token;
    }
  }
  answer[list] = std::move(items);
  answer["pagination"] = std::move(pagination);
  co_return Result<void>{};
}

}  // namespace metier::api
