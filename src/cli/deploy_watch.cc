// `metier deploy --watch`: deploys again whenever what it was made of has changed, and shows what the function prints.
#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <map>

#include "cli/deploy.h"
#include "cli/follow.h"

namespace metier::cli {
namespace {

namespace fs = std::filesystem;
constexpr int kLookMs = 300;
constexpr std::size_t kMostFiles = 2000;  // of a folder; what is behind them is not watched

std::string named_file(const Arguments& arguments) {
  if (arguments.words().empty()) { return arguments.value("--file"); }
  const auto& target = arguments.words()[0];  // FILE, FILE:HANDLER or FILE::HANDLER
  std::error_code ec;
  if (fs::exists(target, ec)) { return target; }
  auto file = target.substr(0, target.rfind(':'));
  while (file.ends_with(':')) { file.pop_back(); }
  return file;
}

// What tells that a file was written: content is not read, editors write by rename.
struct Look {
  std::int64_t changed_ns = 0;
  std::int64_t size = 0;
  ino_t inode = 0;
  bool operator==(const Look&) const = default;
};
using Looks = std::map<std::string, Look>;

void look_at(const std::string& file, Looks& out) {
  struct stat about{};
  if (file.empty() || ::stat(file.c_str(), &about) != 0) { return; }
  std::error_code ec;
  out[fs::absolute(file, ec).lexically_normal().string()] = {
      about.st_mtim.tv_sec * 1'000'000'000 + about.st_mtim.tv_nsec, about.st_size, about.st_ino};
}

// The files that are named, and the Python files of the folder that goes along with the function.
Looks look(const Arguments& arguments) {
  Looks out;
  const auto named = named_file(arguments);
  look_at(named, out);
  look_at(arguments.value("--requirements"), out);
  if (arguments.has("--no-context")) { return out; }
  std::error_code ec;
  const auto folder = fs::absolute(named, ec).parent_path();
  for (fs::recursive_directory_iterator
           at(folder, fs::directory_options::skip_permission_denied, ec),
       end;
       !ec && at != end && out.size() < kMostFiles; at.increment(ec)) {
    const auto name = at->path().filename().string();
    if (at->is_directory(ec) && (name.starts_with('.') || name == "__pycache__")) {
      at.disable_recursion_pending();
    } else if (name.ends_with(".py")) {
      look_at(at->path().string(), out);
    }
  }
  return out;
}

bool named_file_is_there(const Arguments& arguments) {
  return ::access(named_file(arguments).c_str(), R_OK) == 0;
}

// "hello.py, helpers.py"
std::string changed_names(const Looks& before, const Looks& now) {
  std::string out;
  int more = 0;
  const auto add = [&](const std::string& file) {
    if (out.size() > 60) {
      ++more;
      return;
    }
    out += (out.empty() ? "" : ", ") + fs::path(file).filename().string();
  };
  for (const auto& [file, seen] : now) {
    const auto old = before.find(file);
    if (old == before.end() || old->second != seen) { add(file); }
  }
  for (const auto& [file, seen] : before) {
    if (!now.contains(file)) { add(file); }
  }
  return more == 0 ? out : fmt::format("{} and {} more", out, more);
}

// Waits until files have changed and rest; false when Ctrl-C ended it. Meanwhile it shows what the function prints.
Result<bool> wait_for_change(Command& command, FunctionLogs* logs, Looks& before) {
  const InterruptCounter counter;
  const Interruptible interruptible(command.session, counter);
  Looks now = before;
  while (counter.count() == 0) {
    if (logs != nullptr) {
      auto step = logs->step(false);
      if (!step && step.error().kind == ErrorKind::cancelled) { break; }
      if (!step && step.error().kind != ErrorKind::not_found) {
        return fail(std::move(step).error());
      }
    }
    ::poll(nullptr, 0, kLookMs);
    Looks next = look(command.arguments);
    const bool rests = next == now;
    now = std::move(next);
    // A file that is written, or replaced by its new self, is not read half.
    if (now == before || !rests || !named_file_is_there(command.arguments)) { continue; }
    command.screen.say(command.screen.paint(Role::aside, changed_names(before, now) + " changed"));
    before = std::move(now);
    return true;
  }
  return false;
}

}  // namespace

Result<int> watch_deploy(Command& command, const DeployOnce& deploy_once) {
  if (command.arguments.has("--detach")) {
    return fail(invalid("--detach", "does not go with --watch", "leave one of them out"));
  }
  auto& screen = command.screen;
  std::string name;
  std::unique_ptr<FunctionLogs> logs;
  Looks before = look(command.arguments);
  // The first one fails at once when nothing could ever come of it: no such file, an unknown flag.
  if (!named_file_is_there(command.arguments)) {
    METIER_TRY(failed, deploy_once(name));
    return failed;
  }
  while (true) {
    auto done = deploy_once(name);
    if (done && *done == 130) { return 130; }
    if (!done) {
      // A broken save is not the end: what was deployed before goes on answering.
      if (done.error().kind == ErrorKind::unavailable || done.error().kind == ErrorKind::internal) {
        return fail(std::move(done).error());
      }
      screen.error(done.error());
    }
    screen.say(screen.paint(Role::aside, "watching; Ctrl-C ends this, the function stays"));
    if (!logs && !name.empty()) {
      logs = std::make_unique<FunctionLogs>(command, name, LogView{.tail = done ? -1 : 0});
    }
    METIER_TRY(changed, wait_for_change(command, logs.get(), before));
    if (!changed) {
      screen.say(name.empty()
                     ? "nothing was deployed"
                     : fmt::format("{0} stays deployed: metier delete {0} removes it", name));
      return 130;
    }
  }
}

}  // namespace metier::cli
