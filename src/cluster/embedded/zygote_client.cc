#include "cluster/embedded/zygote_client.h"

#include <boost/asio/posix/stream_descriptor.hpp>

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <array>
#include <cerrno>
#include <cstring>

#include <fmt/format.h>

#include "cluster/embedded/spawn.h"

namespace metier {

struct Zygotes::Zygote {
  explicit Zygote(Executor executor) : socket(executor), idle(executor) {}
  std::string environment;
  asio::posix::basic_stream_descriptor<Executor> socket;
  pid_t pid = -1;
  bool alive = true;
  bool stays = false;
  std::chrono::steady_clock::time_point used;
  Timer idle;
  std::optional<Json> ready;
};

namespace {
constexpr std::chrono::milliseconds kStart{60'000};  // of an interpreter with its imports, at most

// The sets of modules that a pod may ask for (annotation metier.dev/preload).
std::string modules_of(std::string_view preload) {
  if (preload == "dask") {
    // All that scheduler, worker and client import when they start; the dashboard (0.5 s of it) where there is bokeh.
    return "distributed,distributed.cli.dask_worker,distributed.cli.dask_scheduler,"
           "distributed.http.scheduler.api,distributed.http.scheduler.json,"
           "distributed.http.scheduler.prometheus,distributed.http.scheduler.info,"
           "distributed.http.health,distributed.http.proxy,distributed.http.statics,"
           "distributed.http.worker.prometheus,distributed.dashboard.scheduler,"
           "tornado.platform.asyncio,bokeh.application.handlers.document_lifecycle";
  }
  if (preload == "spark") {
    return "pyspark.sql.connect.session,pyspark.sql.connect.functions,pyspark.sql.functions,pandas";
  }
  return {};
}
}  // namespace

Result<std::shared_ptr<Zygotes::Zygote>> Zygotes::start(const std::string& environment,
                                                        const std::string& python,
                                                        const std::string& modules) {
  std::array<int, 2> ends{};
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()) != 0) {
    return fail(errno_error("socketpair", errno));
  }
  auto zygote = std::make_shared<Zygote>(executor_);
  zygote->environment = environment;
  zygote->used = std::chrono::steady_clock::now();
  zygote->socket.assign(ends[0]);
  const Fd theirs(ends[1]);
  METIER_CHECK(make_folders(options_.folder, 0700));
  Spawn spawn;
  spawn.arguments = {python, "-m", "metier_runner.zygote"};
  for (char** one = environ; *one != nullptr; ++one) {
    const std::string_view text(*one);
    if (!text.starts_with("PYTHONPATH=") && !text.starts_with("METIER_PRELOAD=")) {
      spawn.env.emplace_back(text);
    }
  }
  spawn.env.push_back("PYTHONPATH=" + options_.runner);
  spawn.env.push_back("METIER_PRELOAD=" + options_.preload + (modules.empty() ? "" : ",") +
                      modules);
  spawn.descriptors = {theirs.get()};
  spawn.output = options_.folder + "/" + environment + ".log";
  METIER_TRY(pid, spawn_program(spawn));
  zygote->pid = pid;
  if (!scope_.spawn("zygote " + environment, watch(zygote)) ||
      !scope_.spawn("idle zygote " + environment, rest(zygote))) {
    return fail(ErrorKind::unavailable, "the server is stopping");
  }
  return zygote;
}

// Ends it when nothing was launched from it for the idle time: each holds the memory of its imports. One that still starts has
// launches that wait for it.
Async<void> Zygotes::rest(std::shared_ptr<Zygote> zygote) {
  while (zygote->alive && !zygote->stays) {
    const auto now = std::chrono::steady_clock::now();
    const bool starting = !zygote->ready && now < zygote->used + kStart;
    const auto until = (starting ? now : zygote->used) + options_.idle;
    if (now >= until) {
      options_.log.info("zygote is idle: ended", {{"environment", Json(zygote->environment)}});
      zygote->alive = false;  // the next launch starts another
      boost::system::error_code ignored;
      zygote->socket.cancel(ignored);
      co_return;
    }
    boost::system::error_code ec;
    zygote->idle.expires_at(until);
    co_await zygote->idle.async_wait(asio::redirect_error(use_async, ec));
    if (ec) { co_return; }
  }
}

Async<void> Zygotes::watch(std::shared_ptr<Zygote> zygote) {
  std::string message(64U << 10U, '\0');
  while (true) {
    boost::system::error_code ec;
    co_await zygote->socket.async_wait(asio::posix::descriptor_base::wait_read,
                                       asio::redirect_error(use_async, ec));
    if (ec) { break; }
    const auto n =
        ::recv(zygote->socket.native_handle(), message.data(), message.size(), MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) { continue; }
    if (n <= 0) { break; }
    auto said = parse_json(std::string_view(message.data(), static_cast<std::size_t>(n)));
    if (said) {
      options_.log.info("zygote", {{"environment", Json(zygote->environment)}, {"said", *said}});
      zygote->ready = std::move(*said);
      zygote->used = std::chrono::steady_clock::now();
    }
  }
  zygote->alive = false;
  zygote->idle.cancel();
  boost::system::error_code ignored;
  zygote->socket.close(ignored);  // also ends it
  // It ends at once (its socket is closed); a stuck one is killed, so that this wait is short.
  ::kill(zygote->pid, SIGKILL);
  int status = 0;
  while (::waitpid(zygote->pid, &status, 0) < 0 && errno == EINTR) {}
  if (const auto it = zygotes_.find(zygote->environment);
      it != zygotes_.end() && it->second == zygote) {
    zygotes_.erase(it);
  }
}

Result<std::shared_ptr<Zygotes::Zygote>> Zygotes::of(const std::string& environment,
                                                     const std::string& python,
                                                     const std::string& preload) {
  const std::string modules = modules_of(preload);
  const std::string name = modules.empty() ? environment : environment + "+" + preload;
  if (const auto it = zygotes_.find(name); it != zygotes_.end() && it->second->alive) {
    it->second->used = std::chrono::steady_clock::now();
    return it->second;
  }
  METIER_TRY(zygote, start(name, python, modules));
  zygotes_[name] = zygote;
  return zygote;
}

Result<void> Zygotes::prewarm(const std::string& environment, const std::string& python,
                              const std::string& preload) {
  METIER_TRY(zygote, of(environment, python, preload));
  zygote->stays = true;
  return {};
}

Result<void> Zygotes::launch(const std::string& environment, const std::string& python,
                             const std::string& preload, const std::string& id, int document,
                             int control, int spec) {
  METIER_TRY(zygote, of(environment, python, preload));
  auto text = dump_json(JsonObject{{"v", 1}, {"id", id}});
  const std::array<int, 3> files{document, control, spec};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof files)> room{};
  iovec part{text.data(), text.size()};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = room.data();
  message.msg_controllen = room.size();
  auto* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof files);
  std::memcpy(CMSG_DATA(header), files.data(), sizeof files);
  if (::sendmsg(zygote->socket.native_handle(), &message, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) {
    return fail(ErrorKind::unavailable,
                fmt::format("zygote of {}: {}", environment, std::strerror(errno)));
  }
  return {};
}

const Json* Zygotes::ready(const std::string& environment) const {
  const auto it = zygotes_.find(environment);
  return it == zygotes_.end() || !it->second->ready ? nullptr : &*it->second->ready;
}

int Zygotes::pid(const std::string& environment) const {
  const auto it = zygotes_.find(environment);
  return it == zygotes_.end() ? -1 : it->second->pid;
}

Async<void> Zygotes::close() {
  auto closed = co_await scope_.close(std::chrono::seconds(5));
  if (!closed) { options_.log.warn(closed.error().message); }
}

}  // namespace metier
