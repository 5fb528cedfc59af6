#include "mpi/flavor.h"

#include <fcntl.h>
#include <glob.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <climits>
#include <csignal>
#include <cstdlib>
#include <map>
#include <mutex>
#include <vector>

namespace metier::mpi {
namespace {

using std::chrono::steady_clock;

constexpr auto kAskAgain = std::chrono::minutes(10);

std::string on_path(const std::string& name, std::string_view path) {
  if (name.find('/') != std::string::npos) {
    return ::access(name.c_str(), X_OK) == 0 ? name : std::string();
  }
  while (!path.empty()) {
    const auto end = std::min(path.find(':'), path.size());
    const auto candidate = std::string(path.substr(0, end)) + "/" + name;
    if (end > 0 && ::access(candidate.c_str(), X_OK) == 0) { return candidate; }
    path.remove_prefix(std::min(end + 1, path.size()));
  }
  return {};
}

std::string folder_of(const std::string& path) { return path.substr(0, path.rfind('/')); }
std::string name_of(const std::string& path) { return path.substr(path.rfind('/') + 1); }
bool exists(const std::string& path) { return ::access(path.c_str(), F_OK) == 0; }

std::string first_of(const std::string& pattern) {
  glob_t found{};
  std::string out;
  if (::glob(pattern.c_str(), 0, nullptr, &found) == 0 && found.gl_pathc > 0) {
    out = found.gl_pathv[0];
  }
  ::globfree(&found);
  return out;
}

struct Said {
  std::string text;
  bool late = false;  // it was ended because it had not
};

Said ask_version(const std::string& launcher, std::chrono::milliseconds limit) {
  Said out;
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) { return out; }
  const pid_t child = ::fork();
  if (child == 0) {
    ::setpgid(0, 0);
    ::dup2(ends[1], 1);
    ::dup2(ends[1], 2);
    ::execl(launcher.c_str(), launcher.c_str(), "--version", nullptr);
    ::_exit(127);
  }
  ::close(ends[1]);
  const auto until = steady_clock::now() + limit;
  std::array<char, 4096> part{};
  while (child > 0 && out.text.size() < 65'536) {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(until - steady_clock::now()).count();
    pollfd polled{ends[0], POLLIN, 0};
    const int ready = left > 0 ? ::poll(&polled, 1, static_cast<int>(left)) : 0;
    if (ready < 0 && errno == EINTR) { continue; }
    const ssize_t n = ready > 0 ? ::read(ends[0], part.data(), part.size()) : 0;
    out.late = ready == 0;
    if (n <= 0) { break; }
    out.text.append(part.data(), static_cast<std::size_t>(n));
  }
  ::close(ends[0]);
  if (child > 0) {
    ::kill(-child, SIGKILL);  // what it has left, and itself when it hangs
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
  }
  return out;
}

// What the launcher says about itself: the last resort, it costs a start.
Said say_version(const std::string& launcher, std::chrono::milliseconds limit) {
  struct Kept {
    timespec changed{};
    steady_clock::time_point asked;
    Said said;
  };
  static std::mutex mutex;
  static std::map<std::string, Kept> known;
  const std::scoped_lock lock(mutex);
  struct stat now{};
  ::stat(launcher.c_str(), &now);
  const auto have = known.find(launcher);
  if (have != known.end() && have->second.changed.tv_sec == now.st_mtim.tv_sec &&
      have->second.changed.tv_nsec == now.st_mtim.tv_nsec &&
      (!have->second.said.late || steady_clock::now() - have->second.asked < kAskAgain)) {
    return have->second.said;
  }
  auto said = ask_version(launcher, limit);
  known[launcher] = {.changed = now.st_mtim, .asked = steady_clock::now(), .said = said};
  return said;
}

bool told_by_place(const std::string& launcher, Flavor& out) {
  const auto name = name_of(launcher);
  const auto folder = folder_of(launcher);
  if (name == "orterun") {
    out = Flavor::openmpi4;
  } else if (name == "prterun") {
    out = Flavor::openmpi5;
  } else if (name == "mpiexec.hydra" || name == "mpiexec.mpich") {
    out = Flavor::mpich;
  } else if (exists(folder + "/hydra_pmi_proxy") && !exists(folder + "/prterun")) {
    out = Flavor::mpich;
  } else if (exists(folder + "/prterun") && !exists(folder + "/hydra_pmi_proxy")) {
    out = Flavor::openmpi5;
  } else {
    return false;
  }
  return true;
}

// The library of the launcher's own prefix; a Debian launcher's is among the system's.
std::string library_of(const std::string& prefix, Flavor flavor) {
  const std::string folders[] = {prefix + "/lib", prefix + "/lib64",
                                 prefix + "/lib/x86_64-linux-gnu",
                                 prefix + "/lib/aarch64-linux-gnu"};
  for (const auto& folder : folders) {
    const auto found = flavor == Flavor::mpich ? first_of(folder + "/libmpich.so.[0-9]*")
                                               : first_of(folder + "/libmpi.so.40*");
    if (!found.empty()) { return found; }
    if (flavor != Flavor::mpich) { continue; }
    if (const auto other = first_of(folder + "/libmpi.so.12*"); !other.empty()) { return other; }
  }
  return {};
}

}  // namespace

std::string real(const std::string& path) {
  std::array<char, PATH_MAX> out{};
  return ::realpath(path.c_str(), out.data()) != nullptr ? std::string(out.data()) : path;
}

std::string find_engine(const std::string& name, const std::string& path, Engine& out,
                        std::chrono::milliseconds limit) {
  const auto found = on_path(name, path);
  if (found.empty()) {
    return "there is no " + name +
           " in the function's environment or on this machine: install Open MPI (apt-get install "
           "openmpi-bin libopenmpi-dev), or name openmpi or mpich in the function's requirements";
  }
  out.launcher = real(found);
  if (!told_by_place(out.launcher, out.flavor)) {
    const auto [text, late] = say_version(out.launcher, limit);
    if (late) { return out.launcher + " --version does not end: choose another mpirun"; }
    if (text.find("Open MPI) 4") != std::string::npos) {
      out.flavor = Flavor::openmpi4;
    } else if (text.find("Open MPI) 5") != std::string::npos ||
               text.find("PRRTE") != std::string::npos) {
      out.flavor = Flavor::openmpi5;
    } else if (text.find("HYDRA") != std::string::npos || text.find("MPICH") != std::string::npos) {
      out.flavor = Flavor::mpich;
    } else {
      return out.launcher + " is neither Open MPI 4 or 5 nor MPICH: choose another mpirun";
    }
  }
  out.prefix = folder_of(folder_of(out.launcher));
  out.library = library_of(out.prefix, out.flavor);
  return {};
}

}  // namespace metier::mpi
