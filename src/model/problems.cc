#include "model/problems.h"

namespace metier {

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
