#include "cli/cli.h"

#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <array>
#include <filesystem>

#include "cli/complete.h"
#include "cli/verbs.h"

extern char** environ;

namespace metier::cli {
namespace {

Environment read_environment() {
  Environment out;
  for (char** line = environ; line != nullptr && *line != nullptr; ++line) {
    const std::string_view text = *line;
    const auto equals = text.find('=');
    if (equals != std::string_view::npos && equals > 0) {
      out.emplace(text.substr(0, equals), text.substr(equals + 1));
    }
  }
  return out;
}

std::string own_path() {
  std::error_code ec;
  return std::filesystem::read_symlink("/proc/self/exe", ec).string();
}

// With -o json an error is a document on stdout too.
void show_error(Screen& screen, const Error& error, std::string_view output) {
  if (output == "json") {
    JsonObject detail{{"reason", error.message}};
    if (!error.field.empty()) { detail["field"] = error.field; }
    if (!error.fix.empty()) { detail["fix"] = error.fix; }
    if (!error.code.empty()) { detail["code"] = error.code; }
    screen.json(JsonObject{{"detail", std::move(detail)}});
  }
  screen.error(error);
}

Result<void> check_output(const Arguments& arguments, const Verb& verb) {
  if (verb.name == "build" || !arguments.has("--output")) { return {}; }
  const auto output = arguments.value("--output");
  for (const char* known : {"table", "wide", "json", "yaml", "name"}) {
    if (output == known) { return {}; }
  }
  return fail(invalid("-o", quote(output) + " is unknown", "table, wide, json, yaml or name"));
}

Result<void> check_project(const std::string& project) {
  METIER_TRY(setting, find_setting("project"));
  if (project == "*") { return {}; }
  auto fits = check_setting(*setting, project);
  if (!fits) { fits.error().field = "-P"; }
  return fits;
}

Error unknown_verb(std::string_view word) {
  if (const auto text = absent_verb(word); !text.empty()) {
    return invalid("", fmt::format("{}: {}", word, text));
  }
  std::vector<std::string> names;
  for (const auto& entry : all_verbs()) { names.emplace_back(entry.verb.name); }
  const auto close = nearest(word, names);
  return invalid(
      "", quote(word) + " is not a verb" + (close ? fmt::format(", did you mean {}?", *close) : ""),
      "verbs: metier help");
}

int run_verb(const VerbEntry& entry, std::span<const std::string> words,
             const Environment& environment, const Program& program) {
  auto arguments = Arguments::parse(entry.verb, words);
  if (!arguments) {
    Screen screen(detect_style("auto", environment), STDOUT_FILENO, STDERR_FILENO);
    screen.error(arguments.error());
    return exit_code_of_error(arguments.error());
  }
  auto style = detect_style(arguments->value("--color", "auto"), environment);
  style.quiet = arguments->has("--quiet");
  Screen screen(style, STDOUT_FILENO, STDERR_FILENO);
  if (arguments->wants_help()) {
    screen.out(verb_help(entry, screen));
    return 0;
  }
  std::error_code ec;
  auto settings = Settings::load(environment, ::geteuid() == 0, std::filesystem::current_path(ec));
  if (!settings && (entry.group == "help" || entry.verb.name == "completion")) {
    settings = Settings();  // these are there also when a settings file is broken
  }
  if (!settings) {
    show_error(screen, settings.error(), arguments->value("--output"));
    return exit_code_of_error(settings.error());
  }
  Session session(environment, std::move(*settings), screen, own_path());
  const auto own_project = variable(session.environment(), "METIER_PROJECT");
  Command command{
      .verb = entry.verb,
      .arguments = *arguments,
      .session = session,
      .screen = screen,
      .program = program,
      .executable = own_path(),
      .project = arguments->value("--project", own_project.empty() ? "default" : own_project),
      .output = entry.verb.name == "build" ? "table" : arguments->value("--output", "table")};
  const auto run = [&]() -> Result<int> {
    METIER_CHECK(check_output(*arguments, entry.verb));
    METIER_CHECK(check_project(command.project));
    METIER_TRY(code, entry.main(command));
    METIER_CHECK(screen.finish());
    return code;
  };
  auto code = run();
  if (code) { return *code; }
  show_error(screen, code.error(), command.output);
  return exit_code_of_error(code.error());
}

}  // namespace

int cli_main(int argc, char** argv, const Program& program) {
  ::signal(SIGPIPE, SIG_IGN);
  std::vector<std::string> words(argv + std::min(argc, 1), argv + argc);
  const auto environment = read_environment();
  if (words.empty() || words[0] == "--help" || words[0] == "-h") {
    Screen screen(detect_style("auto", environment), STDOUT_FILENO, STDERR_FILENO);
    screen.out(short_help(screen));
    return 0;
  }
  if (words[0] == "--version") { words[0] = "version"; }
  if (words[0] == "__complete") {
    Screen screen(detect_style("never", environment), STDOUT_FILENO, STDERR_FILENO);
    auto filled = environment;
    std::error_code ec;
    if (const auto settings =
            Settings::load(environment, ::geteuid() == 0, std::filesystem::current_path(ec))) {
      settings->fill(filled);
    }
    for (const auto& line : complete(std::span(words).subspan(1), filled)) {
      screen.out(line + "\n");
    }
    return 0;
  }
  const auto* entry = find_verb(words[0]);
  if (entry == nullptr) {
    Screen screen(detect_style("auto", environment), STDOUT_FILENO, STDERR_FILENO);
    screen.error(unknown_verb(words[0]));
    return 2;
  }
  try {
    return run_verb(*entry, std::span(words).subspan(1), environment, program);
  } catch (const std::exception& e) {
    Screen screen(detect_style("auto", environment), STDOUT_FILENO, STDERR_FILENO);
    screen.error(
        Error{.kind = ErrorKind::internal,
              .message = fmt::format("internal error in metier {}: {}", program.version, e.what()),
              .fix = "report it with the command that you typed"});
    return 70;
  }
}

}  // namespace metier::cli
