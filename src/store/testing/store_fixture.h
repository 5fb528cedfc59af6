// A store in a temporary folder, driven from plain tests.
#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <memory>
#include <optional>

#include "store/sqlite.h"
#include "store/store.h"

namespace metier {

class StoreFixture : public testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/metier-store-XXXXXX";
    folder_ = ::mkdtemp(name);
  }
  void TearDown() override {
    close();
    std::filesystem::remove_all(folder_);
  }
  void open() {
    options_.folder = folder_;
    auto opened = Store::open(io_.get_executor(), options_);
    ASSERT_TRUE(opened) << opened.error().text();
    store_ = std::move(*opened);
  }
  void close() {
    if (store_ != nullptr) { EXPECT_TRUE(run(store_->close())); }
    store_.reset();
  }
  void reopen() {
    close();
    open();
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
  template <class Change>
  auto write(Change change) {
    return run(store_->write(std::move(change)));
  }

  asio::io_context io_;
  std::string folder_;
  StoreOptions options_;  // of the next open()
  std::unique_ptr<Store> store_;
};

}  // namespace metier
