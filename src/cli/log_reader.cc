#include "cli/log_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>

#include "net/url.h"

namespace metier::cli {
namespace {

constexpr std::uint64_t kPiece = 1U << 20U;
constexpr std::uint64_t kLongestTail = 4U << 20U;

Result<Answer> read_piece(Command& command, const LogPlace& place, std::uint64_t offset,
                          std::uint64_t size) {
  return command.session.send(
      "GET", fmt::format("{}&offset={}&size={}&wait=false", place.bytes, offset, size));
}

Result<std::uint64_t> size_of(Command& command, const LogPlace& place) {
  METIER_TRY(answer, read_piece(command, place, 0, 0));
  const std::string size(net::header(answer.headers, "x-metier-log-size"));
  return std::strtoull(size.c_str(), nullptr, 10);
}

// The first line that begins at `offset` or later.
Result<std::uint64_t> line_at(Command& command, const LogPlace& place, std::uint64_t offset) {
  for (auto at = offset == 0 ? 0 : offset - 1; offset > 0;) {
    METIER_TRY(answer, read_piece(command, place, at, kPiece));
    if (answer.body.empty()) { return at; }
    if (const auto newline = answer.body.find('\n'); newline != std::string::npos) {
      return at + newline + 1;
    }
    at += answer.body.size();
  }
  return 0;
}

// Where the last `lines` lines begin, not before `begin`.
Result<std::uint64_t> tail_begin(Command& command, const LogPlace& place, std::uint64_t begin,
                                 std::int64_t lines) {
  METIER_TRY(size, size_of(command, place));
  if (lines == 0 || size <= begin) { return std::max(size, begin); }
  begin = std::max(begin, size > kLongestTail ? size - kLongestTail : 0);
  std::string kept;
  while (begin + kept.size() < size) {
    METIER_TRY(answer, read_piece(command, place, begin + kept.size(), kPiece));
    if (answer.body.empty()) { break; }
    kept += answer.body;
  }
  auto at = kept.ends_with('\n') ? kept.size() - 1 : kept.size();
  for (std::int64_t i = 0; i < lines; ++i) {
    const auto newline = at == 0 ? std::string::npos : kept.rfind('\n', at - 1);
    if (newline == std::string::npos) { return begin; }
    at = newline;
  }
  return begin + at + 1;
}

}  // namespace

LogPlace log_of_run(const Command& command, std::string_view uid, std::string_view part,
                    std::int64_t attempt) {
  const auto of_part = part.empty() ? "" : "&part=" + net::percent_encode(part);
  return {.bytes = fmt::format("/api/v1/projects/{}/logs/{}?attempt={}{}", command.project, uid,
                               attempt, of_part),
          .times = fmt::format("/api/metier/v1/runs/{}/log-times?project={}&attempt={}{}", uid,
                               command.project, attempt, of_part)};
}

LogPlace log_of_function(const Command& command, std::string_view name, std::string_view pod) {
  const auto path = [&](std::string_view what) {
    return fmt::format("/api/metier/v1/deployments/{}/{}?project={}&pod={}",
                       net::percent_encode(name), what, net::percent_encode(command.project),
                       net::percent_encode(pod));
  };
  return {.bytes = path("log"), .times = path("log-times")};
}

Result<LogView> log_view(const Arguments& arguments) {
  LogView out;
  out.timestamps = arguments.has("--timestamps");
  if (arguments.has("--tail")) {
    METIER_TRY(count, parse_count("--tail", arguments.value("--tail"), 0, 1'000'000));
    out.tail = count;
  }
  if (const auto text = arguments.value("--since"); !text.empty()) {
    if (const auto ago = parse_duration(text); ago && *ago >= Duration(0)) {
      out.since = system_clock().now() - *ago;
    } else {
      out.since = from_iso(text);
    }
    if (!out.since) {
      return fail(invalid("--since", quote(text) + " is no duration and no time",
                          "write 30s, 5m, 1h, or 2026-11-25T16:20:28"));
    }
  }
  return out;
}

Result<std::uint64_t> log_begin(Command& command, const LogPlace& place, const LogView& view) {
  std::uint64_t begin = 0;
  if (view.since) {
    METIER_TRY(answer, command.session.get(fmt::format("{}&limit=0&since={}", place.times,
                                                       net::percent_encode(to_iso(*view.since)))));
    const auto told = answer.is_object() ? int_in(answer.as_object(), "offset") : std::nullopt;
    METIER_TRY(line, line_at(command, place, static_cast<std::uint64_t>(told.value_or(0))));
    begin = line;
  }
  return view.tail < 0 ? Result<std::uint64_t>(begin)
                       : tail_begin(command, place, begin, view.tail);
}

// Marks for the bytes [begin, end), as far as the server has them.
Result<void> LogText::know(std::uint64_t begin, std::uint64_t end) {
  std::erase_if(marks_, [begin](const Mark& mark) { return mark.end <= begin; });
  while (marks_.empty() || marks_.back().end < end) {
    const auto from = marks_.empty() ? begin : marks_.back().end;
    METIER_TRY(answer, command_.session.get(fmt::format("{}&offset={}", place_.times, from)));
    const auto* times = answer.is_object() ? array_in(answer.as_object(), "times") : nullptr;
    const auto known = marks_.size();
    for (const auto& entry : times == nullptr ? JsonArray{} : *times) {
      const auto* pair = entry.if_array();
      if (pair == nullptr || pair->size() < 2 || !(*pair)[0].is_number() ||
          !(*pair)[1].is_string()) {
        continue;
      }
      marks_.push_back({.end = (*pair)[0].to_number<std::uint64_t>(),
                        .at = std::string((*pair)[1].as_string())});
    }
    if (marks_.size() == known) { break; }
  }
  return {};
}

Result<std::string> LogText::of(std::string_view bytes, std::uint64_t offset) {
  if (!timestamps_ && name_.empty()) { return std::string(bytes); }
  if (timestamps_) { METIER_CHECK(know(offset, offset + bytes.size())); }
  std::string out;
  for (std::size_t mark = 0; !bytes.empty();) {
    if (line_start_ && !name_.empty()) { out += fmt::format("[{}] ", name_); }
    if (line_start_ && timestamps_) {
      while (mark + 1 < marks_.size() && marks_[mark].end <= offset) { ++mark; }
      out += (marks_.empty() ? to_iso(system_clock().now()) : marks_[mark].at) + " ";
    }
    const auto newline = bytes.find('\n');
    line_start_ = newline != std::string_view::npos;
    const auto line = bytes.substr(0, line_start_ ? newline + 1 : bytes.size());
    out += line;
    offset += line.size();
    bytes.remove_prefix(line.size());
  }
  return out;
}

void LogText::end_line() {
  if (!line_start_) { command_.screen.out("\n"); }
  line_start_ = true;
}

Result<std::uint64_t> print_log(Command& command, const LogPlace& place, LogText& text,
                                std::uint64_t offset) {
  while (true) {
    METIER_TRY(answer, read_piece(command, place, offset, kPiece));
    if (answer.body.empty()) { return offset; }
    METIER_TRY(shown, text.of(answer.body, offset));
    offset += answer.body.size();
    command.screen.out(shown);
  }
}

}  // namespace metier::cli
