// The verbs: one table from which parsing, help, completion and documentation are made.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "cli/arguments.h"
#include "cli/cli.h"
#include "cli/screen.h"
#include "cli/session.h"

namespace metier::cli {

// What a verb works with.
struct Command {
  const Verb& verb;
  const Arguments& arguments;
  Session& session;
  Screen& screen;
  const Program& program;
  std::string executable;  // our own path, for the server and children
  std::string project;     // -P, METIER_PROJECT, "default"
  std::string output;      // -o: table, wide, json, yaml, name
  const Environment& environment() const { return session.environment(); }
};

using VerbMain = Result<int> (*)(Command&);
struct VerbEntry {
  Verb verb;
  VerbMain main;
  std::string_view group;  // of the short help
};
std::span<const VerbEntry> all_verbs();
const VerbEntry* find_verb(std::string_view name);
// Verbs of the interface that this build does not have, with the sentence that says so; empty = no such verb.
std::string_view absent_verb(std::string_view name);

Result<int> run_main(Command& command);
Result<int> deploy_main(Command& command);
Result<int> invoke_main(Command& command);
Result<int> render_main(Command& command);
Result<int> get_main(Command& command);
Result<int> describe_main(Command& command);
Result<int> logs_main(Command& command);
Result<int> why_main(Command& command);
Result<int> wait_main(Command& command);
Result<int> ui_main(Command& command);
Result<int> doctor_main(Command& command);
Result<int> abort_main(Command& command);
Result<int> delete_main(Command& command);
Result<int> apply_main(Command& command);
Result<int> kinds_main(Command& command);
Result<int> build_main(Command& command);
Result<int> server_main(Command& command);
Result<int> env_main(Command& command);
Result<int> config_main(Command& command);
Result<int> secret_main(Command& command);
Result<int> queue_main(Command& command);
Result<int> version_main(Command& command);
Result<int> completion_main(Command& command);
Result<int> help_main(Command& command);

// The text of `metier help`, of `metier help VERB`, and of topics (exit-codes and reason codes); empty = no such topic.
std::string short_help(const Screen& screen);
std::string verb_help(const VerbEntry& entry, const Screen& screen);
std::string topic_help(std::string_view topic);
// What to do about a reason code; empty = unknown.
std::string_view topic_fix(std::string_view code);

}  // namespace metier::cli
