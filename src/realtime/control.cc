#include "realtime/control.h"

#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <vector>

#include "base/files.h"

namespace metier::realtime {
namespace {

void send_packet(int socket, const std::string& text, int fd = -1) {
  iovec part{const_cast<char*>(text.data()), text.size()};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> room{};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  if (fd >= 0) {
    message.msg_control = room.data();
    message.msg_controllen = room.size();
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(header), &fd, sizeof fd);
  }
  [[maybe_unused]] const auto sent = ::sendmsg(socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
}

class ControlSocket final : public Control, public Watched {
 public:
  ControlSocket(Loop& loop, std::string path, ControlCalls calls)
      : loop_(loop), path_(std::move(path)), calls_(std::move(calls)), timer_(loop, [this] {
          changed();
          timer_.after(std::chrono::seconds(1));
        }) {}
  ~ControlSocket() override {
    for (auto& peer : peers_) { loop_.forget(peer->fd.get(), *peer); }
    if (listener_) {
      loop_.forget(listener_.get(), *this);
      ::unlink(path_.c_str());
    }
  }

  Result<void> open() {
    listener_.reset(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path_.size() >= sizeof address.sun_path) {
      return fail(
          invalid("control", quote(path_) + " is too long for a socket", "at most 107 bytes"));
    }
    std::memcpy(address.sun_path, path_.data(), path_.size());
    struct stat status{};
    if (::lstat(path_.c_str(), &status) == 0 && S_ISSOCK(status.st_mode)) {
      ::unlink(path_.c_str());
    }
    const mode_t before = ::umask(0077);
    const int bound =
        ::bind(listener_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address);
    ::umask(before);
    if (bound != 0 || ::listen(listener_.get(), 16) != 0) {
      return fail(errno_error(path_, errno));
    }
    METIER_CHECK(loop_.watch(listener_.get(), EPOLLIN, *this));
    timer_.after(std::chrono::seconds(1));
    return {};
  }

  void changed() override {
    if (peers_.empty()) { return; }
    const std::string text = dump_json(calls_.state());
    for (auto& peer : peers_) { send_packet(peer->fd.get(), text); }
  }

  void on_ready(std::uint32_t) noexcept override {
    Fd fd(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!fd || peers_.size() >= 16) { return; }
    auto peer = std::make_unique<Peer>();
    peer->owner = this;
    peer->fd = std::move(fd);
    if (loop_.watch(peer->fd.get(), EPOLLIN | EPOLLRDHUP, *peer)) {
      peers_.push_back(std::move(peer));
    }
  }

 private:
  struct Peer final : Watched {
    ControlSocket* owner = nullptr;
    Fd fd;
    void on_ready(std::uint32_t) noexcept override { owner->read(*this); }
  };

  void read(Peer& peer) {
    std::array<char, 4096> buffer{};
    const ssize_t size = ::recv(peer.fd.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
    if (size < 0 && (errno == EAGAIN || errno == EINTR)) { return; }
    if (size <= 0) {
      loop_.forget(peer.fd.get(), peer);
      std::erase_if(peers_, [&](const auto& entry) { return entry.get() == &peer; });
      return;
    }
    const auto parsed = parse_json({buffer.data(), static_cast<std::size_t>(size)});
    if (!parsed || !parsed->is_object()) {
      return send_packet(peer.fd.get(), R"({"op":"error","message":"that is no JSON object"})");
    }
    const JsonObject& message = parsed->get_object();
    const std::string_view op = string_in(message, "op");
    if (op == "state") {
      send_packet(peer.fd.get(), dump_json(calls_.state()));
    } else if (op == "drain") {
      calls_.drain();
    } else if (op == "socket") {
      const std::string name(string_in(message, "name"));
      const int fd = calls_.socket(name);
      send_packet(peer.fd.get(),
                  dump_json(JsonObject{{"op", fd >= 0 ? "socket" : "none"}, {"name", name}}), fd);
    } else {
      send_packet(peer.fd.get(), R"({"op":"error","message":"there are state, drain and socket"})");
    }
  }

  Loop& loop_;
  std::string path_;
  ControlCalls calls_;
  LoopTimer timer_;
  Fd listener_;
  std::vector<std::unique_ptr<Peer>> peers_;
};

}  // namespace

Result<std::unique_ptr<Control>> open_control(Loop& loop, const std::string& path,
                                              ControlCalls calls) {
  auto control = std::make_unique<ControlSocket>(loop, path, std::move(calls));
  METIER_CHECK(control->open());
  return control;
}

}  // namespace metier::realtime
