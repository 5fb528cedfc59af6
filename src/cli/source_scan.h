// What a file offers to be run, found by reading its text: nothing of it is executed.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace metier::cli {

struct Found {
  std::string name;
  int line = 0;
  std::vector<std::string> parameters;  // without self; defaults and annotations left out
  bool any_keyword = false;             // takes **kwargs
  bool is_class = false;
};
struct Scan {
  std::vector<Found> functions;    // top level, in order of the file
  std::vector<std::string> names;  // top-level assignments and imports: may be callables
  bool open_ended = false;         // `from x import *`, exec, globals(): anything may be there
  bool runs_something =
      false;  // a top-level statement that is neither definition, import nor assignment
};
Scan scan_python(std::string_view text);

enum class FileKind { python, notebook, shell, library, program };

struct Target {
  std::string path;     // absolute
  std::string handler;  // may be empty
  FileKind kind = FileKind::python;
  std::string text;  // of python and notebooks
  Scan scan;
};
// "FILE[:HANDLER]" or "FILE::HANDLER", the file looked at. Errors: not_found for no such file, invalid for a folder, a FIFO,
// a device, an unreadable or too large file, a handler that is no name, and for one that the file does not have (with the
// nearest and the list).
Result<Target> find_target(std::string_view text);

}  // namespace metier::cli
