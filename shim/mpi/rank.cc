#include "mpi/rank.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <set>

#include "model/mpi_arguments.h"
#include "model/mpi_program.h"

extern char** environ;

namespace metier::mpi {
namespace {

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? std::string() : std::string(value);
}

std::string first_variable(std::initializer_list<const char*> names) {
  for (const char* name : names) {
    if (auto value = variable(name); !value.empty()) { return value; }
  }
  return {};
}

std::vector<std::string> split_commas(const std::string& text) {
  std::vector<std::string> out;
  for (std::size_t at = 0; at <= text.size();) {
    const auto end = std::min(text.find(',', at), text.size());
    if (end > at) { out.push_back(text.substr(at, end - at)); }
    at = end + 1;
  }
  return out;
}

std::string read_all(const std::string& path) {
  std::string out;
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  char part[8192];
  for (ssize_t n = 0; fd >= 0 && (n = ::read(fd, part, sizeof part)) > 0;) {
    out.append(part, static_cast<std::size_t>(n));
  }
  if (fd >= 0) { ::close(fd); }
  return out;
}

int complain(const std::string& text) {
  const auto line = "metier: " + text + "\n";
  [[maybe_unused]] const auto n = ::write(2, line.data(), line.size());
  return 127;
}

struct Place {
  int rank = 0;
  int size = 1;
  int slot = 0;  // within the pod
  int slots = 1;
  int node = 0;
  std::string pod;
};

// What mpirun added to the launcher's environment, and what the program should know of its place.
std::string payload_of(const std::vector<std::string>& command, const std::string& gang,
                       const Place& place) {
  std::string out;
  const auto add = [&out](std::string_view text) {
    out += text;
    out += '\0';
  };
  for (const auto& word : command) { add(word); }
  const auto base = read_all(gang + kBaseEnvironment);
  std::set<std::string_view> known;
  for (std::size_t at = 0; at < base.size();) {
    const auto end = std::min(base.find('\0', at), base.size());
    known.insert(std::string_view(base).substr(at, end - at));
    at = end + 1;
  }
  std::map<std::string, std::string> own{{"METIER_RANK", std::to_string(place.rank)},
                                         {"METIER_SIZE", std::to_string(place.size)},
                                         {"METIER_LOCAL_RANK", std::to_string(place.slot)},
                                         {"RANK", std::to_string(place.rank)},
                                         {"WORLD_SIZE", std::to_string(place.size)},
                                         {"LOCAL_RANK", std::to_string(place.slot)},
                                         {"LOCAL_WORLD_SIZE", std::to_string(place.slots)},
                                         {"GROUP_RANK", std::to_string(place.node)},
                                         {"MASTER_ADDR", "127.0.0.1"},
                                         {"MASTER_PORT", variable("METIER_MASTER_PORT")}};
  for (char** one = environ; *one != nullptr; ++one) {
    const std::string_view text(*one);
    const auto name = std::string(text.substr(0, text.find('=')));
    // TMPDIR is mpirun's session folder, the rank has its pod's own.
    if (known.contains(text) || own.contains(name) || name == "TMPDIR" || name == "PWD" ||
        name == "_") {
      continue;
    }
    // MPICH's connection to its launcher goes along as descriptor 3.
    add(name == "PMI_FD" ? std::string_view("PMI_FD=3") : text);
  }
  for (const auto& [name, value] : own) {
    if (!value.empty()) { add(name + "=" + value); }
  }
  return out;
}

int send_request(int connection, int rank, std::size_t words, const std::string& payload) {
  const int file = ::memfd_create("metier-rank", MFD_CLOEXEC);
  for (std::size_t done = 0; file >= 0 && done < payload.size();) {
    const auto n = ::write(file, payload.data() + done, payload.size() - done);
    if (n <= 0) { return -1; }
    done += static_cast<std::size_t>(n);
  }
  std::string text = "rank";
  text += '\0';
  text += std::to_string(rank);
  text += '\0';
  text += std::to_string(words);
  text += '\0';
  const auto pmi = variable("PMI_FD");
  const int files[2] = {file, pmi.empty() ? -1 : std::atoi(pmi.c_str())};
  const std::size_t count = files[1] < 0 ? 1 : 2;
  alignas(cmsghdr) char control[CMSG_SPACE(2 * sizeof(int))] = {};
  iovec part{text.data(), text.size()};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  header.msg_control = control;
  header.msg_controllen = CMSG_SPACE(count * sizeof(int));
  cmsghdr* one = CMSG_FIRSTHDR(&header);
  one->cmsg_level = SOL_SOCKET;
  one->cmsg_type = SCM_RIGHTS;
  one->cmsg_len = CMSG_LEN(count * sizeof(int));
  std::memcpy(CMSG_DATA(one), files, count * sizeof(int));
  const auto sent = ::sendmsg(connection, &header, MSG_NOSIGNAL);
  ::close(file);  // MPICH's connection stays open until the rank's end has been noted
  return sent < 0 ? -1 : 0;
}

void note_end(const std::string& gang, const Place& place, int code, int signal) {
  char line[256];
  const int size = std::snprintf(line, sizeof line, "%d %s %d %d\n", place.rank, place.pod.c_str(),
                                 code, signal);
  const int fd = ::open((gang + kEnds).c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) { return; }
  [[maybe_unused]] const auto n = ::write(fd, line, static_cast<std::size_t>(size));
  ::close(fd);
}

// MPICH's launcher ends the other ranks when a rank's connection closes while it knows the rank as living. Its output closes when
// this process ends, and a launcher that sees that first takes the process as ended and its connection for nothing (5.0.2: one in
// ten on a busy machine): the job would hang. So the connection goes first.
void close_connection() {
  if (const auto pmi = variable("PMI_FD"); !pmi.empty()) { ::close(std::atoi(pmi.c_str())); }
}

[[noreturn]] void end_as(int code, int signal) {
  close_connection();
  if (signal != 0) {
    ::signal(signal, SIG_DFL);
    sigset_t one;
    sigemptyset(&one);
    sigaddset(&one, signal);
    ::sigprocmask(SIG_UNBLOCK, &one, nullptr);
    ::kill(::getpid(), signal);
    ::pause();
  }
  ::_exit(code);
}

// Passes signals on until the rank has ended.
[[noreturn]] void follow(int connection, int signals, const std::string& gang, const Place& place) {
  bool started = false;
  while (true) {
    pollfd polled[2] = {{connection, POLLIN, 0}, {signals, POLLIN, 0}};
    ::poll(polled, 2, -1);
    signalfd_siginfo info{};
    while (::read(signals, &info, sizeof info) > 0) {
      std::string text = "signal";
      text += '\0';
      text += std::to_string(info.ssi_signo);
      text += '\0';
      ::send(connection, text.data(), text.size(), MSG_NOSIGNAL);
    }
    if (polled[0].revents == 0) { continue; }
    char message[512] = {};
    const auto n = ::recv(connection, message, sizeof message - 1, 0);
    if (n < 0 && errno == EINTR) { continue; }
    if (n <= 0) {
      complain("rank " + std::to_string(place.rank) + ": its pod " + place.pod + " was lost");
      note_end(gang, place, 137, SIGKILL);
      end_as(started ? 137 : 127, 0);
    }
    const char* end = message + n;
    const auto next = [end](const char* at) {
      at += std::strlen(at) + 1;
      return at < end ? at : end;
    };
    const char* first = next(message);
    const char* second = next(first);
    const char* text = next(second);
    if (std::strcmp(message, "started") == 0) {
      started = true;
    } else if (std::strcmp(message, "refused") == 0) {
      note_end(gang, place, 127, 0);
      end_as(complain("rank " + std::to_string(place.rank) + " could not be started in pod " +
                      place.pod + ": " + text),
             0);
    } else if (std::strcmp(message, "ended") == 0) {
      const int code = std::atoi(first);
      const int signal = std::atoi(second);
      note_end(gang, place, code, signal);
      end_as(code, signal);
    }
  }
}

}  // namespace

int connect_pod(const std::string& gang, const std::string& pod) {
  const int folder = ::open(gang.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (folder < 0) { return -1; }
  const int fd = ::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d/%s.sock", folder,
                pod.c_str());
  const bool done =
      fd >= 0 && ::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
  const int error = errno;
  ::close(folder);
  if (done) { return fd; }
  if (fd >= 0) { ::close(fd); }
  errno = error;
  return -1;
}

int rank_main(const std::vector<std::string>& words) {
  std::size_t at = 0;
  while (at < words.size() && words[at] != "--") { ++at; }
  if (at != 1 || at + 1 >= words.size()) {
    return complain("usage: metier rank POD -- COMMAND, inside a pod of an MPI job");
  }
  const auto gang = variable("METIER_GANG");
  if (gang.empty()) {
    return complain("rank: METIER_GANG is not set: this is not a pod of an MPI job");
  }
  Place place;
  place.rank = std::atoi(first_variable({"OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK"}).c_str());
  place.size = std::max(1, std::atoi(first_variable({"OMPI_COMM_WORLD_SIZE", "PMI_SIZE"}).c_str()));
  place.slots = std::max(1, std::atoi(variable("METIER_MPI_SLOTS").c_str()));
  const auto hosts = split_commas(variable("METIER_MPI_HOSTS"));
  place.slot = place.rank % place.slots;
  place.node = place.rank / place.slots;
  place.pod = words[0];
  if (place.pod == "--spread") {
    if (static_cast<std::size_t>(place.node) >= hosts.size()) {
      return complain("rank " + std::to_string(place.rank) + " has no place: the job has " +
                      std::to_string(hosts.size()) + " pods of " + std::to_string(place.slots) +
                      " slots");
    }
    place.pod = hosts[static_cast<std::size_t>(place.node)];
  }
  sigset_t passed;
  sigemptyset(&passed);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGCONT, SIGTSTP}) {
    sigaddset(&passed, signal);
  }
  ::sigprocmask(SIG_BLOCK, &passed, nullptr);
  const int signals = ::signalfd(-1, &passed, SFD_CLOEXEC | SFD_NONBLOCK);
  const int connection = connect_pod(gang, place.pod);
  if (connection < 0) {
    note_end(gang, place, 137, SIGKILL);
    return complain("rank " + std::to_string(place.rank) + ": pod " + place.pod +
                    " does not answer: " + std::strerror(errno));
  }
  const auto command = guarded({words.begin() + static_cast<std::ptrdiff_t>(at) + 1, words.end()},
                               variable("METIER_PYTHON"));
  if (send_request(connection, place.rank, command.size(), payload_of(command, gang, place)) != 0) {
    return complain("rank " + std::to_string(place.rank) + ": pod " + place.pod + ": " +
                    std::strerror(errno));
  }
  follow(connection, signals, gang, place);
}

}  // namespace metier::mpi
