#include "cli/complete.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>

#include "cli/document.h"
#include "cli/verbs.h"

namespace metier::cli {
namespace {

std::vector<std::string> run_names(const Environment& environment, const std::string& project) {
  std::vector<std::string> out;
  auto places = find_places(environment, ::geteuid() == 0);
  if (!places) { return out; }
  auto endpoint = find_endpoint(environment, *places);
  if (!endpoint) { return out; }
  net::ClientRequest request{
      .url = endpoint->url +
             fmt::format("/api/v1/projects/{}/runs?iter=no&sort=yes&page=1&page-size=50", project),
      .timeout = std::chrono::milliseconds(50)};
  if (const auto token = variable(environment, "METIER_TOKEN"); !token.empty()) {
    request.headers.emplace_back("authorization", "Bearer " + token);
  }
  auto answer = net::make_blocking_client()->send(request);
  auto body = answer ? parse_json(answer->body) : Result<Json>(fail(ErrorKind::unavailable, ""));
  const auto* runs = body && body->is_object() ? array_in(body->as_object(), "runs") : nullptr;
  for (const auto& run : runs == nullptr ? JsonArray{} : *runs) {
    std::string name(string_at(run, "metadata.name"));
    if (std::ranges::find(out, name) == out.end()) { out.push_back(std::move(name)); }
  }
  return out;
}

std::vector<std::string> candidates(std::span<const std::string> words,
                                    const Environment& environment) {
  std::vector<std::string> out;
  const std::string current = words.empty() ? "" : words.back();
  if (words.size() <= 1) {
    for (const auto& entry : all_verbs()) { out.emplace_back(entry.verb.name); }
    return out;
  }
  const auto* entry = find_verb(words[0]);
  if (entry == nullptr) { return out; }
  const auto& before = words[words.size() - 2];
  if (before == "--kind" || before == "-k") { return kind_names(); }
  if (before == "-o" || before == "--output") { return {"table", "wide", "json", "yaml", "name"}; }
  if (current.starts_with('-')) {
    for (const auto& flag : entry->verb.flags) { out.emplace_back(flag.name); }
    return out;
  }
  const auto& verb = entry->verb.name;
  if (verb == "get") {
    return {"runs", "functions", "artifacts", "pods", "projects", "environments"};
  }
  if (verb == "secret") { return {"set", "list", "delete"}; }
  if (verb == "config") {
    if (words.size() == 2) { return {"view", "get", "set", "unset"}; }
    for (const auto& setting : all_settings()) { out.emplace_back(setting.name); }
    return out;
  }
  if (verb == "queue") { return {"pause", "resume"}; }
  if (verb == "completion") { return {"bash", "zsh", "fish"}; }
  if (verb == "kinds") { return kind_names(); }
  if (verb == "help") { return candidates(words.subspan(1, words.size() - 1), environment); }
  if (verb == "describe" || verb == "logs" || verb == "why" || verb == "wait" || verb == "abort" ||
      verb == "delete") {
    const auto project = variable(environment, "METIER_PROJECT");
    return run_names(environment, project.empty() ? "default" : project);
  }
  return out;
}

}  // namespace

std::vector<std::string> complete(std::span<const std::string> words,
                                  const Environment& environment) {
  auto out = candidates(words, environment);
  const std::string current = words.empty() ? "" : words.back();
  std::erase_if(out, [&](const std::string& word) { return !word.starts_with(current); });
  return out;
}

}  // namespace metier::cli
