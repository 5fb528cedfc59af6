#include "cli/log_output.h"

#include <unistd.h>

#include <algorithm>
#include <array>

namespace metier::cli {
namespace {

// From the first of what is held: what comes later than `kMore` says that the program goes on. In silence it is the run's end
// that is waited for, which a busy disk may delay.
constexpr auto kMore = std::chrono::seconds(1);
constexpr auto kPatience = std::chrono::seconds(5);
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

// Open MPI's words stand between two such lines.
constexpr std::string_view kRule =
    "--------------------------------------------------------------------------\n";
constexpr std::array<std::string_view, 5> kEndsOfJobs{
    "MPI_ABORT was invoked on rank", "terminated normally, but ",
    "detected that one or more processes exited with non-zero status", "noticed that process rank",
    "has exited due to process rank"};
// The launcher's own word says what the run's record does.
constexpr std::array<std::string_view, 2> kOfLauncher{"metier: rank ",
                                                      "metier: mpirun ended every rank"};

bool begins_end_of_ranks(std::string_view text) {
  if (text.starts_with(kRule)) { return true; }
  const auto end = text.starts_with("[rank ") ? text.find("] ") : std::string_view::npos;
  if (end == std::string_view::npos) { return false; }
  return std::ranges::any_of(
      kHeads, [&](std::string_view head) { return text.substr(end + 2).starts_with(head); });
}

std::size_t end_of_line(std::string_view text, std::size_t at) {
  const auto newline = text.find('\n', at);
  return newline == std::string_view::npos ? text.size() : newline + 1;
}

// Where a line begins that may be a head, from `from` on; npos: nowhere.
std::size_t find_head(std::string_view bytes, std::size_t from, bool line_start,
                      LogOutput::Holds holds = LogOutput::Holds::yes) {
  for (std::size_t at = from; at < bytes.size();) {
    const bool start = at == 0 ? line_start : bytes[at - 1] == '\n';
    if (start && (begins_failure(bytes.substr(at)) ||
                  (holds == LogOutput::Holds::of_ranks && begins_end_of_ranks(bytes.substr(at))))) {
      return at;
    }
    const auto newline = bytes.find('\n', at);
    if (newline == std::string_view::npos) { break; }
    at = newline + 1;
  }
  return std::string_view::npos;
}

bool cut_traceback(std::string& held, std::size_t size) {
  std::size_t found = std::string::npos;
  for (auto at = find_head(held, 0, true);
       size > 0 && at != std::string::npos && at + size <= held.size();
       at = find_head(held, at + 1, true)) {
    // The last one that ends with a line: the program may have printed others before, and a little after.
    if (held[at + size - 1] == '\n') { found = at; }
  }
  if (found == std::string::npos) { return false; }
  held.erase(found, size);
  return true;
}

// The same where each line has its rank in front and lines of other ranks may be between.
bool cut_traceback_of_rank(std::string& held, const LogOutput::Told& told) {
  const auto prefix = "[rank " + std::to_string(told.rank) + "] ";
  std::size_t begin = 0;
  std::size_t end = 0;
  std::string others;
  for (std::size_t at = 0; at < held.size(); at = end_of_line(held, at)) {
    const std::string_view from = std::string_view(held).substr(at);
    if (!from.starts_with(prefix) || !begins_end_of_ranks(from)) { continue; }
    std::size_t left = told.traceback;
    std::string between;
    auto line = at;
    while (line < held.size() && left > 0) {
      const auto next = end_of_line(held, line);
      const auto text = std::string_view(held).substr(line, next - line);
      if (!text.starts_with(prefix)) {
        between += text;
      } else if (text.size() - prefix.size() <= left) {
        left -= text.size() - prefix.size();
      } else {
        break;
      }
      line = next;
    }
    if (left > 0 || line == at) { continue; }
    begin = at;
    end = line;
    others = std::move(between);
  }
  if (end == 0) { return false; }
  held.replace(begin, end - begin, others);
  return true;
}

std::string without_end_of_job(std::string_view held) {
  std::string out;
  for (std::size_t at = 0; at < held.size();) {
    auto next = end_of_line(held, at);
    const auto line = held.substr(at, next - at);
    const bool of_launcher = std::ranges::any_of(
        kOfLauncher, [&](std::string_view begin) { return line.starts_with(begin); });
    const auto last = line == kRule ? held.find(kRule, next) : std::string_view::npos;
    if (last != std::string_view::npos) {
      const auto words = held.substr(next, last - next);
      const bool of_end = std::ranges::any_of(
          kEndsOfJobs, [&](std::string_view known) { return words.contains(known); });
      next = last + kRule.size();
      if (!of_end) { out += held.substr(at, next - at); }
      // What a rank printed meanwhile may stand between its lines.
      for (std::size_t in = 0; of_end && in < words.size(); in = end_of_line(words, in)) {
        const auto one = words.substr(in, end_of_line(words, in) - in);
        if (one.starts_with("[rank ")) { out += one; }
      }
    } else if (!of_launcher) {
      out += line;
    }
    at = next;
  }
  return out;
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
  if (holds_ != Holds::no && held_.empty()) {
    const auto at = find_head(bytes, 0, line_start_, holds_);
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
  if (held_.size() > kMost || std::chrono::steady_clock::now() - since_ > kMore) { flush(); }
}

bool LogOutput::patient() const { return std::chrono::steady_clock::now() - since_ < kPatience; }

void LogOutput::flush() {
  const auto bytes = std::exchange(held_, {});
  print(bytes);
}

bool LogOutput::end(const Told& told) {
  auto bytes = std::exchange(held_, {});
  const bool out = cut_traceback(bytes, told.traceback) || cut_traceback_of_rank(bytes, told);
  print(holds_ == Holds::of_ranks && told.failed ? without_end_of_job(bytes) : bytes);
  return out;
}

}  // namespace metier::cli
