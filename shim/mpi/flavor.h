// Which MPI a launcher belongs to, and the library that goes with it.
#pragma once

#include <chrono>
#include <string>

#include "model/mpi_arguments.h"

namespace metier::mpi {

struct Engine {
  Flavor flavor = Flavor::openmpi4;
  std::string launcher;  // its full path
  std::string prefix;    // where it is installed
  std::string library;   // libmpi.so of the same place; empty: not found
  std::string version;   // "4.1.4", empty: not asked
};

// The first `name` on `path`. Answers with a sentence when there is none or it cannot be told what it is. One that its place
// does not tell is asked for its version, for `limit` at most; the answer is kept until the file changes, that there was
// none for ten minutes.
std::string find_engine(const std::string& name, const std::string& path, Engine& out,
                        std::chrono::milliseconds limit = std::chrono::seconds(120));

// `path` without links; as it is when it is not there.
std::string real(const std::string& path);

}  // namespace metier::mpi
