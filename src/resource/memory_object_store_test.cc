#include "resource/testing/memory_object_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace metier {
namespace {

using testing::ElementsAre;

class MemoryStore : public testing::Test {
 protected:
  template <class T>
  T run(Async<T> task) {
    std::optional<T> out;
    asio::co_spawn(loop.get_executor(), std::move(task), [&](std::exception_ptr error, T value) {
      ASSERT_FALSE(error);
      out.emplace(std::move(value));
    });
    loop.restart();
    loop.run();
    return std::move(*out);
  }
  static Resource object(std::string name, std::string uid = "", std::string owner = "") {
    Resource out{.api_version = "v1",
                 .kind = "Thing",
                 .metadata = {.name = std::move(name), .name_space = "p", .uid = std::move(uid)}};
    if (!owner.empty()) { out.metadata.owner = OwnerRef{.uid = std::move(owner)}; }
    return out;
  }

  asio::io_context loop;
  MemoryObjectStore store{loop.get_executor()};
};

TEST_F(MemoryStore, WritesOnlyOverTheVersionThatWasRead) {
  const auto first = run(store.put_if_version(object("a"), 0));
  ASSERT_TRUE(first);
  EXPECT_EQ(run(store.put_if_version(object("a"), 0)).error().kind, ErrorKind::conflict);
  const auto second = run(store.put_if_version(object("a"), *first));
  ASSERT_TRUE(second);
  EXPECT_EQ(run(store.put_if_version(object("a"), *first)).error().kind, ErrorKind::conflict);
  EXPECT_TRUE(run(store.put_if_version(object("a"), ObjectStore::kAnyVersion)));
  EXPECT_EQ(store.get({"p", "Thing", "a"})->version, store.revision());
}

TEST_F(MemoryStore, RemovesWhatIsOwned) {
  ASSERT_TRUE(run(store.put_if_version(object("a", "1"), 0)));
  ASSERT_TRUE(run(store.put_if_version(object("b", "2", "1"), 0)));
  ASSERT_TRUE(run(store.put_if_version(object("c", "3", "2"), 0)));
  EXPECT_EQ(store.list({.owner_uid = "1"}).size(), 1U);
  ASSERT_TRUE(run(store.remove({"p", "Thing", "a"})));
  EXPECT_TRUE(store.list({}).empty());
  EXPECT_TRUE(run(store.remove({"p", "Thing", "a"})));
}

TEST_F(MemoryStore, TellsWatchersInOrderUntilTheyLeave) {
  std::vector<std::string> heard;
  ASSERT_TRUE(run(store.put_if_version(object("before"), 0)));
  auto handle = store.watch({.kind = "Thing"}, [&](const ObjectEvent& event) {
    heard.push_back(event.object.metadata.name);
  });
  ASSERT_TRUE(run(store.put_if_version(object("a"), 0)));
  ASSERT_TRUE(run(store.put_if_version(object("b"), 0)));
  ASSERT_TRUE(run(store.remove({"p", "Thing", "a"})));
  EXPECT_THAT(heard, ElementsAre("a", "b", "a"));
  handle.reset();
  ASSERT_TRUE(run(store.put_if_version(object("c"), 0)));
  EXPECT_EQ(heard.size(), 3U);
}

TEST_F(MemoryStore, FailsOnDemand) {
  store.fail_write = [](const ResourceKey&) {
    return Error{
        .kind = ErrorKind::unavailable, .message = "disk full", .field = {}, .fix = {}, .code = {}};
  };
  EXPECT_EQ(run(store.put_if_version(object("a"), 0)).error().kind, ErrorKind::unavailable);
  EXPECT_FALSE(store.get({"p", "Thing", "a"}));
}

}  // namespace
}  // namespace metier
