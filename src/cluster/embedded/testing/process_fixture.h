// Real pods for tests: a driver on a temporary folder, a loop to run its coroutines on.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>

#include "cluster/embedded/process_driver.h"
#include "metier/test_paths.h"

namespace metier {

class ProcessFixture : public ::testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/metier-pods-XXXXXX";
    folder_ = ::mkdtemp(name);
    options_.data = folder_ + "/data";
    options_.shim = std::string(METIER_BINARY_DIR) + "/shim/metier-shim";
    options_.runner = std::string(METIER_SOURCE_DIR) + "/python/runner";
    options_.use_zygotes = false;
    open();
  }
  void TearDown() override {
    if (driver_) {
      for (const auto& id : run(driver_->found()).value_or(std::vector<std::string>{})) {
        static_cast<void>(run(driver_->recover(id, {})).has_value());
        static_cast<void>(run(driver_->stop(id, {.how = StopOptions::How::forced})).has_value());
        static_cast<void>(run(driver_->wait(id)).has_value());
        static_cast<void>(run(driver_->destroy(id)).has_value());
      }
    }
    leave();
    std::error_code ec;
    std::filesystem::remove_all(folder_, ec);
  }

  void open() {
    driver_ = std::make_unique<ProcessDriver>(loop_.get_executor(), system_clock(), system_random(),
                                              host_cgroups("/", options_.force), options_);
  }
  // The server goes away; pods stay.
  void leave() {
    if (driver_) { run_void(driver_->close()); }
    driver_.reset();
  }

  template <class T>
  Result<T> run(Async<Result<T>> task) {
    std::optional<Result<T>> out;
    asio::co_spawn(loop_, std::move(task), [&](std::exception_ptr error, Result<T> value) {
      if (error) { std::rethrow_exception(error); }
      out = std::move(value);
    });
    while (!out) {
      loop_.restart();
      loop_.run_one();
    }
    return std::move(*out);
  }
  void run_void(Async<void> task) {
    bool done = false;
    asio::co_spawn(loop_, std::move(task), [&](std::exception_ptr) { done = true; });
    while (!done) {
      loop_.restart();
      loop_.run_one();
    }
  }

  static LaunchSpec shell(const std::string& id, const std::string& script) {
    return command(id, {"/bin/sh", "-c", script});
  }
  static LaunchSpec command(const std::string& id, std::vector<std::string> words) {
    LaunchSpec spec;
    spec.id = id;
    spec.pod.metadata.name = "pod-" + id;
    spec.pod.restart = RestartPolicy::never;
    Container container;
    container.name = "main";
    container.command = std::move(words);
    spec.pod.containers.push_back(std::move(container));
    return spec;
  }

  PodStatus end_of(LaunchSpec spec) {
    const auto id = spec.id;
    auto started = run(driver_->start(std::move(spec)));
    EXPECT_TRUE(started) << started.error().text();
    if (!started) { return {}; }
    return run(driver_->wait(id)).value();
  }
  std::string log(const std::string& id, const std::string& container = {}, int attempt = 0) {
    const auto path = driver_->log_path(id, container, attempt);
    return path ? read_file(*path).value_or("") : "no log: " + path.error().text();
  }
  std::string pod_folder(const std::string& id) const { return options_.data + "/pods/" + id; }
  // Waits, without the clock, for a file that a pod writes.
  void await_file(const std::string& path) {
    while (!std::filesystem::exists(path)) {
      loop_.restart();
      loop_.poll();
      ::usleep(500);
    }
  }

  asio::io_context loop_;
  std::string folder_;
  ProcessDriver::Options options_;
  std::unique_ptr<ProcessDriver> driver_;
};

}  // namespace metier
