#include "realtime/health.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/asio.hpp>

namespace metier::realtime {
namespace {

namespace asio = boost::asio;
using testing::HasSubstr;
using testing::StartsWith;

// One request on a connection of its own, which stays open.
class Caller {
 public:
  explicit Caller(std::uint16_t port) {
    socket_.connect({asio::ip::make_address("127.0.0.1"), port});
  }
  std::string ask(const std::string& line) {
    asio::write(socket_, asio::buffer(line + " HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"));
    std::string head;
    asio::read_until(socket_, asio::dynamic_buffer(head), "\r\n\r\n");
    return head;
  }

 private:
  asio::io_context loop_;
  asio::ip::tcp::socket socket_{loop_};
};

TEST(Health, AnswersWhileManyTicksRun) {
  ProcessorConfig config;
  config.health.address = "127.0.0.1:0";
  config.metrics.address = "127.0.0.1:0";
  auto health = start_health(
      config,
      {.ready = [] { return true; },
       .fire = [](const std::string&, const std::string&, bool,
                  const std::function<void(int)>&) {},  // a handler that takes its time
       .tick_wait = std::chrono::milliseconds(20)},
      Logger{});
  ASSERT_TRUE(health) << health.error().text();
  for (int i = 0; i < 100; ++i) {
    const std::string told = Caller((*health)->metrics_port()).ask("POST /triggers/tick?id=1");
    ASSERT_THAT(told, StartsWith("HTTP/1.1 202"));
    ASSERT_THAT(told, HasSubstr(std::string(kTickRuns)));
  }
  EXPECT_THAT(Caller((*health)->health_port()).ask("GET /ready"), StartsWith("HTTP/1.1 200"));
}

TEST(Health, ATickIsAnsweredWithItsHandlersStatus) {
  ProcessorConfig config;
  config.metrics.address = "127.0.0.1:0";
  auto health = start_health(config,
                             {.fire = [](const std::string&, const std::string&, bool,
                                         const std::function<void(int)>& done) { done(202); }},
                             Logger{});
  ASSERT_TRUE(health) << health.error().text();
  const std::string told = Caller((*health)->metrics_port()).ask("POST /triggers/tick?id=1");
  EXPECT_THAT(told, StartsWith("HTTP/1.1 202"));
  EXPECT_THAT(told, testing::Not(HasSubstr(std::string(kTickRuns))));
}

}  // namespace
}  // namespace metier::realtime
