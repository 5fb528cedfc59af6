// Function and run documents out of flags: MLRun's code_to_function and run template, as plain JSON.
#pragma once

#include "base/json.h"
#include "cli/arguments.h"
#include "cli/session.h"
#include "cli/source_scan.h"

namespace metier::cli {

struct Submission {
  std::string kind;
  std::string project;
  JsonObject function;
  JsonObject run;
  std::string context;      // folder of the function's file, for x-metier-context; empty = none
  std::string shown;        // what to write in hints: "train.py:train"
  std::string source_text;  // Python code, for excerpts
  std::vector<std::string> warnings;  // unknown fields, with the nearest known one
};

struct Caller {
  std::string folder;  // current folder
  std::string data;    // data folder: never a volume
  std::string socket;
  std::string project;       // METIER_PROJECT or -P, else "default"
  bool same_machine = true;  // files named by inputs can be looked at
};

// Everything `run` and `render` need. Errors: invalid or not_found, field = the flag.
// `default_kind` when neither --kind nor a function file says one.
Result<Submission> make_submission(const Arguments& arguments, const Caller& caller,
                                   std::string_view default_kind = "local");

// Names of all kinds, in the order they are shown.
const std::vector<std::string>& kind_names();
Result<void> check_kind(std::string_view flag, std::string_view kind);
// "0.5", "500m" for cpu; "2G", "2Gi" for memory. Errors: invalid with the accepted forms.
Result<std::string> check_cpu(std::string_view text);
Result<std::string> check_memory(std::string_view text);
// A value of -p: JSON when it is, Python's True, False and None, else text.
Json parameter_value(std::string_view text);
std::string normalized_name(std::string_view text);
std::string run_name(std::string_view file, std::string_view handler);

}  // namespace metier::cli
