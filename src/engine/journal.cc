#include "engine/journal.h"

#include <fcntl.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <boost/asio/posix/basic_stream_descriptor.hpp>
#include <cstring>

#include "base/files.h"

namespace metier {

Result<JournalBatch> read_journal(const std::string& work_folder, std::uint64_t offset) {
  JournalBatch batch;
  batch.next = offset;
  const Fd folder(::open(work_folder.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!folder) {
    if (errno == ENOENT) { return batch; }
    return fail(errno_error(work_folder, errno));
  }
  const Fd file(::openat(folder.get(), "journal", O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  if (!file) {
    if (errno == ENOENT) { return batch; }
    return fail(errno == ELOOP ? invalid("journal", "the journal is a link",
                                         "write records through the run's context")
                               : errno_error(work_folder + "/journal", errno));
  }
  struct stat facts{};
  if (::fstat(file.get(), &facts) != 0) { return fail(errno_error("journal", errno)); }
  if (!S_ISREG(facts.st_mode)) {
    return fail(invalid("journal", "the journal is not a plain file",
                        "write records through the run's context"));
  }
  const std::uint64_t end = std::min(static_cast<std::uint64_t>(facts.st_size), kJournalFile);
  if (offset >= end) { return batch; }

  std::string text(
      static_cast<std::size_t>(std::min<std::uint64_t>(end - offset, kJournalRecord + 65536)),
      '\0');
  std::size_t have = 0;
  while (have < text.size()) {
    const ssize_t n = ::pread(file.get(), text.data() + have, text.size() - have,
                              static_cast<off_t>(offset + have));
    if (n < 0 && errno == EINTR) { continue; }
    if (n < 0) { return fail(errno_error("journal", errno)); }
    if (n == 0) { break; }
    have += static_cast<std::size_t>(n);
  }
  text.resize(have);
  std::size_t at = 0;
  while (at < text.size()) {
    const std::size_t line_end = text.find('\n', at);
    if (line_end == std::string::npos) {
      if (at == 0 && text.size() > kJournalRecord) {
        // One line longer than a record may be: it is passed over piece by piece.
        batch.odd.emplace_back("a journal record is larger than 1 MiB and was left out");
        at = text.size();
      }
      break;
    }
    const std::string_view line(text.data() + at, line_end - at);
    at = line_end + 1;
    if (line.empty()) { continue; }
    auto record = parse_json(line, {.bytes = kJournalRecord + 2, .depth = 128, .nodes = 1'000'000});
    if (!record || !record->is_object()) {
      batch.odd.emplace_back("a journal line is not a record and was left out");
      continue;
    }
    batch.records.push_back(std::move(*record));
  }
  batch.next = offset + at;
  batch.more = at > 0 && batch.next < end;
  return batch;
}

namespace {

using Descriptor = asio::posix::basic_stream_descriptor<Executor>;

class Inotify final : public JournalWatch {
 public:
  explicit Inotify(Executor loop) : stream_(loop) {
    const int fd = ::inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    if (fd >= 0) { stream_.assign(fd); }
  }

  Result<int> add(const std::string& folder, std::function<void()> changed) override {
    if (!stream_.is_open()) { return fail(ErrorKind::unavailable, "inotify is not available"); }
    const int watch = ::inotify_add_watch(stream_.native_handle(), folder.c_str(),
                                          IN_MODIFY | IN_CREATE | IN_ONLYDIR | IN_DONT_FOLLOW);
    if (watch < 0) { return fail(ErrorKind::unavailable, errno_error(folder, errno).message); }
    watchers_[watch] = std::move(changed);
    return watch;
  }

  void forget(int watch) override {
    if (watchers_.erase(watch) > 0) { ::inotify_rm_watch(stream_.native_handle(), watch); }
  }

  Async<void> run() override {
    alignas(inotify_event) std::array<char, 16384> buffer{};
    while (stream_.is_open()) {
      boost::system::error_code error;
      const std::size_t size = co_await stream_.async_read_some(
          asio::buffer(buffer), asio::redirect_error(use_async, error));
      if (error) { co_return; }
      std::vector<int> touched;
      for (std::size_t at = 0; at + sizeof(inotify_event) <= size;) {
        inotify_event event{};
        std::memcpy(&event, buffer.data() + at, sizeof event);
        at += sizeof event + event.len;
        if (std::ranges::find(touched, event.wd) == touched.end()) { touched.push_back(event.wd); }
        if ((event.mask & IN_Q_OVERFLOW) != 0U) {
          touched.clear();
          for (const auto& [watch, changed] : watchers_) { touched.push_back(watch); }
        }
      }
      for (const int watch : touched) {
        const auto known = watchers_.find(watch);
        if (known == watchers_.end()) { continue; }
        const auto changed = known->second;
        changed();
      }
    }
  }

 private:
  Descriptor stream_;
  std::map<int, std::function<void()>> watchers_;
};

}  // namespace

std::unique_ptr<JournalWatch> make_journal_watch(Executor loop) {
  return std::make_unique<Inotify>(loop);
}

}  // namespace metier
