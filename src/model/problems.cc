#include "model/problems.h"

#include "base/text.h"

namespace metier {

std::string expected(std::string_view what, const Json& got) {
  return "expected " + std::string(what) + ", got " +
         (got.is_null()                                          ? "null"
          : got.is_object() || got.is_int64() || got.is_uint64() ? "an "
                                                                 : "a ") +
         (got.is_null() ? "" : std::string(type_name(got)));
}

std::string unknown_name(std::string_view given, std::string_view near) {
  return quote(given) + " is unknown" + (near.empty() ? "" : ", did you mean " + quote(near) + "?");
}

void ProblemList::add(Error error) {
  if (errors_.size() < kMost) {
    errors_.push_back(std::move(error));
  } else {
    ++more_;
  }
}

Result<void> ProblemList::result() && {
  if (errors_.empty()) { return {}; }
  if (errors_.size() == 1) { return fail(std::move(errors_.front())); }
  Error all{.kind = errors_.front().kind,
            .message = std::to_string(errors_.size() + more_) + " problems",
            .code = errors_.front().code};
  for (const Error& error : errors_) {
    all.fix += (all.fix.empty() ? "" : "\n") + error.text() +
               (error.fix.empty() ? "" : " (" + error.fix + ")");
  }
  if (more_ > 0) { all.fix += "\nand " + std::to_string(more_) + " more"; }
  return fail(std::move(all));
}

}  // namespace metier
