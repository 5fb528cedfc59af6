#include "cluster/embedded/file_watch.h"

#include <fmt/format.h>
#include <sys/inotify.h>
#include <unistd.h>

#include <array>
#include <boost/asio/posix/basic_stream_descriptor.hpp>
#include <cerrno>
#include <cstring>
#include <list>
#include <map>

#include "base/files.h"

namespace metier {

struct FileWatch::State : std::enable_shared_from_this<FileWatch::State> {
  struct Interest {
    int watch = -1;
    std::function<void()> changed;
  };

  explicit State(Executor executor) : events(executor) {}

  Result<void> open() {
    if (events.is_open()) { return {}; }
    const int fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    if (fd < 0) {
      auto error = errno_error("inotify", errno);
      error.kind = ErrorKind::unavailable;
      return fail(std::move(error).fix_by("raise fs.inotify.max_user_instances"));
    }
    events.assign(fd);
    read();
    return {};
  }

  void read() {
    events.async_read_some(asio::buffer(buffer), [self = shared_from_this()](
                                                     boost::system::error_code ec, std::size_t n) {
      if (ec || !self->events.is_open()) { return; }
      self->deliver(n);
      self->read();
    });
  }

  void deliver(std::size_t n) {
    std::map<int, bool> hit;  // many writes of one file are one change
    for (std::size_t i = 0; i + sizeof(inotify_event) <= n;) {
      inotify_event event{};
      std::memcpy(&event, buffer.data() + i, sizeof(event));
      i += sizeof(event) + event.len;
      hit[event.wd] = true;
      if ((event.mask & IN_Q_OVERFLOW) != 0) {
        for (const auto& [wd, list] : interests) { hit[wd] = true; }
      }
    }
    for (const auto& [wd, yes] : hit) {
      const auto found = interests.find(wd);
      if (found == interests.end()) { continue; }
      const auto list = found->second;  // a callback may end interests
      for (const auto& interest : list) {
        if (interest->changed) { interest->changed(); }
      }
    }
  }

  void leave(const std::shared_ptr<Interest>& interest) {
    interest->changed = nullptr;
    const auto found = interests.find(interest->watch);
    if (found == interests.end()) { return; }
    found->second.remove(interest);
    if (found->second.empty()) {
      interests.erase(found);
      if (events.is_open()) { inotify_rm_watch(events.native_handle(), interest->watch); }
    }
  }

  asio::posix::basic_stream_descriptor<Executor> events;
  std::array<char, 16384> buffer{};
  std::map<int, std::list<std::shared_ptr<Interest>>> interests;
};

FileWatch::FileWatch(Executor executor) : state_(std::make_shared<State>(executor)) {}

FileWatch::~FileWatch() {
  boost::system::error_code ignored;
  if (state_->events.is_open()) { (void)state_->events.close(ignored); }
}

Result<std::shared_ptr<void>> FileWatch::watch(const std::string& path,
                                               std::function<void()> changed) {
  METIER_CHECK(state_->open());
  // IN_MASK_ADD is not used: all interests want the same.
  const int wd = inotify_add_watch(state_->events.native_handle(), path.c_str(), IN_MODIFY);
  if (wd < 0) {
    auto error = errno_error(path, errno);
    error.kind = errno == ENOENT ? ErrorKind::not_found : ErrorKind::unavailable;
    return fail(std::move(error));
  }
  auto interest = std::make_shared<State::Interest>(wd, std::move(changed));
  state_->interests[wd].push_back(interest);
  return std::shared_ptr<void>(interest.get(),
                               [state = state_, interest](void*) { state->leave(interest); });
}

}  // namespace metier
