#include "store/store.h"
#include "metier/test_paths.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>

#include "base/files.h"
#include "store/testing/store_fixture.h"

namespace metier {
namespace {

using StoreTest = StoreFixture;

Resource pod(const std::string& name, const std::string& uid_label = "") {
  Resource out;
  out.api_version = "v1";
  out.kind = "Pod";
  out.metadata.name = name;
  out.metadata.name_space = "default";
  if (!uid_label.empty()) { out.metadata.labels["mlrun/uid"] = uid_label; }
  out.body["spec"] = JsonObject{{"x", 1}};
  return out;
}

TEST_F(StoreTest, AcknowledgedWritesAreThereAfterReopening) {
  open();
  ASSERT_TRUE(write([](Records& tx) { return tx.put_project("p", "{}"); }));
  reopen();
  EXPECT_EQ(**store_->records().project("p"), "{}");
}

TEST_F(StoreTest, AnErrorTakesBackItsOwnChangesOnly) {
  open();
  auto failed = write([](Records& tx) -> Result<void> {
    METIER_CHECK(tx.put_project("half", "{}"));
    return fail(ErrorKind::invalid, "no");
  });
  EXPECT_EQ(failed.error().message, "no");
  ASSERT_TRUE(write([](Records& tx) { return tx.put_project("whole", "{}"); }));
  EXPECT_FALSE(*store_->records().project("half"));
  EXPECT_TRUE(*store_->records().project("whole"));
}

TEST_F(StoreTest, ASecondServerOnOneFolderIsRefusedByPid) {
  open();
  asio::io_context io;
  auto second = Store::open(io.get_executor(), {.folder = folder_});
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().kind, ErrorKind::conflict);
  EXPECT_NE(second.error().message.find(std::to_string(::getpid())), std::string::npos);
}

TEST_F(StoreTest, ObjectsHaveVersionsOwnersAndWatchers) {
  open();
  std::vector<std::string> heard;
  const auto watch = store_->objects().watch({.kind = "Pod"}, [&](const ObjectEvent& event) {
    heard.push_back(std::string(event.type == ObjectEvent::Type::removed ? "-"
                                : event.type == ObjectEvent::Type::added ? "+"
                                                                         : "~") +
                    event.object.metadata.name);
  });
  auto version = run(store_->objects().put_if_version(pod("a", "u1"), 0));
  ASSERT_TRUE(version) << version.error().text();
  EXPECT_EQ(run(store_->objects().put_if_version(pod("a"), 0)).error().kind, ErrorKind::conflict);
  EXPECT_EQ(run(store_->objects().put_if_version(pod("a"), *version + 7)).error().kind,
            ErrorKind::conflict);
  auto again = run(
      store_->objects().put_if_version(*store_->objects().get({"default", "Pod", "a"}), *version));
  ASSERT_TRUE(again);
  auto child = pod("a-child");
  child.metadata.owner =
      OwnerRef{"Pod", "a", store_->objects().get({"default", "Pod", "a"})->metadata.uid};
  ASSERT_TRUE(run(store_->objects().put_if_version(child, 0)));
  EXPECT_EQ(store_->objects()
                .list({.name_space = "default", .kind = "Pod", .labels = {{"mlrun/uid", "u1"}}})
                .size(),
            1U);
  EXPECT_EQ(store_->objects().list({.kind = "Pod"}).size(), 2U);
  const auto revision = store_->objects().revision();
  reopen();
  EXPECT_EQ(store_->objects().revision(), revision);
  EXPECT_EQ(store_->objects().list({.kind = "Pod"}).size(), 2U);
  ASSERT_TRUE(run(store_->objects().remove({"default", "Pod", "a"})));
  EXPECT_TRUE(store_->objects().list({.kind = "Pod"}).empty());
  reopen();
  EXPECT_GT(store_->objects().revision(), revision);
  EXPECT_EQ(heard, (std::vector<std::string>{"+a", "~a", "+a-child"}));
}

TEST_F(StoreTest, ARunAndItsObjectsCommitTogether) {
  open();
  auto failed = write([](Records& tx) -> Result<void> {
    METIER_CHECK(tx.put_object(pod("x"), 0));
    return fail(ErrorKind::invalid, "no");
  });
  EXPECT_FALSE(failed);
  EXPECT_FALSE(store_->objects().get({"default", "Pod", "x"}));
}

TEST_F(StoreTest, SecretsAreNotInTheFile) {
  open();
  const std::string value = "canary-value-1234567890";
  ASSERT_TRUE(write([&](Records& tx) { return tx.put_secret("p", "s", "k", value); }));
  auto secret = pod("s");
  secret.kind = "Secret";
  secret.body["stringData"] = JsonObject{{"k", value}};
  ASSERT_TRUE(run(store_->objects().put_if_version(secret, 0)));
  EXPECT_EQ(**store_->records().secret_value("p", "s", "k"), value);
  reopen();
  EXPECT_EQ(**store_->records().secret_value("p", "s", "k"), value);
  EXPECT_EQ(
      string_in(*object_in(store_->objects().get({"default", "Secret", "s"})->body, "stringData"),
                "k"),
      value);
  close();
  for (const auto& entry : std::filesystem::directory_iterator(folder_)) {
    auto bytes = read_file(entry.path());
    if (bytes) { EXPECT_EQ(bytes->find(value), std::string::npos) << entry.path(); }
  }
}

TEST_F(StoreTest, ADamagedFileIsRefusedByName) {
  open();
  for (int i = 0; i < 50; ++i) {
    ASSERT_TRUE(write([&](Records& tx) {
      return tx.put_project("p" + std::to_string(i), std::string(500, 'x'));
    }));
  }
  close();
  auto bytes = *read_file(folder_ + "/metier.db");
  for (std::size_t at = 4096; at + 200 < bytes.size() && at < 40960; at += 4096) {
    bytes.replace(at, 100, std::string(100, '\x7f'));
  }
  ASSERT_TRUE(write_file(folder_ + "/metier.db", bytes));
  asio::io_context io;
  auto opened = Store::open(io.get_executor(), {.folder = folder_});
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().kind, ErrorKind::invalid);
  EXPECT_NE((opened.error().message + opened.error().field).find("metier.db"), std::string::npos)
      << opened.error().text();
}

TEST_F(StoreTest, DamageInALargeFileIsFoundBesideTheWorkAfterACrash) {
  options_.check_at_start_bytes = 0;  // every file is a large one
  open();
  ASSERT_TRUE(write([](Records& tx) -> Result<void> {
    for (int i = 0; i < 2000; ++i) {
      RunRow row{.project = "p", .uid = std::to_string(i), .name = "n", .state = "completed"};
      row.body = "{\"x\":\"" + std::string(1000, 'x') + "\"}";
      METIER_CHECK(tx.put_run(row));
    }
    return {};
  }));
  close();
  const auto file = folder_ + "/metier.db";
  auto bytes = read_file(file).value();
  const auto page = bytes.find(std::string(1000, 'x'), bytes.size() / 2) / 4096 * 4096;
  for (std::size_t i = 0; i < 8; ++i) { bytes[page + i] = '\x7f'; }
  ASSERT_TRUE(write_file(file, bytes));
  const auto change = [](Records& tx) { return tx.put_setting("a", "b", "c", std::nullopt); };
  {
    // After a clean stop it is not looked for.
    open();
    EXPECT_TRUE(write(change));
    close();
  }
  ASSERT_TRUE(write_file(folder_ + "/lock", "123"));  // as a killed server leaves it
  open();
  Result<void> done = write(change);
  while (done) {
    ::usleep(1000);
    done = write(change);
  }
  EXPECT_EQ(done.error().code, "Damaged") << done.error().text();
  EXPECT_EQ(done.error().kind, ErrorKind::unavailable);
  EXPECT_EQ(**store_->records().setting("a", "b"), "c");
  static_cast<void>(run(store_->close()));
  store_.reset();
}

TEST_F(StoreTest, AFullDiskFailsTheWholeGroupAndIsOverWhenThereIsRoom) {
  options_.max_bytes = 400 << 10;
  open();
  ASSERT_TRUE(write([](Records& tx) { return tx.put_project("first", "{}"); }));
  const std::string big(100'000, 'x');
  // Written together: the small one, one that does not fit, a small one.
  std::vector<Result<void>> results(6);
  for (std::size_t i = 0; i < results.size(); ++i) {
    asio::co_spawn(
        io_,
        [](Store& store, std::size_t n, const std::string& text, Result<void>& out) -> Async<void> {
          out = co_await store.write_any([n, &text](Records& tx) -> Result<void> {
            METIER_CHECK(tx.put_object(pod("o" + std::to_string(n)), ObjectStore::kAnyVersion));
            return tx.put_project("g" + std::to_string(n),
                                  n % 2 == 1 ? text + text + text + text + text : "{}");
          });
        }(*store_, i, big, results[i]),
        [](std::exception_ptr) {});
  }
  io_.restart();
  io_.run();
  EXPECT_EQ(results[1].error().code, "NoSpace");
  for (std::size_t i = 0; i < results.size(); ++i) {
    // What was refused is not there, what was acknowledged is, and the index of objects agrees.
    const auto name = std::to_string(i);
    EXPECT_EQ(store_->records().project("g" + name)->has_value(), results[i].has_value()) << i;
    EXPECT_EQ(store_->objects().get({"default", "Pod", "o" + name}).has_value(),
              results[i].has_value())
        << i;
  }
  ASSERT_TRUE(write([](Records& tx) { return tx.put_project("small", "{}"); }));
  reopen();
  EXPECT_TRUE(*store_->records().project("first"));
  EXPECT_TRUE(*store_->records().project("small"));
  EXPECT_FALSE(*store_->records().project("g1"));
}

TEST_F(StoreTest, ALostKeyFileIsSaidAndNotReplaced) {
  open();
  reopen();  // without secrets nothing depends on the key
  ASSERT_TRUE(write([&](Records& tx) { return tx.put_secret("p", "s", "k", "v"); }));
  close();
  struct stat info{};
  ASSERT_EQ(::stat((folder_ + "/secret.key").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777U, 0600U);
  std::filesystem::rename(folder_ + "/secret.key", folder_ + "/elsewhere");
  asio::io_context io;
  auto opened = Store::open(io.get_executor(), {.folder = folder_});
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().code, "KeyLost");
  EXPECT_FALSE(std::filesystem::exists(folder_ + "/secret.key"));
  std::filesystem::rename(folder_ + "/elsewhere", folder_ + "/secret.key");
  open();
  EXPECT_EQ(**store_->records().secret_value("p", "s", "k"), "v");
}

TEST_F(StoreTest, OpensTheFirstFormatWithEverythingInIt) {
  {
    auto database = Database::open(folder_ + "/metier.db", Database::Mode::write);
    ASSERT_TRUE(database);
    auto made = (*database)->execute(
        *read_file(std::string(METIER_SOURCE_DIR) + "/src/store/testdata/format1.sql"));
    ASSERT_TRUE(made) << made.error().text();
  }
  for (int round = 0; round < 2; ++round) {
    reopen();
    const auto& records = store_->records();
    EXPECT_TRUE(*records.project("p"));
    EXPECT_EQ((*records.function("p", "f", "", ""))->kind, "job");
    const auto run = *records.run("p", "u1", 0);
    ASSERT_TRUE(run);
    EXPECT_EQ(run->version, 3U);
    EXPECT_EQ(run->labels, (Labels{{"owner", "me"}}));
    EXPECT_TRUE(run->end);
    EXPECT_EQ(records.runs({.project = "p", .labels = {"owner=me"}})->size(), 1U);
    EXPECT_EQ(records
                  .runs({.project = "p",
                         .only_parents = true,
                         .partition_sort = "updated",
                         .partition = true})
                  ->size(),
              1U);
    EXPECT_EQ(records.artifacts({.project = "p", .tag = "latest", .key = "n_model"})->size(), 1U);
    EXPECT_EQ(records.artifacts({.project = "p", .tree = "u1", .labels = {"stage=prod"}})->size(),
              1U);
    EXPECT_EQ(records.timeline("p", "u1")->size(), 1U);
    EXPECT_TRUE(*records.background_task("t"));
    EXPECT_EQ(**records.setting("s", "k"), "v");
    EXPECT_EQ(store_->objects().revision(), 7U);
  }
}

TEST_F(StoreTest, ANewerFormatIsNotTouched) {
  open();
  close();
  {
    auto database = Database::open(folder_ + "/metier.db", Database::Mode::write);
    ASSERT_TRUE((*database)->execute("PRAGMA user_version=999"));
  }
  asio::io_context io;
  auto opened = Store::open(io.get_executor(), {.folder = folder_});
  ASSERT_FALSE(opened);
  EXPECT_NE(opened.error().message.find("newer"), std::string::npos);
}

TEST_F(StoreTest, SurvivesKillAtEveryMomentWithExactlyTheAcknowledgedRows) {
  // A child writes numbered projects and tells each acknowledged one through a pipe; it is killed in between.
  for (int round = 0; round < 6; ++round) {
    int pipe[2];
    ASSERT_EQ(::pipe(pipe), 0);
    const auto folder = folder_ + "/r" + std::to_string(round);
    const pid_t child = ::fork();
    if (child == 0) {
      ::close(pipe[0]);
      asio::io_context io;
      auto store = Store::open(io.get_executor(), {.folder = folder});
      for (int i = 0;; ++i) {
        bool done = false;
        asio::co_spawn(
            io,
            [](Store& s, int n, bool& ok) -> Async<void> {
              ok = (co_await s.write_any([n](Records& tx) {
                     return tx.put_project("p" + std::to_string(n), "{}");
                   })).has_value();
            }(**store, i, done),
            [](std::exception_ptr) {});
        io.restart();
        io.run();
        if (!done || ::write(pipe[1], &i, sizeof i) != sizeof i) { ::_exit(1); }
      }
    }
    ::close(pipe[1]);
    int last = -1;
    int value = 0;
    while (last < 20 + round * 7 && ::read(pipe[0], &value, sizeof value) == sizeof value) {
      last = value;
    }
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    while (::read(pipe[0], &value, sizeof value) == sizeof value) { last = value; }
    ::close(pipe[0]);
    asio::io_context io;
    auto store = Store::open(io.get_executor(), {.folder = folder});
    ASSERT_TRUE(store) << store.error().text();
    const auto count = static_cast<int>((*store)->records().projects()->size());
    EXPECT_GE(count, last + 1);
    EXPECT_LE(count, last + 2);  // one more may have been committed without its answer
  }
}

}  // namespace
}  // namespace metier
