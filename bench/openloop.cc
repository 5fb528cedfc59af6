// An open-loop load generator: requests leave at times drawn beforehand (Poisson, fixed seed) whatever the server does, and a
// request's latency counts from the time it was due, so that a server that stalls cannot hide the requests it kept waiting.
//
//   openloop PORT CONNECTIONS RATE SECONDS [BODY_BYTES]
//
// One thread, HTTP/1.1 with keep-alive. Prints one JSON line: due, answered, failed, and latencies in microseconds.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <random>
#include <string>
#include <string_view>
#include <vector>

namespace {

std::int64_t now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

struct Connection {
  int fd = -1;
  std::int64_t due = 0;  // of the request under way; 0: free
  std::string got;
  std::size_t sent = 0;
};

class Generator {
 public:
  Generator(int port, int connections, double rate, double seconds, std::size_t body)
      : port_(port), rate_(rate), seconds_(seconds), all_(static_cast<std::size_t>(connections)) {
    request_ = body == 0
                   ? "GET / HTTP/1.1\r\nHost: bench\r\n\r\n"
                   : "POST / HTTP/1.1\r\nHost: bench\r\nContent-Length: " + std::to_string(body) +
                         "\r\n\r\n" + std::string(body, 'x');
  }

  int run() {
    ::prctl(PR_SET_TIMERSLACK, 1UL);
    poll_ = ::epoll_create1(EPOLL_CLOEXEC);
    for (Connection& connection : all_) {
      if (!open(connection)) {
        std::perror("openloop: connect");
        return 1;
      }
      free_.push_back(&connection);
    }
    std::mt19937_64 random(1);
    std::exponential_distribution<double> gap(rate_ / 1e9);
    const std::int64_t begin = now_ns();
    const std::int64_t end = begin + static_cast<std::int64_t>(seconds_ * 1e9);
    // What is due within a second after the end is waited for; the rest has failed.
    const std::int64_t last = end + 1'000'000'000;
    double next = static_cast<double>(begin) + gap(random);
    while (true) {
      const std::int64_t now = now_ns();
      while (next <= static_cast<double>(now) && next < static_cast<double>(end)) {
        due_.push_back(static_cast<std::int64_t>(next));
        ++total_;
        next += gap(random);
      }
      while (!due_.empty() && !free_.empty()) {
        // The connection freed last: as few as the load needs are in use.
        Connection* connection = free_.back();
        free_.pop_back();
        connection->due = due_.front();
        due_.pop_front();
        connection->sent = 0;
        write(*connection);
      }
      const bool over = next >= static_cast<double>(end);
      if (over && due_.empty() && free_.size() == all_.size()) { break; }
      if (now > last) { break; }
      wait(over ? last - now : static_cast<std::int64_t>(next) - now);
    }
    report();
    return 0;
  }

 private:
  bool open(Connection& connection) {
    connection.fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<std::uint16_t>(port_));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (::connect(connection.fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
      return false;
    }
    const int on = 1;
    ::setsockopt(connection.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    epoll_event event{};
    event.events = EPOLLIN | EPOLLOUT | EPOLLET;
    event.data.ptr = &connection;
    return ::epoll_ctl(poll_, EPOLL_CTL_ADD, connection.fd, &event) == 0;
  }

  void write(Connection& connection) {
    while (connection.sent < request_.size()) {
      const ssize_t n = ::send(connection.fd, request_.data() + connection.sent,
                               request_.size() - connection.sent, MSG_DONTWAIT | MSG_NOSIGNAL);
      if (n > 0) {
        connection.sent += static_cast<std::size_t>(n);
      } else if (errno == EAGAIN) {
        return;
      } else {
        return failed(connection);
      }
    }
  }

  void failed(Connection& connection) {
    if (connection.due != 0) { ++failed_; }
    connection.due = 0;
    connection.got.clear();
    ::close(connection.fd);
    if (open(connection)) { free_.push_back(&connection); }
  }

  void read(Connection& connection) {
    char bytes[65536];
    while (true) {
      const ssize_t n = ::recv(connection.fd, bytes, sizeof bytes, MSG_DONTWAIT);
      if (n < 0) {
        if (errno == EAGAIN) { break; }
        return failed(connection);
      }
      if (n == 0) { return failed(connection); }
      connection.got.append(bytes, static_cast<std::size_t>(n));
    }
    const std::string_view got = connection.got;
    const std::size_t head = got.find("\r\n\r\n");
    if (head == std::string_view::npos || connection.due == 0) { return; }
    std::size_t length = 0;
    for (const char* name : {"\r\nContent-Length: ", "\r\ncontent-length: "}) {
      if (const auto at = got.find(name); at < head) {
        length = std::strtoull(got.data() + at + 18, nullptr, 10);
      }
    }
    if (got.size() < head + 4 + length) { return; }
    if (got.substr(9, 3) == "200") {
      latencies_.push_back(now_ns() - connection.due);
    } else {
      ++failed_;
    }
    connection.due = 0;
    connection.got.clear();
    free_.push_back(&connection);
  }

  void wait(std::int64_t ns) {
    epoll_event ready[128];
    timespec limit{};
    limit.tv_sec = std::max<std::int64_t>(0, ns) / 1'000'000'000;
    limit.tv_nsec = std::max<std::int64_t>(0, ns) % 1'000'000'000;
    const int count = ::epoll_pwait2(poll_, ready, 128, &limit, nullptr);
    for (int i = 0; i < count; ++i) {
      auto& connection = *static_cast<Connection*>(ready[i].data.ptr);
      if ((ready[i].events & EPOLLOUT) != 0 && connection.due != 0) { write(connection); }
      if ((ready[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) { read(connection); }
    }
  }

  void report() {
    std::ranges::sort(latencies_);
    const auto at = [&](double share) {
      if (latencies_.empty()) { return 0.0; }
      const auto index = static_cast<std::size_t>(share * static_cast<double>(latencies_.size()));
      return static_cast<double>(latencies_[std::min(index, latencies_.size() - 1)]) / 1000;
    };
    const auto lost = total_ - failed_ - latencies_.size();
    std::printf(
        "{\"due\": %zu, \"answered\": %zu, \"failed\": %zu, \"p50\": %.1f, \"p90\": %.1f, "
        "\"p99\": %.1f, \"p999\": %.1f, \"max\": %.1f}\n",
        total_, latencies_.size(), failed_ + lost, at(0.5), at(0.9), at(0.99), at(0.999), at(1));
  }

  int port_;
  double rate_, seconds_;
  int poll_ = -1;
  std::string request_;
  std::vector<Connection> all_;
  std::vector<Connection*> free_;
  std::deque<std::int64_t> due_;
  std::vector<std::int64_t> latencies_;
  std::size_t total_ = 0, failed_ = 0;
};

}  // namespace

int main(int count, char** words) {
  if (count < 5) {
    std::fprintf(stderr, "usage: openloop PORT CONNECTIONS RATE SECONDS [BODY_BYTES]\n");
    return 2;
  }
  Generator generator(std::atoi(words[1]), std::atoi(words[2]), std::atof(words[3]),
                      std::atof(words[4]), count > 5 ? std::strtoull(words[5], nullptr, 10) : 0);
  return generator.run();
}
