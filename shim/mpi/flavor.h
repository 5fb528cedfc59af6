// Which MPI a launcher belongs to, and the library that goes with it.
#pragma once

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

// The first `name` on `path`. Answers with a sentence when there is none or it cannot be told what it is.
std::string find_engine(const std::string& name, const std::string& path, Engine& out);

}  // namespace metier::mpi
