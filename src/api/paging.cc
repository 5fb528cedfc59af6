#include "api/paging.h"

#include <fmt/format.h>

#include "base/digest.h"

namespace metier::api {
namespace {

constexpr std::string_view kScope = "page";
constexpr std::int64_t kMostItems = 1000;
constexpr std::int64_t kMostPages = 1'000'000'000;
constexpr std::size_t kMostInline = 4096;

Json stored(const Page& page, std::int64_t next) {
  JsonArray query;
  for (const auto& [name, value] : page.request.query) {
    if (name != "page" && name != "page-size" && name != "page-token") {
      query.push_back(JsonArray{Json(name), Json(value)});
    }
  }
  return JsonObject{{"page", next},
                    {"size", page.size},
                    {"path", page.request.path},
                    {"query", std::move(query)}};
}

// A token is the list itself, in base64 for addresses: nothing is stored, and it outlives the server. It gives no
// right that its holder has not: what it asks for is checked as any request is. Only what an address cannot hold is kept.
std::string inline_token(const std::string& text) {
  auto token = base64_encode(text);
  for (auto& c : token) { c = c == '+' ? '-' : c == '/' ? '_' : c; }
  while (token.ends_with('=')) { token.pop_back(); }
  return "q" + token;
}

Result<Json> read_token(const std::string& token, const RecordsApi& api) {
  if (!token.starts_with('q')) {
    METIER_TRY(text, api.store.records().setting(std::string(kScope), token));
    if (!text) { return fail(ErrorKind::not_found, "no such token"); }
    return parse_json(*text);
  }
  auto plain = token.substr(1);
  for (auto& c : plain) { c = c == '-' ? '+' : c == '_' ? '/' : c; }
  while (plain.size() % 4 != 0) { plain += '='; }
  METIER_TRY(text, base64_decode(plain));
  return parse_json(text);
}

// A page out of a token, which anybody may have written.
bool restore(Page& page, const Json& known, const std::string& path) {
  const auto* object = known.if_object();
  const auto* query = object == nullptr ? nullptr : array_in(*object, "query");
  if (query == nullptr || string_in(*object, "path") != path) { return false; }
  page.number = int_in(*object, "page").value_or(0);
  page.size = int_in(*object, "size").value_or(0);
  if (page.number < 1 || page.number > kMostPages || page.size < 1 || page.size > kMostItems) {
    return false;
  }
  page.request.query.clear();
  for (const auto& pair : *query) {
    const auto* two = pair.if_array();
    if (two == nullptr || two->size() != 2 || !(*two)[0].is_string() || !(*two)[1].is_string()) {
      return false;
    }
    page.request.query.emplace_back(std::string((*two)[0].get_string()),
                                    std::string((*two)[1].get_string()));
  }
  return true;
}

}  // namespace

Result<Page> page_of(const Call& call, const RecordsApi& api) {
  Page page;
  page.request = call.request;
  page.request.body.clear();
  if (const auto token = call.query("page-token"); !token.empty()) {
    const auto known = read_token(token, api);
    if (!known || !restore(page, *known, call.request.path)) {
      return fail(Error{.kind = ErrorKind::not_found,
                        .message = "this page token is unknown or has ended",
                        .field = "page-token",
                        .fix = "start the list again without it"});
    }
    return page;
  }
  METIER_TRY(size, call.number("page-size", 0, 1, 1'000'000));
  METIER_TRY(number, call.number("page", size == 0 ? 0 : 1, 1, kMostPages));
  if (size == 0 && number > 0) { size = 20; }
  page.number = number;
  page.size = std::min(size, kMostItems);
  return page;
}

Async<Result<void>> finish_page(RecordsApi api, Page page, JsonArray items, std::string list,
                                JsonObject& answer) {
  JsonObject pagination{{"page", nullptr}, {"page-size", nullptr}, {"page-token", nullptr}};
  if (page.number > 0) {
    pagination["page"] = page.number;
    pagination["page-size"] = page.size;
    if (static_cast<std::int64_t>(items.size()) > page.size) {
      items.resize(static_cast<std::size_t>(page.size));
      const auto value = dump_json(stored(page, page.number + 1));
      auto token = inline_token(value);
      if (token.size() > kMostInline) {
        token = "s" + system_random().hex(16);
        const auto expires = api.clock.now() + std::chrono::hours(1);
        auto written = co_await api.store.write_any([&](Records& tx) {
          return tx.put_setting(std::string(kScope), token, value, expires);
        });
        if (!written) { co_return fail(std::move(written.error())); }
      }
      pagination["page-token"] = token;
    }
  }
  answer[list] = std::move(items);
  answer["pagination"] = std::move(pagination);
  co_return Result<void>{};
}

}  // namespace metier::api
