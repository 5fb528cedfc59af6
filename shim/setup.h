// What a child does between fork and exec. Nothing here returns on failure: the failed step and errno go to
// the shim through a pipe that exec closes, so that its end of file means "the program runs".
#pragma once

#include "spec.h"

namespace shim {

struct Failure {
  int error = 0;
  char step[20] = {};     // "mount", "exec"
  char detail[108] = {};  // the path it was about
};

struct Launch {
  const Spec* spec = nullptr;
  const Container* container = nullptr;
  char* const* args = nullptr;
  char* const* env = nullptr;
  const char* cwd = "";
  const char* hostname = "";  // instead of the spec's, when not empty
  int log = -1;               // becomes stdout and stderr
  int passed = -1;            // becomes descriptor 3
  int result = -1;            // pipe: a Failure, or nothing
  int go =
      -1;  // pipe: one byte releases the child; end of file (the shim died) ends it. -1: do not wait
};

// Where a program without '/' is looked for, given an environment ("NAME=value", null-terminated).
const char* search_path(char* const* env);

[[noreturn]] void become(const Launch& launch);

}  // namespace shim
