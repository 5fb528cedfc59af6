// Logs: of pods through the cluster, of ended runs and of runs that clients hold from files. Offsets are bytes and
// never change; secrets are masked with as many '*'.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include "base/files.h"
#include "base/log_times.h"
#include "engine/engine_impl.h"
#include "engine/pod_log.h"

namespace metier {
namespace {

constexpr std::size_t kMostAtOnce = 4U << 20U;

std::optional<std::uint64_t> size_of(const std::string& path) {
  struct stat facts{};
  if (::stat(path.c_str(), &facts) != 0 || !S_ISREG(facts.st_mode)) { return std::nullopt; }
  return static_cast<std::uint64_t>(facts.st_size);
}

Result<std::string> read_at(const std::string& path, std::uint64_t offset, std::size_t size) {
  const Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file) { return fail(errno_error(path, errno)); }
  std::string text(size, '\0');
  std::size_t have = 0;
  while (have < size) {
    const ssize_t n =
        ::pread(file.get(), text.data() + have, size - have, static_cast<off_t>(offset + have));
    if (n < 0 && errno == EINTR) { continue; }
    if (n < 0) { return fail(errno_error(path, errno)); }
    if (n == 0) { break; }
    have += static_cast<std::size_t>(n);
  }
  text.resize(have);
  return text;
}

}  // namespace

std::string Engine::log_file(const std::string& project, const std::string& uid,
                             std::int64_t attempt) const {
  std::string path = ground_.options.data + "/logs/" + project + "/" + uid;
  // '@' is in no uid: "u" has no attempt whose log is the log of a run "u.2".
  if (attempt > 1) { path += "@" + std::to_string(attempt); }
  return path;
}

std::string Engine::log_pod(const Plan& plan, std::int64_t attempt) const {
  const auto live = live_.find(plan_key(plan.project, plan.uid));
  if (live != live_.end() && attempt == plan.attempt) { return live->second->log_pod; }
  if (const auto ended = ended_.find(plan_key(plan.project, plan.uid));
      ended != ended_.end() && attempt == plan.attempt) {
    return ended->second;
  }
  return attempt <= static_cast<std::int64_t>(plan.names.size())
             ? plan.names[static_cast<std::size_t>(attempt - 1)]
             : plan.name();
}

std::string Engine::state_of(const std::string& project, const std::string& uid) const {
  if (const auto live = live_.find(plan_key(project, uid)); live != live_.end()) {
    return std::string(to_string(live->second->state));
  }
  auto row = ground_.store.records().run(project, uid, 0);
  return row && *row ? (*row)->state : std::string();
}

namespace {

Error no_run(const std::string& project, const std::string& uid) {
  return {.kind = ErrorKind::not_found,
          .message = "no run " + quote(uid) + " in project " + quote(project),
          .fix = "see: metier get runs -P " + project};
}

// Reads [offset, offset + size) over the pieces.
Async<Result<std::string>> read_pieces(Cluster& cluster, std::string project,
                                       std::vector<LogPiece> pieces, std::uint64_t offset,
                                       std::size_t size) {
  std::string out;
  std::uint64_t begin = 0;
  for (const LogPiece& piece : pieces) {
    const std::uint64_t end = begin + piece.size;
    if (offset < end && out.size() < size) {
      const std::uint64_t inside = offset - begin;
      const std::size_t want =
          static_cast<std::size_t>(std::min<std::uint64_t>(size - out.size(), piece.size - inside));
      if (!piece.file.empty()) {
        auto text = read_at(piece.file, inside, want);
        if (!text) { co_return fail(std::move(text.error())); }
        out += *text;
      } else {
        auto chunk = co_await cluster.logs({project, piece.pod, piece.container, 0}, inside, want,
                                           std::chrono::milliseconds(0));
        if (!chunk) { co_return fail(std::move(chunk.error())); }
        out += chunk->bytes;
      }
      offset = begin + inside + want;
    }
    begin = end;
  }
  co_return out;
}

}  // namespace

// What a run's log is made of now.
Async<Result<Engine::LogParts>> Engine::log_parts(const std::string& project,
                                                  const std::string& uid, std::int64_t attempt,
                                                  const std::string& part) {
  LogParts out;
  auto plan = read_plan(ground_.store.records(), project, uid);
  if (!plan) { co_return fail(std::move(plan.error())); }
  if (!part.empty()) {
    auto wanted = part_of(project, uid, part);
    if (!wanted) { co_return fail(std::move(wanted.error())); }
    const auto& [ref, file] = *wanted;
    if (!live_.contains(plan_key(project, uid))) { keep_log_of_gone(ref, file); }
    if (const auto bytes = size_of(file)) {
      out.pieces.push_back({file, "", *bytes, {}});
    } else if (auto chunk =
                   co_await ground_.cluster.logs(ref, 0, 0, std::chrono::milliseconds(0))) {
      out.pieces.push_back({"", ref.pod, chunk->size, ref.container});
      out.live_pod = ref.pod;
      out.live_container = ref.container;
    }
  } else if (*plan) {
    out.newest = (*plan)->attempt;
    for (std::int64_t n = 1; n <= (*plan)->attempt; ++n) {
      if (attempt > 0 && n != attempt) { continue; }
      const std::string file = log_file(project, uid, n);
      if (const auto bytes = size_of(file)) {
        out.pieces.push_back({file, "", *bytes, {}});
        continue;
      }
      const std::string pod = log_pod(**plan, n);
      auto chunk =
          co_await ground_.cluster.logs({project, pod, "", 0}, 0, 0, std::chrono::milliseconds(0));
      if (chunk) {
        out.pieces.push_back({"", pod, chunk->size, {}});
        if (n == (*plan)->attempt) { out.live_pod = pod; }
      }
    }
  } else if (const auto bytes = size_of(log_file(project, uid, 1))) {
    out.pieces.push_back({log_file(project, uid, 1), "", *bytes, {}});
  }
  co_return out;
}

Async<Result<std::vector<LogMark>>> Engine::log_times(std::string project, std::string uid,
                                                      std::int64_t attempt, std::string part) {
  if (state_of(project, uid).empty()) { co_return fail(no_run(project, uid)); }
  auto parts = co_await log_parts(project, uid, attempt, part);
  if (!parts) { co_return fail(std::move(parts.error())); }
  std::vector<LogMark> out;
  std::uint64_t begin = 0;
  for (const LogPiece& piece : parts->pieces) {
    const auto file = piece.file.empty() ? log_file_of_pod(ground_.cluster,
                                                           {project, piece.pod, piece.container, 0})
                                         : piece.file;
    const auto marks = file ? read_log_times(*file) : std::vector<LogMark>{};
    append_log_times(out, marks, begin);
    begin += piece.size;
  }
  co_return out;
}

Async<Result<LogSlice>> Engine::log(std::string project, std::string uid, std::uint64_t offset,
                                    std::int64_t size, std::int64_t attempt, bool wait,
                                    std::string part) {
  const std::string key = plan_key(project, uid);
  const auto deadline = std::chrono::steady_clock::now() + ground_.options.log_wait;
  struct Waiting {
    std::map<std::string, std::size_t, std::less<>>& table;
    const std::string& key;
    Waiting(std::map<std::string, std::size_t, std::less<>>& all, const std::string& name)
        : table(all), key(name) {
      ++table[key];
    }
    ~Waiting() {
      if (--table[key] == 0) { table.erase(key); }
    }
  } const waiting(waiting_, key);
  const std::size_t want =
      size < 0 ? kMostAtOnce : std::min<std::size_t>(static_cast<std::size_t>(size), kMostAtOnce);
  const Masker masker = masker_of(project, uid);
  const std::string first = state_of(project, uid);
  while (true) {
    LogSlice slice;
    auto signal = events_.of_run(key);
    const std::uint64_t seen = signal->generation();
    slice.state = state_of(project, uid);
    if (slice.state.empty()) { co_return fail(no_run(project, uid)); }
    const auto state = run_state_from(slice.state).value_or(RunState::unknown);
    const bool over = is_terminal(state);
    auto parts = co_await log_parts(project, uid, attempt, part);
    if (!parts) { co_return fail(std::move(parts.error())); }
    const std::vector<LogPiece>& pieces = parts->pieces;
    const bool past =
        attempt > 0 &&
        (attempt < parts->newest || (attempt == parts->newest && state == RunState::pending_retry));
    const bool ended = over || past;
    for (const LogPiece& piece : pieces) { slice.size += piece.size; }
    if (want == 0) { co_return slice; }
    if (offset < slice.size) {
      // Neighbours are read too, so that a secret over the border is seen whole.
      const std::uint64_t margin = masker.empty() ? 0 : masker.longest() - 1;
      const std::uint64_t from = offset > margin ? offset - margin : 0;
      auto text = co_await read_pieces(ground_.cluster, project, pieces, from,
                                       static_cast<std::size_t>(offset - from) + want + margin);
      if (!text) { co_return fail(std::move(text.error())); }
      std::size_t known = text->size();
      if (!masker.empty()) {
        if (!ended && from + text->size() >= slice.size) { known -= masker.undecided(*text); }
        masker.mask(*text);
      }
      const std::size_t skip = static_cast<std::size_t>(offset - from);
      if (known > skip) {
        slice.bytes = text->substr(skip, std::min(want, known - skip));
        co_return slice;
      }
    }
    // Who follows one attempt is told of every change of the run: the attempt may have ended.
    const bool told = attempt > 0 && slice.state != first;
    if (ended || told || !wait || stopping_ || std::chrono::steady_clock::now() >= deadline) {
      co_return slice;
    }
    // Nothing new: wait for bytes of the pod, or for a change of the run.
    if (parts->live_pod.empty()) {
      co_await signal->wait(seen, deadline);
      continue;
    }
    const std::uint64_t before = slice.size - pieces.back().size;
    const std::uint64_t inside = std::max(offset, slice.size) - before;
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
        deadline - std::chrono::steady_clock::now());
    auto more =
        co_await ground_.cluster.logs({project, parts->live_pod, parts->live_container, 0}, inside,
                                      1, std::max(left, std::chrono::milliseconds(1)));
    if (!more || (more->bytes.empty() && more->ended)) {
      // The pod has ended (or has not begun): the state will follow.
      if (state_of(project, uid) == slice.state) { co_await signal->wait(seen, deadline); }
    }
  }
}

Async<Result<std::uint64_t>> Engine::log_size(std::string project, std::string uid) {
  auto slice = co_await log(project, uid, 0, 0, 0, false);
  if (!slice) { co_return fail(std::move(slice.error())); }
  co_return slice->size;
}

Result<void> Engine::append_log(const std::string& project, const std::string& uid,
                                std::string_view bytes, bool append) {
  if (!is_dns_label(project) || uid.empty() || uid.find('/') != std::string::npos ||
      uid.front() == '.') {
    return fail(invalid("uid", quote(uid) + " is not a uid", "letters, digits, '-', '_', '.'"));
  }
  if (state_of(project, uid).empty()) {
    return fail(ErrorKind::not_found, "no run " + quote(uid) + " in project " + quote(project));
  }
  if (holds(project, uid)) {
    return fail(Error{.kind = ErrorKind::conflict,
                      .message = "the log of this run is its pod's output",
                      .fix = "write to stdout in the run"});
  }
  const std::string path = log_file(project, uid, 1);
  METIER_CHECK(make_folders(std::filesystem::path(path).parent_path(), 0700));
  const Fd file(::open(path.c_str(),
                       O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW | (append ? O_APPEND : O_TRUNC),
                       0600));
  if (!file) { return fail(errno_error(path, errno)); }
  if (!append) { ::unlink(log_times_path(path).c_str()); }
  for (std::size_t done = 0; done < bytes.size();) {
    const ssize_t n = ::write(file.get(), bytes.data() + done, bytes.size() - done);
    if (n < 0 && errno == EINTR) { continue; }
    if (n < 0) { return fail(errno_error(path, errno)); }
    done += static_cast<std::size_t>(n);
  }
  const auto size = size_of(path);
  METIER_CHECK(
      append_log_time(path, {.end = size.value_or(bytes.size()), .at = ground_.clock.now()}));
  events_.wake(plan_key(project, uid));
  return {};
}

}  // namespace metier
