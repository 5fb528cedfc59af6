#include "gate/gate.h"

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <thread>

namespace metier {
namespace {

// A gate in a child process; the test's own program cannot be started as `metier gate`.
class GateTest : public testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/metier-gate-XXXXXX";
    folder_ = ::mkdtemp(name);
    start();
  }
  void TearDown() override {
    stop(SIGKILL);
    std::filesystem::remove_all(folder_);
  }
  void start() {
    child_ = ::fork();
    if (child_ == 0) { ::_exit(gate_main(folder_, std::chrono::seconds(20))); }
    while (!std::filesystem::exists(folder_ + "/gate.sock")) { ::usleep(1000); }
  }
  void stop(int signal) {
    if (child_ > 0) {
      ::kill(child_, signal);
      ::waitpid(child_, nullptr, 0);
      child_ = 0;
    }
  }
  std::unique_ptr<Gate> server() {
    return std::make_unique<Gate>(io_.get_executor(), folder_, "/bin/false", Logger());
  }

  Result<Gate::Sockets> open(Gate& gate) {
    Result<Gate::Sockets> out;
    asio::co_spawn(
        io_,
        [](Gate& one, Result<Gate::Sockets>& result) -> Async<void> {
          result = co_await one.open();
        }(gate, out),
        [](std::exception_ptr e) {
          if (e) { std::rethrow_exception(e); }
        });
    io_.restart();
    io_.run();
    return out;
  }

  asio::io_context io_;
  std::string folder_;
  pid_t child_ = 0;
};

int listening_socket(std::uint16_t& port) {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  ::bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address);
  ::listen(fd, 8);
  socklen_t size = sizeof address;
  ::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size);
  port = ntohs(address.sin_port);
  return fd;
}

TEST_F(GateTest, ANewServerGetsTheSocketsOfADeadOne) {
  std::uint16_t port = 0;
  {
    auto first = server();
    ASSERT_TRUE(open(*first));
    const Fd socket(listening_socket(port));
    ASSERT_TRUE(first->hold("runs", socket.get()));
  }
  auto second = server();
  auto sockets = open(*second);
  ASSERT_TRUE(sockets) << sockets.error().text();
  ASSERT_EQ(sockets->size(), 1U);
  EXPECT_EQ(sockets->front().first, "runs");
  sockaddr_in address{};
  socklen_t size = sizeof address;
  ::getsockname(sockets->front().second.get(), reinterpret_cast<sockaddr*>(&address), &size);
  EXPECT_EQ(ntohs(address.sin_port), port);
}

TEST_F(GateTest, ASecondGateOfOneFolderEndsWithTwo) {
  const pid_t other = ::fork();
  if (other == 0) { ::_exit(gate_main(folder_)); }
  int status = 0;
  ::waitpid(other, &status, 0);
  EXPECT_EQ(WEXITSTATUS(status), 2);
}

TEST_F(GateTest, QuitEndsIt) {
  auto one = server();
  ASSERT_TRUE(open(*one));
  one->quit();
  int status = 0;
  ::waitpid(child_, &status, 0);
  EXPECT_TRUE(WIFEXITED(status));
  child_ = 0;
}

TEST_F(GateTest, ADyingGateIsWaitedFor) {
  // A program that serves the second time it is started: the first time the old gate still has the lock.
  const auto script = folder_ + "/program";
  std::ofstream(script) << "#!/bin/sh\n[ -e " << folder_ << "/once ] || { : > " << folder_
                        << "/once; exit 2; }\n: > " << folder_ << "/twice\nexit 2\n";
  std::filesystem::permissions(script, std::filesystem::perms::owner_all);
  stop(SIGKILL);
  std::filesystem::remove(folder_ + "/gate.sock");
  Gate gate(io_.get_executor(), folder_, script, Logger());
  // The one that serves in the end is this thread's child.
  std::thread late([this] {
    while (!std::filesystem::exists(folder_ + "/twice")) { ::usleep(1000); }
    start();
  });
  const auto sockets = open(gate);
  late.join();
  ASSERT_TRUE(sockets) << sockets.error().text();
  EXPECT_TRUE(sockets->empty());
}

TEST_F(GateTest, AProgramThatCannotServeIsSaid) {
  stop(SIGKILL);
  std::filesystem::remove(folder_ + "/gate.sock");
  auto one = server();  // /bin/false
  const auto sockets = open(*one);
  ASSERT_FALSE(sockets);
  EXPECT_EQ(sockets.error().kind, ErrorKind::unavailable);
}

TEST_F(GateTest, WhoKnowsTheNameTakesTheSocket) {
  auto one = server();
  ASSERT_TRUE(open(*one));
  std::uint16_t port = 0;
  const Fd socket(listening_socket(port));
  ASSERT_TRUE(one->hold("f/p/hello#secret", socket.get()));
  auto taken = take_socket(folder_, "f/p/hello#secret");
  ASSERT_TRUE(taken) << taken.error().text();
  sockaddr_in address{};
  socklen_t size = sizeof address;
  ::getsockname(taken->get(), reinterpret_cast<sockaddr*>(&address), &size);
  EXPECT_EQ(ntohs(address.sin_port), port);
  EXPECT_EQ(take_socket(folder_, "f/p/hello").error().kind, ErrorKind::not_found);
  one->drop("f/p/hello#secret");
  // The server's messages and a processor's come by two connections: their order is not known.
  bool gone = false;
  for (int i = 0; i < 1000 && !gone; ++i) { gone = !take_socket(folder_, "f/p/hello#secret"); }
  EXPECT_TRUE(gone);
}

TEST_F(GateTest, GuestsMakeRoomForEachOther) {
  auto one = server();
  ASSERT_TRUE(open(*one));
  ASSERT_TRUE(one->hold("x", 0));
  for (int i = 0; i < 100; ++i) { ASSERT_TRUE(take_socket(folder_, "x")); }
}

TEST_F(GateTest, RubbishIsIgnored) {
  auto one = server();
  ASSERT_TRUE(open(*one));
  ASSERT_TRUE(one->hold("x", 0));
  auto again = server();
  auto sockets = open(*again);
  ASSERT_TRUE(sockets);
  EXPECT_EQ(sockets->size(), 1U);
}

}  // namespace
}  // namespace metier
