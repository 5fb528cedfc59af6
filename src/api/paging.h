// MLRun's paging: the first request carries the filters, later ones only the token, which holds them.
#pragma once

#include <functional>

#include "api/records_routes.h"

namespace metier::api {

struct Page {
  std::int64_t number = 0;  // 1-based; 0 = not paged
  std::int64_t size = 0;
  net::Request request;  // the request whose filters count: the first one's
  std::int64_t offset() const { return number == 0 ? 0 : (number - 1) * size; }
  // One more than the page, to know whether another follows; -1 = everything.
  std::int64_t limit() const { return number == 0 ? -1 : size + 1; }
};

// Errors: not_found for a token that is unknown or has ended; invalid page numbers and sizes.
Result<Page> page_of(const Call& call, const RecordsApi& api);
// Cuts `items` to the page and writes "pagination" into `answer`; makes the token of the next page.
Async<Result<void>> finish_page(RecordsApi api, Page page, JsonArray items, std::string list,
                                JsonObject& answer);

}  // namespace metier::api
