// The words of an `mpirun` command: options and program taken apart, and translated for the MPI that is there. Plain
// C++ without other parts of metier: the launcher program (shim/mpi) is built from it too.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace metier::mpi {

enum class Flavor { openmpi4, openmpi5, mpich };
std::string_view to_string(Flavor flavor);  // "Open MPI 4"

struct Option {
  std::string name;                 // as written: "-x", "--mca"
  std::vector<std::string> values;  // as many as it takes
};

struct Arguments {
  std::vector<Option> options;
  std::vector<std::string> program;  // empty when there is none
  int ranks = 0;                     // of -n or -np; 0: not given
};

// `mpirun`'s own words, without its name. Knows the options of Open MPI and of MPICH. Answers with one sentence that
// names the option when it is unknown, lacks its value or has no meaning where hosts are pods; else with "". `fix` (may be
// null) gets what to write instead.
std::string split(const std::vector<std::string>& words, Arguments& out,
                  std::string* fix = nullptr);

// The options in the form of that MPI. Answers as `split` when one cannot be said to it.
std::string translate(const Arguments& arguments, Flavor flavor, std::vector<std::string>& out);

// "mpirun", "mpiexec" and their names with a suffix, whatever the folder.
bool is_launcher(std::string_view word);

}  // namespace metier::mpi
