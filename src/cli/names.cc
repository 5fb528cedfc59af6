#include "cli/names.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "base/clock.h"
#include "cli/outcome.h"
#include "net/url.h"

namespace metier::cli {
namespace {

constexpr std::int64_t kSearched = 1000;  // runs looked at for a prefix

bool is_hex(std::string_view text) {
  return std::ranges::all_of(
      text, [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

std::string_view metadata_of(const Json& item, std::string_view key) {
  const auto* metadata = item.is_object() ? object_in(item.as_object(), "metadata") : nullptr;
  return metadata == nullptr ? std::string_view() : string_in(*metadata, key);
}

Error no_run(Command& command, const std::string& word, const JsonArray& known) {
  std::vector<std::string> names;
  for (const auto& run : known) { names.emplace_back(metadata_of(run, "name")); }
  const auto close = nearest(word, names);
  return Error{
      .kind = ErrorKind::not_found,
      .message = fmt::format("no run {} in project {}{}", quote(word), command.project,
                             close ? fmt::format(", did you mean {}?", quote(*close)) : ""),
      .fix = "runs: metier get runs -P " + command.project};
}

Result<JsonObject> whole_run(Command& command, std::string_view uid) {
  METIER_TRY(answer, command.session.get(fmt::format("/api/v1/projects/{}/runs/{}?format=full",
                                                     command.project, uid)));
  const auto* data = answer.is_object() ? object_in(answer.as_object(), "data") : nullptr;
  if (data == nullptr) { return fail(ErrorKind::internal, "the server's answer holds no run"); }
  return *data;
}

}  // namespace

Result<JsonArray> list_runs(Command& command, const std::string& query, std::int64_t limit) {
  METIER_TRY(answer, command.session.get(fmt::format(
                         "/api/v1/projects/{}/runs?iter=no&sort=yes&page=1&page-size={}{}{}",
                         command.project, limit, kAllRuns, query)));
  const auto* runs = answer.is_object() ? array_in(answer.as_object(), "runs") : nullptr;
  if (runs == nullptr) { return fail(ErrorKind::internal, "the server's answer holds no runs"); }
  return *runs;
}

Result<JsonObject> resolve_run(Command& command, const std::string& word) {
  if (word.size() == 32 && is_hex(word)) { return whole_run(command, word); }
  if (word.starts_with("@-")) {
    std::int64_t back = 0;
    const auto [end, error] = std::from_chars(word.data() + 2, word.data() + word.size(), back);
    if (error != std::errc{} || end != word.data() + word.size() || back < 1 || back > kSearched) {
      return fail(
          invalid("", quote(word) + " is not a run", "@-1 is the last run, @-2 the one before"));
    }
    METIER_TRY(runs, list_runs(command, "", back));
    if (static_cast<std::int64_t>(runs.size()) < back) { return fail(no_run(command, word, {})); }
    return whole_run(command, metadata_of(runs[static_cast<std::size_t>(back - 1)], "uid"));
  }
  METIER_TRY(named, list_runs(command, "&name=" + net::percent_encode(word), 1));
  if (!named.empty()) { return whole_run(command, metadata_of(named[0], "uid")); }
  METIER_TRY(known, list_runs(command, "", kSearched));
  if (word.size() >= 4 && is_hex(word)) {
    std::vector<const Json*> found;
    for (const auto& run : known) {
      if (metadata_of(run, "uid").starts_with(word)) { found.push_back(&run); }
    }
    if (found.size() == 1) { return whole_run(command, metadata_of(*found[0], "uid")); }
    if (found.size() > 1) {
      std::string listed;
      for (std::size_t i = 0; i < found.size() && i < 5; ++i) {
        const auto age = age_cell(string_at(*found[i], "status.start_time"), system_clock().now());
        listed += fmt::format("{}{}  {}  {} ago", i == 0 ? "" : "\n", metadata_of(*found[i], "uid"),
                              metadata_of(*found[i], "name"), age.text);
      }
      return fail(Error{.kind = ErrorKind::not_found,
                        .message = fmt::format("{} could be {} runs", quote(word), found.size()),
                        .fix = listed});
    }
  }
  return fail(no_run(command, word, known));
}

Result<JsonObject> resolve_function(Command& command, const std::string& word) {
  auto answer = command.session.get(fmt::format("/api/v1/projects/{}/functions/{}?tag=latest",
                                                command.project, net::percent_encode(word)));
  if (!answer) { return fail(std::move(answer).error()); }
  const auto* function = answer->is_object() ? object_in(answer->as_object(), "func") : nullptr;
  if (function == nullptr) {
    return fail(ErrorKind::internal, "the server's answer holds no function");
  }
  return *function;
}

}  // namespace metier::cli
