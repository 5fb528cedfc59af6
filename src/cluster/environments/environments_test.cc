#include "cluster/environments/environments.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>

#include "base/files.h"
#include "cluster/environments/program.h"

namespace metier {
namespace {

namespace fs = std::filesystem;

// A stand-in for uv that makes the folders and writes down what it was asked; the real one is used by the
// end-to-end tests.
constexpr std::string_view kFakeUv = R"(#!/bin/sh
echo "uv $*"
case "$1" in
  venv) mkdir -p "$4/bin" "$4/lib/python3/site-packages"; ln -s "$3" "$4/bin/python" ;;
  pip) case "$*" in *broken*) echo "Using Python 3"; echo "error: no such package: broken"; exit 1 ;; esac ;;
esac
)";

class EnvironmentsTest : public testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/metier-environments-XXXXXX";
    folder_ = ::mkdtemp(name);
    ASSERT_TRUE(write_file(folder_ + "/uv", kFakeUv, 0755));
  }
  void TearDown() override { fs::remove_all(folder_); }

  Environments make() {
    return Environments(
        io_.get_executor(),
        {.folder = folder_ + "/environments", .uv = folder_ + "/uv", .log = Logger()});
  }
  template <class T>
  T run(Async<T> task) {
    std::optional<T> out;
    asio::co_spawn(
        io_,
        [](Async<T> inner, std::optional<T>& result) -> Async<void> {
          result.emplace(co_await std::move(inner));
        }(std::move(task), out),
        [](std::exception_ptr e) {
          if (e) { std::rethrow_exception(e); }
        });
    io_.restart();
    io_.run();
    return std::move(*out);
  }

  asio::io_context io_;
  std::string folder_;
  std::string python_ = "/usr/bin/python3";
};

TEST_F(EnvironmentsTest, AnInterpreterAloneIsItsOwnEnvironment) {
  auto environments = make();
  auto found = run(environments.resolve({.python = python_}));
  ASSERT_TRUE(found) << found.error().text();
  EXPECT_EQ(found->python, python_);
  EXPECT_FALSE(fs::exists(folder_ + "/environments"));
}

TEST_F(EnvironmentsTest, BuildsOnceAndIsFoundAgain) {
  auto environments = make();
  const EnvironmentSpec spec{.python = python_,
                             .requirements = {"a==1", "# note", "a==1", "b  # why"},
                             .commands = {"@nuclio.postCopy", "echo hi > made"}};
  auto first = run(environments.resolve(spec));
  ASSERT_TRUE(first) << first.error().text();
  EXPECT_TRUE(fs::exists(folder_ + "/environments/" + first->id + "/made"));
  fs::remove(folder_ + "/uv");  // a second build would fail
  auto other = make();
  auto second = run(other.resolve(spec));
  ASSERT_TRUE(second) << second.error().text();
  EXPECT_EQ(second->id, first->id);
  ASSERT_EQ(other.list().size(), 1U);
  EXPECT_EQ(other.list().front().state, "ready");
  EXPECT_EQ(other.list().front().requirements, (std::vector<std::string>{"a==1", "b"}));
}

TEST_F(EnvironmentsTest, AFailedBuildNamesTheStepAndShowsTheLog) {
  auto environments = make();
  auto built = run(environments.resolve({.python = python_, .requirements = {"broken"}}));
  ASSERT_FALSE(built);
  EXPECT_EQ(built.error().code, "EnvironmentFailed");
  EXPECT_NE(built.error().message.find("failed: error: no such package: broken ("),
            std::string::npos)
      << built.error().message;
}

TEST_F(EnvironmentsTest, RefusesOptionsAndMissingInterpreters) {
  auto environments = make();
  EXPECT_EQ(run(environments.resolve({.python = python_, .requirements = {"--index-url http://x"}}))
                .error()
                .kind,
            ErrorKind::invalid);
  EXPECT_EQ(run(environments.resolve({.python = "/nowhere/python"})).error().kind,
            ErrorKind::not_found);
}

TEST_F(EnvironmentsTest, ProgramsEndWithTheirCodeOrAtTheDeadline) {
  const auto log = folder_ + "/log";
  EXPECT_EQ(*run(run_program(io_.get_executor(),
                             {.arguments = {"sh", "-c", "echo out; exit 3"}, .log = log})),
            3);
  EXPECT_EQ(*read_file(log), "out\n");
  EXPECT_EQ(
      *run(run_program(io_.get_executor(), {.arguments = {"sh", "-c", "kill -9 $$"}, .log = log})),
      137);
  EXPECT_EQ(run(run_program(io_.get_executor(), {.arguments = {"no-such-program"}, .log = log}))
                .error()
                .kind,
            ErrorKind::not_found);
  Program endless{.arguments = {"sleep", "600"}, .log = log, .deadline = std::chrono::seconds(0)};
  EXPECT_EQ(run(run_program(io_.get_executor(), std::move(endless))).error().kind,
            ErrorKind::timed_out);
}

}  // namespace
}  // namespace metier
