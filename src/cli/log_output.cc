#include "cli/log_output.h"

#include <unistd.h>

#include <algorithm>
#include <array>

namespace metier::cli {
namespace {

constexpr auto kPatience = std::chrono::seconds(1);
constexpr std::size_t kMost = 256U << 10U;
// How the runner's word about a failure begins.
constexpr std::array<std::string_view, 3> kHeads{
    "Traceback (most recent call last):", "  + Exception Group Traceback", "error: "};

// `text` begins with a head, or is the beginning of one.
bool begins_failure(std::string_view text) {
  return !text.empty() && std::ranges::any_of(kHeads, [&](std::string_view head) {
    return text.size() < head.size() ? head.starts_with(text) : text.starts_with(head);
  });
}

// Where a line begins that may be a head, from `from` on; npos: nowhere.
std::size_t find_head(std::string_view bytes, std::size_t from, bool line_start) {
  for (std::size_t at = from; at < bytes.size();) {
    const bool start = at == 0 ? line_start : bytes[at - 1] == '\n';
    if (start && begins_failure(bytes.substr(at))) { return at; }
    const auto newline = bytes.find('\n', at);
    if (newline == std::string_view::npos) { break; }
    at = newline + 1;
  }
  return std::string_view::npos;
}

}  // namespace

void LogOutput::print(std::string_view bytes) {
  if (bytes.empty()) { return; }
  line_start_ = bytes.back() == '\n';
  if (to_ == To::out) {
    screen_.out(bytes);
    return;
  }
  while (!bytes.empty()) {
    const auto n = ::write(STDERR_FILENO, bytes.data(), bytes.size());
    if (n <= 0) { break; }
    bytes.remove_prefix(static_cast<std::size_t>(n));
  }
}

void LogOutput::add(std::string_view bytes) {
  if (holds_ == Holds::yes && held_.empty()) {
    const auto at = find_head(bytes, 0, line_start_);
    print(bytes.substr(0, at));
    if (at == std::string_view::npos) { return; }
    held_ = bytes.substr(at);
    since_ = std::chrono::steady_clock::now();
    return;
  }
  if (held_.empty()) {
    print(bytes);
    return;
  }
  held_ += bytes;
  if (held_.size() > kMost) { flush(); }
}

bool LogOutput::patient() const { return std::chrono::steady_clock::now() - since_ < kPatience; }

void LogOutput::flush() {
  const auto bytes = std::exchange(held_, {});
  print(bytes);
}

bool LogOutput::end(std::size_t traceback) {
  std::size_t found = std::string::npos;
  for (auto at = find_head(held_, 0, true);
       traceback > 0 && at != std::string::npos && at + traceback <= held_.size();
       at = find_head(held_, at + 1, true)) {
    // The last one that ends with a line: the program may have printed others before, and a little after.
    if (held_[at + traceback - 1] == '\n') { found = at; }
  }
  if (found == std::string::npos) {
    flush();
    return false;
  }
  const auto bytes = std::exchange(held_, {});
  print(std::string_view(bytes).substr(0, found));
  print(std::string_view(bytes).substr(found + traceback));
  return true;
}

}  // namespace metier::cli
