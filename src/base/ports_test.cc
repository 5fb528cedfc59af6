#include "base/ports.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/files.h"

namespace metier {
namespace {

// A socket that listens on an address, at a port of the kernel's choice when `port` is 0.
Fd listening(const char* address, std::uint16_t& port) {
  Fd out(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in at{};
  at.sin_family = AF_INET;
  at.sin_port = htons(port);
  ::inet_pton(AF_INET, address, &at.sin_addr);
  const int on = 1;
  ::setsockopt(out.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  EXPECT_EQ(::bind(out.get(), reinterpret_cast<const sockaddr*>(&at), sizeof at), 0);
  EXPECT_EQ(::listen(out.get(), 1), 0);
  socklen_t size = sizeof at;
  ::getsockname(out.get(), reinterpret_cast<sockaddr*>(&at), &size);
  port = ntohs(at.sin_port);
  return out;
}

TEST(Ports, APortThatSomebodyHasNamesTheProcess) {
  std::uint16_t port = 0;
  const Fd held = listening("127.3.4.5", port);
  const auto self = process_text(::getpid());
  EXPECT_TRUE(self.starts_with(fmt::format("process {} (", ::getpid()))) << self;
  EXPECT_EQ(port_holder("127.3.4.5", port), self);
  EXPECT_EQ(port_holder("127.3.4.6", port), "");  // its neighbour is free
  EXPECT_EQ(any_port_holder(port), self);
}

TEST(Ports, WhoListensOnAllAddressesHoldsEach) {
  std::uint16_t port = 0;
  const Fd held = listening("0.0.0.0", port);
  EXPECT_EQ(port_holder("127.3.4.6", port), process_text(::getpid()));
}

TEST(Ports, WhatIsNoAddressIsNotHeld) { EXPECT_EQ(port_holder("", 8786), ""); }

}  // namespace
}  // namespace metier
