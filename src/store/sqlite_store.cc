#include <fcntl.h>
#include <fmt/format.h>
#include <sqlite3.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>

#include "base/failpoint.h"
#include "base/files.h"
#include "store/object_index.h"
#include "store/schema.h"
#include "store/sqlite_records.h"
#include "store/store.h"
#include "store/whole_check.h"

namespace metier {
namespace {

constexpr int kCheckpointPages = 2000;

using Change = std::function<Result<void>(Records&)>;
using Done = std::move_only_function<void(Result<void>)>;

struct Job {
  Change change;
  Done done;
};

Result<void> refuse_network(const std::string& folder) {
  struct statfs info{};
  if (::statfs(folder.c_str(), &info) != 0) { return fail(errno_error(folder, errno)); }
  const auto type = static_cast<std::uint32_t>(info.f_type);
  if (type == 0x6969 || type == 0xff534d42 || type == 0xfe534d42 || type == 0x517b) {
    return fail(
        Error{.kind = ErrorKind::invalid,
              .message = folder + " is on a network file system, whose locks SQLite cannot trust",
              .field = "data_dir",
              .fix = "use a folder on a local disk (--data DIR)"});
  }
  return {};
}

struct Locked {
  Fd fd;
  bool unclean = false;  // the server before this one did not stop by itself
};

Result<Locked> lock_folder(const std::string& folder) {
  const auto path = folder + "/lock";
  Fd lock(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (!lock) { return fail(errno_error(path, errno)); }
  if (::flock(lock.get(), LOCK_EX | LOCK_NB) != 0) {
    auto pid = read_file(path);
    return fail(Error{.kind = ErrorKind::conflict,
                      .message = fmt::format("data folder {} is in use by another server (pid {})",
                                             folder, pid ? *pid : "unknown"),
                      .field = "--data",
                      .fix = "stop it, or choose another folder"});
  }
  struct stat before{};
  const bool unclean = ::fstat(lock.get(), &before) == 0 && before.st_size > 0;
  const auto pid = std::to_string(::getpid());
  if (::ftruncate(lock.get(), 0) != 0 || ::pwrite(lock.get(), pid.data(), pid.size(), 0) < 0) {
    return fail(errno_error(path, errno));
  }
  return Locked{std::move(lock), unclean};
}

// Reads the whole file when it is small enough to do so at every start. False: it is not.
Result<bool> check_file(Database& database, const std::string& path, std::int64_t at_most) {
  METIER_TRY(pages, database.pragma("page_count"));
  METIER_TRY(size, database.pragma("page_size"));
  if (pages * size > at_most) { return false; }
  METIER_CHECK(quick_check(database, path, ""));
  return true;
}

// A new key would make every stored secret unreadable for good: a lost key file is said, not replaced.
Result<void> check_key(Database& database, const std::string& file) {
  if (::access(file.c_str(), F_OK) == 0) { return {}; }
  METIER_TRY(q, database.query("SELECT EXISTS(SELECT 1 FROM secrets) OR EXISTS(SELECT 1 FROM "
                               "objects WHERE kind = 'Secret')"));
  METIER_TRY(row, q.step());
  if (!row || q.integer(0) == 0) { return {}; }
  return fail(
      Error{.kind = ErrorKind::invalid,
            .message = file + " is gone, and the data folder holds secrets that only it opens",
            .field = "data_dir",
            .fix = "put the file back; nothing was changed",
            .code = "KeyLost"});
}

class SqliteStore final : public Store, public ObjectStore {
 public:
  SqliteStore(Executor loop, StoreOptions options, Fd lock, std::unique_ptr<Database> writer,
              std::unique_ptr<Database> reader, SecretBox box)
      : loop_(loop),
        options_(std::move(options)),
        lock_(std::move(lock)),
        box_(std::move(box)),
        writer_(std::move(writer)),
        reader_(std::move(reader)),
        write_records_(*writer_, box_, *options_.clock),
        read_records_(*reader_, box_, *options_.clock) {}

  ~SqliteStore() override { stop(); }

  Result<void> start() {
    METIER_TRY(objects, read_records_.all_objects());
    METIER_TRY(revision, read_records_.stored_revision());
    index_.load(std::move(objects), revision);
    thread_ = std::thread([this] { write_loop(); });
    return {};
  }

  // Looks at the whole file beside the work. Damage stops all writing; what can be read is still read.
  void check_beside(const std::string& path) {
    check_ = std::make_unique<WholeCheck>(path, [this](Error error) {
      options_.log.error("the database is damaged", {{"error", Json(error.message)}});
      error.kind = ErrorKind::unavailable;
      const std::lock_guard guard(mutex_);
      damage_ = std::move(error);
    });
  }

  // What is read in one turn of the loop is read in one transaction: its locks cost system calls. It ends with the turn,
  // and before anybody hears of a commit.
  const Records& records() const override {
    if (!reading_ && reader_->run("BEGIN")) {
      reading_ = true;
      asio::post(loop_, [this, alive = std::weak_ptr<void>(alive_)] {
        if (!alive.expired()) { end_reading(); }
      });
    }
    return read_records_;
  }
  ObjectStore& objects() override { return *this; }

  // Cancellation does not reach a write under way: what it captures lives until it is done.
  Async<Result<void>> write_any(Change change) override {
    auto start = [this, &change](auto handler) {
      using Handler = decltype(handler);
      auto work = asio::make_work_guard(loop_);
      push({std::move(change),
            [h = Handler(std::move(handler)), work = std::move(work)](Result<void> result) mutable {
              std::move(h)(std::move(result));
              work.reset();
            }});
    };
    co_return co_await asio::async_initiate<const asio::use_awaitable_t<Executor>&,
                                            void(Result<void>)>(std::move(start), use_async);
  }

  Async<Result<void>> close() override {
    auto last = co_await write_any([](Records&) -> Result<void> { return {}; });
    stop();
    // An empty lock file says that this server stopped by itself.
    if (::ftruncate(lock_.get(), 0) != 0 && last) { last = fail(errno_error("lock", errno)); }
    co_return last;
  }

  void rest() override {
    reader_->shrink();
    const std::lock_guard guard(mutex_);
    resting_ = true;
    wake_.notify_one();
  }

  std::optional<Resource> get(const ResourceKey& key) const override { return index_.get(key); }
  std::vector<Resource> list(const Selector& selector) const override {
    return index_.list(selector);
  }
  std::shared_ptr<void> watch(Selector selector, Watcher watcher) override {
    return index_.watch(std::move(selector), std::move(watcher));
  }
  std::uint64_t revision() const override { return index_.revision(); }

  Async<Result<std::uint64_t>> put_if_version(Resource object, std::uint64_t expected) override {
    std::uint64_t version = 0;
    auto done = co_await write_any([&](Records& tx) -> Result<void> {
      METIER_TRY(stored, tx.put_object(object, expected));
      version = stored;
      return {};
    });
    if (!done) { co_return fail(std::move(done.error())); }
    co_return version;
  }

  Async<Result<void>> remove(const ResourceKey& key) override {
    const auto copy = key;
    co_return co_await write_any([&](Records& tx) { return tx.remove_object(copy); });
  }

 private:
  void end_reading() const {
    if (!reading_) { return; }
    reading_ = false;
    static_cast<void>(reader_->run("COMMIT"));
  }

  // On the loop's thread. The writer is woken once everything that is ready on the loop has been looked at: requests
  // that arrived together are committed together.
  void push(Job job) {
    {
      const std::lock_guard guard(mutex_);
      if (!stopping_) {
        jobs_.push_back(std::move(job));
        if (!waking_) {
          waking_ = true;
          asio::post(loop_, [this, alive = std::weak_ptr<void>(alive_)] {
            if (alive.expired()) { return; }
            const std::lock_guard late(mutex_);
            waking_ = false;
            wake_.notify_one();
          });
        }
        return;
      }
    }
    asio::post(loop_, [done = std::move(job.done)]() mutable {
      done(fail(ErrorKind::unavailable, "the store is closed"));
    });
  }

  void stop() {
    check_.reset();
    {
      const std::lock_guard guard(mutex_);
      stopping_ = true;
      wake_.notify_one();
    }
    if (thread_.joinable()) { thread_.join(); }
  }

  // --- the writer thread ---

  void write_loop() {
    while (true) {
      std::deque<Job> group;
      {
        std::unique_lock guard(mutex_);
        wake_.wait(guard, [this] { return stopping_ || resting_ || !jobs_.empty(); });
        if (std::exchange(resting_, false)) { writer_->shrink(); }
        if (jobs_.empty()) {
          if (stopping_) { return; }
          continue;
        }
        if (damage_ && !broken_) { broken_ = damage_; }
        while (!jobs_.empty() && group.size() < options_.group_limit) {
          group.push_back(std::move(jobs_.front()));
          jobs_.pop_front();
        }
      }
      commit_group(std::move(group));
    }
  }

  struct Outcome {
    Done done;
    Result<void> result;
  };

  void commit_group(std::deque<Job> group) {
    std::vector<Outcome> outcomes;
    std::vector<ObjectChange> changes;
    auto state = broken_ ? Result<void>(fail(*broken_)) : writer_->run("BEGIN IMMEDIATE");
    const bool begun = state.has_value();
    for (auto& job : group) {
      auto result = state ? run_one(job.change, changes) : Result<void>(state);
      // A full or failing disk can end the whole transaction, what came before in the group included.
      if (state && !writer_->in_transaction()) {
        state =
            result
                ? Result<void>(fail(ErrorKind::internal, "a write function ended the transaction"))
                : result;
        mark_broken(state.error());
      }
      outcomes.push_back({std::move(job.done), std::move(result)});
    }
    if (begun) {
      if (state) { state = commit(); }
      if (!state) {
        changes.clear();
        for (auto& outcome : outcomes) { outcome.result = state; }
      }
    }
    METIER_FAILPOINT("store/commit/after");
    asio::post(loop_,
               [this, changes = std::move(changes), outcomes = std::move(outcomes)]() mutable {
                 end_reading();
                 for (const auto& change : changes) { index_.apply(change); }
                 for (auto& outcome : outcomes) { outcome.done(std::move(outcome.result)); }
               });
  }

  // One write function inside a savepoint: its error takes back its own changes only.
  Result<void> run_one(const Change& change, std::vector<ObjectChange>& changes) {
    METIER_CHECK(writer_->run("SAVEPOINT one"));
    write_records_.begin();
    auto result = change(write_records_);
    if (!writer_->in_transaction()) {
      return result
                 ? Result<void>(fail(ErrorKind::internal, "a write function ended the transaction"))
                 : result;
    }
    if (result) {
      METIER_CHECK(writer_->run("RELEASE one"));
      auto& made = write_records_.changes();
      changes.insert(changes.end(), std::make_move_iterator(made.begin()),
                     std::make_move_iterator(made.end()));
      return {};
    }
    METIER_CHECK(writer_->run("ROLLBACK TO one"));
    METIER_CHECK(writer_->run("RELEASE one"));
    return result;
  }

  Result<void> flush() {
    METIER_FAILPOINT_RETURN("store/commit");
    return writer_->run("COMMIT");
  }

  Result<void> commit() {
    METIER_FAILPOINT("store/commit/before");
    auto done = flush();
    if (done) {
      checkpoint();
      return {};
    }
    if (writer_->in_transaction()) { static_cast<void>(writer_->run("ROLLBACK")); }
    mark_broken(done.error());
    return done;
  }

  // A full disk is over when there is room again. Any other failed write or flush is never retried: what the
  // kernel has dropped would be taken for written.
  void mark_broken(const Error& error) {
    if (error.code == "NoSpace" || broken_) { return; }
    options_.log.error("the store has stopped", {{"error", Json(error.message)}});
    broken_ = Error{.kind = ErrorKind::unavailable,
                    .message = "the store has stopped after a failed write: " + error.message,
                    .field = "data_dir",
                    .fix = "check the disk, then restart the server",
                    .code = "StoreUnavailable"};
  }

  // Passive, by the writer alone: readers never wait, and the log is written back while it is small.
  // One that does not get through is tried again after the next commit: nothing acknowledged depends on it.
  void checkpoint() {
    int pages = 0;
    int moved = 0;
    sqlite3_wal_checkpoint_v2(writer_->raw(), nullptr, SQLITE_CHECKPOINT_NOOP, &pages, &moved);
    if (pages - moved >= kCheckpointPages) {
      METIER_FAILPOINT("store/checkpoint");
      sqlite3_wal_checkpoint_v2(writer_->raw(), nullptr, SQLITE_CHECKPOINT_PASSIVE, &pages, &moved);
    }
  }

  // Fixed after construction.
  Executor loop_;
  StoreOptions options_;
  Fd lock_;
  SecretBox box_;

  // The writer thread's, but for start and stop.
  std::unique_ptr<Database> writer_;
  std::optional<Error> broken_;

  // The loop thread's.
  std::unique_ptr<Database> reader_;
  SqliteRecords write_records_;
  SqliteRecords read_records_;
  ObjectIndex index_;
  mutable bool reading_ = false;
  std::shared_ptr<void> alive_ =
      std::make_shared<int>();  // what is posted to the loop may come too late

  std::thread thread_;
  std::mutex mutex_;  // guards what follows
  std::condition_variable wake_;
  std::deque<Job> jobs_;
  bool stopping_ = false;
  bool waking_ = false;
  bool resting_ = false;
  std::optional<Error> damage_;
  std::unique_ptr<WholeCheck> check_;
};

}  // namespace

Result<std::unique_ptr<Store>> Store::open(Executor loop, StoreOptions options) {
  METIER_CHECK(make_folders(options.folder));
  METIER_CHECK(refuse_network(options.folder));
  METIER_TRY(lock, lock_folder(options.folder));
  const auto path = options.folder + "/metier.db";
  auto opened = Database::open(path, Database::Mode::write);
  if (!opened) { return fail(std::move(opened.error()).in(path)); }
  auto writer = std::move(*opened);
  METIER_TRY(checked, check_file(*writer, path, options.check_at_start_bytes));
  METIER_CHECK(migrate(*writer));
  METIER_CHECK(writer->execute("PRAGMA wal_autocheckpoint=0"));
  if (options.max_bytes > 0) {
    METIER_TRY(page, writer->pragma("page_size"));
    METIER_CHECK(
        writer->execute(fmt::format("PRAGMA max_page_count={}", options.max_bytes / page)));
  }
  METIER_TRY(reader, Database::open(path, Database::Mode::read));
  METIER_CHECK(check_key(*writer, options.folder + "/secret.key"));
  METIER_TRY(box, SecretBox::open(options.folder + "/secret.key", system_random()));
  auto store = std::make_unique<SqliteStore>(loop, std::move(options), std::move(lock.fd),
                                             std::move(writer), std::move(reader), std::move(box));
  METIER_CHECK(store->start());
  if (!checked && lock.unclean) { store->check_beside(path); }
  return std::unique_ptr<Store>(std::move(store));
}

}  // namespace metier
