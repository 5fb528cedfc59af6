#include "model/mpi_arguments.h"

#include <algorithm>
#include <cstdlib>

namespace metier::mpi {
namespace {

enum class Use {
  both,      // the same in Open MPI and MPICH
  open_mpi,  // Open MPI's only
  hydra,     // MPICH's only
  dropped,   // says what holds here anyway
  host       // chooses hosts: they are the job's pods
};

struct Known {
  std::string_view name;  // without leading dashes
  int values;
  Use use;
};

// Sources: mpirun(1) of Open MPI 4.1 and 5.0, `mpiexec -help` of MPICH 4 and 5.
constexpr Known kKnown[] = {
    {"x", 1, Use::open_mpi},
    {"n", 1, Use::both},
    {"np", 1, Use::both},
    {"c", 1, Use::both},
    {"mca", 2, Use::open_mpi},
    {"gmca", 2, Use::open_mpi},
    {"prtemca", 2, Use::open_mpi},
    {"pmixmca", 2, Use::open_mpi},
    {"allow-run-as-root", 0, Use::dropped},
    {"oversubscribe", 0, Use::dropped},
    {"bind-to", 1, Use::both},
    {"map-by", 1, Use::both},
    {"rank-by", 1, Use::open_mpi},
    {"report-bindings", 0, Use::open_mpi},
    {"display-map", 0, Use::open_mpi},
    {"display-allocation", 0, Use::open_mpi},
    {"display", 1, Use::open_mpi},
    {"tag-output", 0, Use::dropped},
    {"timestamp-output", 0, Use::open_mpi},
    {"merge-stderr-to-stdout", 0, Use::dropped},
    {"output-filename", 1, Use::open_mpi},
    {"output", 1, Use::open_mpi},
    {"timeout", 1, Use::open_mpi},
    {"tune", 1, Use::open_mpi},
    {"am", 1, Use::open_mpi},
    {"cpu-set", 1, Use::open_mpi},
    {"cpu-list", 1, Use::open_mpi},
    {"use-hwthread-cpus", 0, Use::open_mpi},
    {"enable-recovery", 0, Use::open_mpi},
    {"disable-recovery", 0, Use::open_mpi},
    {"prefix", 1, Use::open_mpi},
    {"noprefix", 0, Use::open_mpi},
    {"q", 0, Use::open_mpi},
    {"quiet", 0, Use::open_mpi},
    {"v", 0, Use::both},
    {"verbose", 0, Use::both},
    {"genv", 2, Use::hydra},
    {"env", 2, Use::hydra},
    {"genvlist", 1, Use::hydra},
    {"genvall", 0, Use::hydra},
    {"envall", 0, Use::hydra},
    {"prepend-rank", 0, Use::dropped},
    {"l", 0, Use::dropped},
    {"print-rank-map", 0, Use::hydra},
    {"iface", 1, Use::hydra},
    {"ppn", 1, Use::host},
    {"H", 1, Use::host},
    {"host", 1, Use::host},
    {"hosts", 1, Use::host},
    {"hostfile", 1, Use::host},
    {"default-hostfile", 1, Use::host},
    {"machinefile", 1, Use::host},
    {"f", 1, Use::host},
    {"N", 1, Use::host},
    {"npernode", 1, Use::host},
    {"rankfile", 1, Use::host},
    {"rf", 1, Use::host},
    {"wdir", 1, Use::host},
    {"wd", 1, Use::host},
    {"nolocal", 0, Use::host},
    {"launcher", 1, Use::host},
    {"launcher-exec", 1, Use::host},
};

std::string_view bare(std::string_view word) {
  while (word.starts_with('-')) { word.remove_prefix(1); }
  return word;
}

const Known* find(std::string_view word) {
  const auto name = bare(word);
  for (const Known& known : kKnown) {
    if (known.name == name) { return &known; }
  }
  return nullptr;
}

std::string in_quotes(std::string_view text) { return "'" + std::string(text) + "'"; }

}  // namespace

std::string_view to_string(Flavor flavor) {
  return flavor == Flavor::openmpi4   ? "Open MPI 4"
         : flavor == Flavor::openmpi5 ? "Open MPI 5"
                                      : "MPICH";
}

bool is_launcher(std::string_view word) {
  const auto slash = word.rfind('/');
  if (slash != std::string_view::npos) { word.remove_prefix(slash + 1); }
  const auto name = word.substr(0, word.find('.'));
  return name == "mpirun" || name == "mpiexec" || name == "orterun" || name == "prterun";
}

std::string split(const std::vector<std::string>& words, Arguments& out, std::string* fix) {
  const auto wrong = [&](std::string what, std::string instead) {
    if (fix != nullptr) { *fix = std::move(instead); }
    return what;
  };
  std::size_t i = 0;
  for (; i < words.size() && words[i].starts_with('-'); ++i) {
    if (words[i] == "--") {
      ++i;
      break;
    }
    std::string word = words[i];
    std::vector<std::string> inline_value;
    if (const auto equals = word.find('='); word.starts_with("--") && equals != std::string::npos) {
      inline_value.push_back(word.substr(equals + 1));
      word.resize(equals);
    }
    const Known* known = find(word);
    if (known == nullptr) {
      return wrong("option " + in_quotes(word) + " of mpirun is not known here",
                   "use -x NAME=VALUE, -mca NAME VALUE, -n, --bind-to, --map-by, --timeout and the "
                   "like, or leave it out");
    }
    if (known->use == Use::host) {
      return wrong("option " + in_quotes(word) + " has no meaning here",
                   "leave it out: hosts and ranks on each are the job's workers (replicas) and "
                   "slots_per_worker");
    }
    Option option{.name = word, .values = std::move(inline_value)};
    while (static_cast<int>(option.values.size()) < known->values) {
      if (++i == words.size()) {
        return wrong(
            "option " + in_quotes(word) + " needs " +
                (known->values == 1 ? "a value" : std::to_string(known->values) + " values"),
            "each word is an item of its own: [\"-mca\", \"NAME\", \"VALUE\"]");
      }
      option.values.push_back(words[i]);
    }
    const auto name = bare(word);
    if (name == "n" || name == "np" || name == "c") {
      char* end = nullptr;
      const long number = std::strtol(option.values[0].c_str(), &end, 10);
      if (*end != '\0' || number < 1 || number > 100'000) {
        return wrong("option " + in_quotes(word) + " takes a number of ranks, got " +
                         in_quotes(option.values[0]),
                     "a whole number from 1 to 100000");
      }
      out.ranks = static_cast<int>(number);
      continue;
    }
    if (name == "x" && option.values[0].find('=') == 0) {
      return wrong("option '-x' takes NAME or NAME=VALUE, got " + in_quotes(option.values[0]),
                   "name the variable");
    }
    out.options.push_back(std::move(option));
  }
  out.program.assign(words.begin() + static_cast<std::ptrdiff_t>(i), words.end());
  return {};
}

std::string translate(const Arguments& arguments, Flavor flavor, std::vector<std::string>& out) {
  const bool hydra = flavor == Flavor::mpich;
  for (const Option& option : arguments.options) {
    const Known* known = find(option.name);
    if (known == nullptr || known->use == Use::dropped) { continue; }
    const auto name = bare(option.name);
    if (hydra && name == "x") {
      const auto& text = option.values[0];
      const auto equals = text.find('=');
      // A bare name passes what is there, and MPICH passes everything.
      if (equals != std::string::npos) {
        out.insert(out.end(), {"-genv", text.substr(0, equals), text.substr(equals + 1)});
      }
      continue;
    }
    if (!hydra && (name == "genv" || name == "env")) {
      out.insert(out.end(), {"-x", option.values[0] + "=" + option.values[1]});
      continue;
    }
    if (!hydra && (name == "genvall" || name == "envall" || name == "genvlist")) { continue; }
    if ((hydra && known->use == Use::open_mpi) || (!hydra && known->use == Use::hydra)) {
      return "option " + in_quotes(option.name) + " is " + (hydra ? "Open MPI's" : "MPICH's") +
             ", and the MPI here is " + std::string(to_string(flavor));
    }
    out.push_back(hydra && option.name.starts_with("--") ? option.name.substr(1) : option.name);
    out.insert(out.end(), option.values.begin(), option.values.end());
  }
  return {};
}

}  // namespace metier::mpi
