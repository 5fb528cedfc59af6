// Which MPI a library is, or a program is linked against, as its ELF file says it.
#pragma once

#include <string>
#include <vector>

#include "model/mpi_arguments.h"

namespace metier::mpi {

struct Linked {
  std::string soname;
  std::vector<std::string> needed;
  std::string rpath;    // what is searched before LD_LIBRARY_PATH
  std::string runpath;  // and after it
};

// False when the file is no ELF file of this machine's kind, or says nothing of libraries.
bool read_linked(const std::string& file, Linked& out);

// "Open MPI 4", "Open MPI 5", "Open MPI" of a version that it does not tell, "MPICH" and what is built as it; empty: no MPI
// that we know, nor a file.
std::string mpi_of_library(const std::string& file);

// What is wrong with a library that the user chose for mpi4py; empty: nothing. Launcher and library have to be one MPI: with
// another's library each rank takes itself for the only one.
std::string wrong_library(const std::string& file, Flavor flavor, const std::string& launcher);

// The same for a program or a native handler; one that is no ELF file, or needs no MPI, is fine. `library_path` is
// LD_LIBRARY_PATH.
std::string wrong_linked(const std::string& file, Flavor flavor, const std::string& launcher,
                         const std::string& library_path);

}  // namespace metier::mpi
