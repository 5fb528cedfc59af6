#include "gate/gate.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <boost/asio/posix/stream_descriptor.hpp>

#include <algorithm>
#include <array>
#include <cstring>

#include "base/failpoint.h"
#include "base/json.h"

extern char** environ;

namespace metier {
namespace {

constexpr std::size_t kMessage = 4096;
constexpr std::chrono::seconds kPatience{
    10};                          // a busy machine, or a gate that takes its time to die
constexpr int kMostFailures = 3;  // of the program itself

struct Message {
  std::string text;
  Fd fd;
};

// Sends one packet, with a descriptor when `fd` is not -1.
bool send_message(int socket, std::string_view text, int fd = -1) {
  iovec part{const_cast<char*>(text.data()), text.size()};
  std::array<char, CMSG_SPACE(sizeof(int))> control{};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  if (fd >= 0) {
    header.msg_control = control.data();
    header.msg_controllen = control.size();
    cmsghdr* item = CMSG_FIRSTHDR(&header);
    item->cmsg_level = SOL_SOCKET;
    item->cmsg_type = SCM_RIGHTS;
    item->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(item), &fd, sizeof(int));
  }
  ssize_t sent = 0;
  do { sent = ::sendmsg(socket, &header, MSG_NOSIGNAL); } while (sent < 0 && errno == EINTR);
  return sent == static_cast<ssize_t>(text.size());
}

// Receives one packet; an empty text means that the peer has gone.
Message receive_message(int socket) {
  std::array<char, kMessage> buffer{};
  iovec part{buffer.data(), buffer.size()};
  std::array<char, CMSG_SPACE(sizeof(int))> control{};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  header.msg_control = control.data();
  header.msg_controllen = control.size();
  ssize_t got = 0;
  do { got = ::recvmsg(socket, &header, MSG_CMSG_CLOEXEC); } while (got < 0 && errno == EINTR);
  Message message;
  if (got <= 0) { return message; }
  message.text.assign(buffer.data(), static_cast<std::size_t>(got));
  for (cmsghdr* item = CMSG_FIRSTHDR(&header); item != nullptr; item = CMSG_NXTHDR(&header, item)) {
    if (item->cmsg_level == SOL_SOCKET && item->cmsg_type == SCM_RIGHTS) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(item), sizeof(int));
      message.fd.reset(fd);
    }
  }
  return message;
}

JsonObject parsed(const std::string& text) {
  auto value = parse_json(text, {.bytes = kMessage, .depth = 4, .nodes = 64});
  return value && value->is_object() ? value->get_object() : JsonObject{};
}

// The address `gate.sock` inside `folder`, by way of /proc/self/fd so that its length has no limit.
struct Address {
  explicit Address(const std::string& folder)
      : directory(::open(folder.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC)) {
    name.sun_family = AF_UNIX;
    std::snprintf(name.sun_path, sizeof name.sun_path, "/proc/self/fd/%d/gate.sock",
                  directory.get());
  }
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&name); }
  Fd directory;
  sockaddr_un name{};
};

Fd connect_to(const std::string& folder) {
  const Address address(folder);
  Fd fd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  if (fd && ::connect(fd.get(), address.get(), sizeof address.name) != 0) { fd.reset(); }
  return fd;
}

// Processors of other users come too, for the sockets whose names they know.
constexpr std::size_t kMostPeers = 64;

bool same_user(int socket) {
  ucred who{};
  socklen_t size = sizeof who;
  return ::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &who, &size) == 0 && who.uid == ::geteuid();
}

std::string op(std::string_view what, std::string_view name = {}) {
  JsonObject message{{"op", what}};
  if (!name.empty()) { message["name"] = name; }
  return dump_json(Json(std::move(message)));
}

// The gate's own loop: a listener, at most a few connections, the sockets it holds.
class Keeper final {
 public:
  Keeper(Fd listener, std::chrono::seconds lonely)
      : listener_(std::move(listener)), lonely_(lonely) {}

  int serve() {
    while (true) {
      std::vector<pollfd> waits{{listener_.get(), POLLIN, 0}};
      for (const auto& peer : peers_) { waits.push_back({peer.fd.get(), POLLIN, 0}); }
      const bool alone =
          std::ranges::none_of(peers_, [](const Peer& peer) { return peer.trusted; });
      const int limit = alone ? static_cast<int>(lonely_.count() * 1000) : -1;
      const int ready = ::poll(waits.data(), waits.size(), limit);
      if (ready < 0 && errno == EINTR) { continue; }
      if (ready == 0) { return 0; }  // no server came back
      for (std::size_t i = waits.size(); i-- > 1;) {
        if (waits[i].revents != 0 && !hear(i - 1)) { return 0; }
      }
      if ((waits[0].revents & POLLIN) != 0) {
        Fd peer(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
        if (!peer) { continue; }
        if (peers_.size() >= kMostPeers) { drop_a_guest(); }
        const bool trusted = same_user(peer.get());
        if (peers_.size() < kMostPeers) { peers_.push_back({std::move(peer), trusted}); }
      }
    }
  }

 private:
  struct Peer {
    Fd fd;
    bool trusted = false;  // of our own user: a server; else a processor of another one
  };

  // Who only takes a socket has no reason to stay: the oldest of them makes room.
  void drop_a_guest() {
    const auto guest = std::ranges::find_if(peers_, [](const Peer& peer) { return !peer.trusted; });
    if (guest != peers_.end()) { peers_.erase(guest); }
  }

  // False when the gate is told to end.
  bool hear(std::size_t index) {
    const int peer = peers_[index].fd.get();
    auto message = receive_message(peer);
    if (message.text.empty()) {
      peers_.erase(peers_.begin() + static_cast<std::ptrdiff_t>(index));
      return true;
    }
    const auto object = parsed(message.text);
    const auto what = string_in(object, "op");
    if (what == "take") {
      const auto name = string_in(object, "name");
      for (const auto& [known, fd] : held_) {
        if (known == name) {
          send_message(peer, op("socket", name), fd.get());
          return true;
        }
      }
      send_message(peer, op("unknown", name));
      return true;
    }
    if (!peers_[index].trusted) { return true; }
    if (what == "quit") {
      METIER_FAILPOINT("gate/quit");
      return false;
    }
    if (what == "drop") {
      const auto name = string_in(object, "name");
      std::erase_if(held_, [&](const auto& held) { return held.first == name; });
      return true;
    }
    if (what == "hold" && message.fd) {
      METIER_FAILPOINT("gate/hold");
      const std::string name(string_in(object, "name"));
      for (auto& [known, fd] : held_) {
        if (known == name) {
          fd = std::move(message.fd);
          return true;
        }
      }
      held_.emplace_back(name, std::move(message.fd));
    } else if (what == "list") {
      METIER_FAILPOINT("gate/list");
      for (const auto& [name, fd] : held_) { send_message(peer, op("socket", name), fd.get()); }
      send_message(peer, op("end"));
    }
    return true;
  }

  Fd listener_;
  std::chrono::seconds lonely_;
  std::vector<Peer> peers_;
  std::vector<std::pair<std::string, Fd>> held_;
};

}  // namespace

int gate_main(const std::string& folder, std::chrono::seconds lonely) {
  ::signal(SIGPIPE, SIG_IGN);
  // The lock decides which gate serves the folder; the socket's file alone may be a dead gate's.
  const Fd lock(::open((folder + "/gate.lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  struct flock whole{};
  whole.l_type = F_WRLCK;
  if (!lock || ::fcntl(lock.get(), F_OFD_SETLK, &whole) != 0) { return 2; }
  METIER_FAILPOINT("gate/locked");
  ::unlink((folder + "/gate.sock").c_str());
  const Address address(folder);
  Fd listener(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  const auto mask = ::umask(0111);  // names of sockets are secrets; everything else asks who it is
  const bool bound = ::bind(listener.get(), address.get(), sizeof address.name) == 0 &&
                     ::listen(listener.get(), 64) == 0;
  ::umask(mask);
  if (!bound) { return 2; }
  METIER_FAILPOINT("gate/bound");
  const int code = Keeper(std::move(listener), lonely).serve();
  ::unlink((folder + "/gate.sock").c_str());
  return code;
}

Gate::Gate(Executor loop, std::string folder, std::string program, Logger log)
    : loop_(loop), folder_(std::move(folder)), program_(std::move(program)), log_(std::move(log)) {}
Gate::~Gate() = default;

Result<void> Gate::start() {
  // In a session of its own, so that a signal to the server's terminal does not reach it.
  const std::array<const char*, 5> arguments{program_.c_str(), "gate", "--data", folder_.c_str(),
                                             nullptr};
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSID);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
  posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
  const int error = ::posix_spawn(&child_, program_.c_str(), &actions, &attributes,
                                  const_cast<char**>(arguments.data()), environ);
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attributes);
  if (error == 0) { return {}; }
  child_ = 0;
  return fail(errno_error(program_ + " gate", error));
}

Async<Result<Fd>> Gate::connect_or_start() {
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  int failures = 0;
  auto pause = std::chrono::milliseconds(2);
  while (true) {
    if (auto fd = connect_to(folder_)) { co_return fd; }
    int status = 0;
    if (child_ > 0 && ::waitpid(child_, &status, WNOHANG) == child_) {
      child_ = 0;
      // 2: another gate has the lock. It serves in a moment, or it is dying and leaves the lock to the next.
      const bool taken = WIFEXITED(status) && WEXITSTATUS(status) == 2;
      if (!taken && ++failures == kMostFailures) {
        co_return fail(ErrorKind::unavailable, "the gate ended as soon as it was started");
      }
    }
    if (child_ == 0) {
      auto started = start();
      if (!started) { co_return fail(std::move(started.error())); }
    }
    if (std::chrono::steady_clock::now() > deadline) {
      co_return fail(ErrorKind::unavailable, "the gate did not start");
    }
    co_await sleep_for(loop_, pause);
    pause = std::min(pause + pause / 2, std::chrono::milliseconds(100));
  }
}

Result<Gate::Sockets> Gate::list() {
  const timeval patience{.tv_sec = kPatience.count(), .tv_usec = 0};
  ::setsockopt(connection_.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  if (!send_message(connection_.get(), op("list"))) {
    return fail(ErrorKind::unavailable, "the gate has gone");
  }
  Sockets sockets;
  while (true) {
    auto message = receive_message(connection_.get());
    if (message.text.empty()) { return fail(ErrorKind::unavailable, "the gate has gone"); }
    const auto object = parsed(message.text);
    if (string_in(object, "op") == "end") { return sockets; }
    if (message.fd) {
      sockets.emplace_back(std::string(string_in(object, "name")), std::move(message.fd));
    }
  }
}

Async<Result<Gate::Sockets>> Gate::open() {
  Result<Sockets> sockets;
  // A gate that was killed takes connections until the kernel has taken it apart.
  for (int i = 0; i < 5; ++i) {
    auto connection = co_await connect_or_start();
    if (!connection) { co_return fail(std::move(connection.error())); }
    connection_ = std::move(*connection);
    sockets = list();
    if (sockets) { break; }
    co_await sleep_for(loop_, std::chrono::milliseconds(20));
  }
  co_return sockets;
}

Result<void> Gate::hold(const std::string& name, int fd) {
  Fd copy(::fcntl(fd, F_DUPFD_CLOEXEC, 3));
  if (!copy) { return fail(errno_error("duplicate of a socket", errno)); }
  const bool sent = send_message(connection_.get(), op("hold", name), copy.get());
  std::erase_if(held_, [&](const auto& held) { return held.first == name; });
  held_.emplace_back(name, std::move(copy));
  if (!sent) { return fail(ErrorKind::unavailable, "the gate has gone"); }
  return {};
}

void Gate::drop(const std::string& name) {
  std::erase_if(held_, [&](const auto& held) { return held.first == name; });
  if (connection_) { send_message(connection_.get(), op("drop", name)); }
}

Result<Fd> take_socket(const std::string& folder, const std::string& name) {
  const Fd connection = connect_to(folder);
  if (!connection) { return fail(ErrorKind::unavailable, "no gate answers in " + folder); }
  if (!send_message(connection.get(), op("take", name))) {
    return fail(ErrorKind::unavailable, "the gate has gone");
  }
  auto message = receive_message(connection.get());
  if (message.text.empty()) { return fail(ErrorKind::unavailable, "the gate has gone"); }
  if (!message.fd) { return fail(ErrorKind::not_found, "the gate holds no socket of that name"); }
  return std::move(message.fd);
}

Async<void> Gate::watch() {
  while (true) {
    const int copy = ::fcntl(connection_.get(), F_DUPFD_CLOEXEC, 3);
    if (copy < 0) { co_return; }
    asio::posix::basic_stream_descriptor<Executor> watched(loop_, copy);
    boost::system::error_code ec;
    co_await watched.async_wait(asio::posix::descriptor_base::wait_read,
                                asio::redirect_error(use_async, ec));
    if (ec) { co_return; }
    // A gate says nothing unasked: readable means that it has died.
    log_.warn("the gate has died, starting another");
    auto connection = co_await connect_or_start();
    if (!connection) {
      log_.error("no gate", {{"error", Json(connection.error().text())}});
      co_await sleep_for(loop_, std::chrono::seconds(5));
      continue;
    }
    connection_ = std::move(*connection);
    for (const auto& [name, fd] : held_) {
      send_message(connection_.get(), op("hold", name), fd.get());
    }
  }
}

void Gate::quit() {
  if (connection_) { send_message(connection_.get(), op("quit")); }
}

}  // namespace metier
