#include "cli/follow.h"

#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <charconv>
#include <set>

#include "cli/live_line.h"
#include "cli/outcome.h"
#include "net/url.h"

namespace metier::cli {
namespace {

// A signal handler reaches nothing but this; one InterruptCounter lives at a time.
std::atomic<int> interrupts_seen = 0;

constexpr auto kAskFor = std::chrono::seconds(10);
constexpr std::size_t kPiece = 1U << 20U;

bool is_final(std::string_view state) {
  return state == "completed" || state == "error" || state == "aborted" || state == "skipped";
}

std::string run_path(std::string_view project, std::string_view uid) {
  return fmt::format("/api/v1/projects/{}/runs/{}", project, uid);
}

// True to abort. A second interrupt or no answer keeps the run; `detach` tells the two apart.
bool ask_abort(Command& command, const InterruptCounter& counter, int before, std::string_view uid,
               bool& detach) {
  [[maybe_unused]] const auto n = ::write(STDERR_FILENO, "\n", 1);
  const auto question =
      fmt::format("abort run {}? [y/N] (it goes on in 10 s; Ctrl-C again leaves it running) ",
                  uid.substr(0, 8));
  [[maybe_unused]] const auto m = ::write(STDERR_FILENO, question.data(), question.size());
  const auto deadline = std::chrono::steady_clock::now() + kAskFor;
  for (;;) {
    if (counter.count() > before) {
      detach = true;
      return false;
    }
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
                          deadline - std::chrono::steady_clock::now())
                          .count();
    pollfd entry{STDIN_FILENO, POLLIN, 0};
    if (left <= 0) { break; }
    if (::poll(&entry, 1, static_cast<int>(left)) <= 0) { continue; }
    std::array<char, 64> line{};
    const auto got = ::read(STDIN_FILENO, line.data(), line.size());
    if (got > 0) { return line[0] == 'y' || line[0] == 'Y'; }
    break;
  }
  command.screen.say("still running");
  return false;
}

// What the live line says of a run in `state`: why it waits, or how far it is.
std::string live_text(Command& command, const std::string& project, const std::string& uid,
                      std::string_view state) {
  if (state == "running") {
    auto parts =
        command.session.get(fmt::format("/api/metier/v1/runs/{}/parts?project={}", uid, project));
    const auto* progress =
        parts && parts->is_object() ? parts->as_object().if_contains("progress") : nullptr;
    const auto text = progress == nullptr ? std::string()
                                          : progress_text(*progress, command.screen.style().glyphs);
    return text.empty() ? std::string(state) : text;
  }
  if (state != "pending" && state != "created" && state != "pendingRetry") {
    return std::string(state);
  }
  auto answer =
      command.session.get(fmt::format("/api/metier/v1/runs/{}/why?project={}", uid, project));
  if (!answer || !answer->is_object()) { return std::string(state); }
  const auto sentence = string_in(answer->as_object(), "sentence");
  const auto colon = sentence.rfind(": ");
  return fmt::format(
      "{}: {}", state,
      printable(colon == std::string_view::npos ? sentence : sentence.substr(colon + 2)));
}

LogOutput::Told end_of(const JsonObject& run) {
  LogOutput::Told out;
  const auto* status = object_in(run, "status");
  out.failed = status != nullptr && string_in(*status, "state") == "error";
  const auto* failure = status == nullptr ? nullptr : object_in(*status, "failure");
  if (failure == nullptr) { return out; }
  const auto bytes = int_in(*failure, "log_bytes").value_or(0);
  out.traceback = bytes > 0 ? static_cast<std::size_t>(bytes) : 0;
  out.rank = int_in(*failure, "rank").value_or(-1);
  return out;
}

// Where in the attempts of a run its follower is. A run that is tried again has one log an attempt, so that their ends
// are told between the last byte of one and the first of the next.
class Attempts final {
 public:
  Attempts(Command& command, bool told) : command_(command), now_(told ? 1 : 0) {}

  std::int64_t now() const { return now_; }  // 0: all attempts are one log
  bool over() const { return over_; }        // it has ended; what is left of its log is there

  // An answer of this attempt's log came.
  void heard(bool bytes, std::string_view state) {
    const bool waits = state == "pendingRetry" || state == "aborting" || state == "aborted";
    if (begun_ || (!bytes && waits)) { return; }
    begun_ = true;
    command_.screen.say(fmt::format("attempt {}{} starts", now_, of_all()));
  }
  // Its log is read as far as it goes. True when there is more to read: its rest, or the next attempt's log.
  bool ended(const JsonObject& run) {
    const auto* status = object_in(run, "status");
    most_ = 1 + retries_of(run);
    const auto* lost = status == nullptr ? nullptr : array_in(*status, "retries");
    if (lost == nullptr || static_cast<std::int64_t>(lost->size()) < now_) { return false; }
    if (!std::exchange(over_, true)) { return true; }
    const auto& last = (*lost)[static_cast<std::size_t>(now_ - 1)];
    auto said = fmt::format("attempt {} failed ({})", now_, string_at(last, "error"));
    // The server's own word, while it is true, says when the next one starts too.
    if (const auto text = string_in(*status, "status_text");
        string_in(*status, "state") == "pendingRetry" && text.starts_with("attempt ")) {
      said = text;
    }
    command_.screen.say(command_.screen.paint(Role::care, "! " + printable(said)));
    ++now_;
    over_ = begun_ = false;
    return true;
  }

 private:
  std::string of_all() const { return now_ <= most_ ? fmt::format(" of {}", most_) : ""; }

  Command& command_;
  std::int64_t now_;
  std::int64_t most_ = 1;
  bool begun_ = true;
  bool over_ = false;
};

}  // namespace

struct InterruptCounter::Saved {
  struct sigaction before{};
};

InterruptCounter::InterruptCounter() : saved_(std::make_unique<Saved>()) {
  interrupts_seen = 0;
  struct sigaction action{};
  action.sa_handler = [](int) { ++interrupts_seen; };
  ::sigemptyset(&action.sa_mask);  // without SA_RESTART: a wait ends and the counter is looked at
  ::sigaction(SIGINT, &action, &saved_->before);
}
InterruptCounter::~InterruptCounter() { ::sigaction(SIGINT, &saved_->before, nullptr); }
int InterruptCounter::count() const { return interrupts_seen; }

std::int64_t retries_of(const JsonObject& run) {
  const auto* spec = object_in(run, "spec");
  const auto* retry = spec == nullptr ? nullptr : object_in(*spec, "retry");
  return retry == nullptr ? 0 : int_in(*retry, "count").value_or(0);
}

Result<JsonObject> read_run(Command& command, const std::string& project, const std::string& uid) {
  METIER_TRY(answer, command.session.get(run_path(project, uid) + "?format=full"));
  const auto* data = answer.is_object() ? object_in(answer.as_object(), "data") : nullptr;
  if (data == nullptr) { return fail(ErrorKind::internal, "the server's answer holds no run"); }
  return *data;
}

Result<void> abort_run(Command& command, const std::string& project, const std::string& uid) {
  METIER_CHECK(command.session.call("POST", run_path(project, uid) + "/abort", JsonObject{}));
  return {};
}

Result<Followed> follow_run(Command& command, const std::string& project, const std::string& uid,
                            const FollowOptions& options) {
  const InterruptCounter counter;
  LogOutput log(command.screen, options.to, options.holds);
  LiveLine live(command.screen);
  Attempts attempts(command, options.attempts);
  auto offset = options.offset;
  bool ask_state = false;
  std::string state = "pending";
  int handled = 0;
  auto quiet_since = std::chrono::steady_clock::time_point{};
  const auto listen = [&] {
    command.session.interrupted = [&] {
      ask_state = live.tick();
      return ask_state || counter.count() > handled;
    };
  };
  listen();
  struct Reset {
    Session& session;
    ~Reset() { session.interrupted = nullptr; }
  } const reset{command.session};
  int lost = 0;
  for (;;) {
    if (std::exchange(ask_state, false)) {
      command.session.interrupted = nullptr;  // a short question, asked to its end
      if (auto run = read_run(command, project, uid)) {
        const auto* status = object_in(*run, "status");
        state = status == nullptr ? state : std::string(string_in(*status, "state", state));
      }
      live.tell(is_final(state) ? std::string() : live_text(command, project, uid, state));
      listen();
    }
    if (counter.count() > handled) {
      live.rest(true);
      log.flush();
      const auto now = std::chrono::steady_clock::now();
      bool detach = counter.count() > handled + 1 || (handled > 0 && now - quiet_since < kAskFor);
      handled = counter.count();
      quiet_since = now;
      if (!detach && ::isatty(STDIN_FILENO) != 0 && command.screen.style().err_terminal) {
        if (ask_abort(command, counter, handled, uid, detach)) {
          command.session.interrupted = nullptr;  // it may take as long as the run's grace time
          METIER_CHECK(abort_run(command, project, uid));
          listen();
        }
      } else if (!detach) {
        command.screen.say(fmt::format(
            "{} goes on; Ctrl-C again within 10 s leaves it running, metier abort {} ends it",
            uid.substr(0, 8), uid.substr(0, 8)));
      }
      if (detach) { return Followed{Ending::detached, {}}; }
    }
    const bool at_once = log.holding() || attempts.over();
    auto answer = command.session.send(
        "GET", fmt::format("{}&offset={}&size={}{}",
                           log_of_run(command, uid, options.part, attempts.now()).bytes, offset,
                           kPiece, at_once ? "&wait=false" : ""));
    std::string shown;
    if (answer && options.text != nullptr && !answer->body.empty()) {
      if (auto text = options.text->of(answer->body, offset)) {
        shown = std::move(*text);
      } else {
        answer = fail(std::move(text).error());  // asked for again, from the same byte
      }
    }
    if (!answer) {
      if (answer.error().kind == ErrorKind::cancelled) { continue; }
      const bool away = answer.error().kind == ErrorKind::unavailable ||
                        answer.error().kind == ErrorKind::timed_out;
      if (!away || ++lost > 100) { return fail(std::move(answer).error()); }
      ::poll(
          nullptr, 0,
          std::min(50 * lost, 1000));  // the server is being restarted; nothing of the run is lost
      continue;
    }
    lost = 0;
    state = net::header(answer->headers, "x-mlrun-run-state");
    if (attempts.now() > 0) {
      live.rest(false);
      attempts.heard(!answer->body.empty(), state);
      live.rest(log.at_line_start());
    }
    if (!answer->body.empty()) {
      offset += answer->body.size();
      live.rest(false);
      log.add(options.text == nullptr ? answer->body : shown);
      live.rest(log.at_line_start());
      continue;
    }
    if (attempts.now() > 0) {
      METIER_TRY(run, read_run(command, project, uid));
      const auto before = attempts.now();
      if (attempts.over()) {
        live.rest(false);
        log.flush();
      }
      if (attempts.ended(run)) {
        if (attempts.now() != before) { offset = 0; }
        continue;
      }
    }
    if (is_final(state)) { break; }
    if (log.holding() && log.patient()) {
      ::poll(nullptr, 0, 20);
    } else {
      log.flush();
    }
  }
  command.session.interrupted = nullptr;
  live.rest(false);
  METIER_TRY(run, read_run(command, project, uid));
  log.end(end_of(run));
  return Followed{Ending::ended, std::move(run)};
}

}  // namespace metier::cli
