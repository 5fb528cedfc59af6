#include "base/failpoint.h"

#ifdef METIER_FAILPOINTS_ENABLED

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace metier {
namespace {

struct Term {
  long left = -1;  // how often it is used; -1 = for ever
  std::string action;
  std::string argument;
};

Term parse_term(std::string text) {
  Term term;
  if (const auto star = text.find('*'); star != std::string::npos) {
    term.left = std::atol(text.substr(0, star).c_str());
    text = text.substr(star + 1);
  }
  if (const auto open = text.find('('); open != std::string::npos) {
    term.argument = text.substr(open + 1, text.rfind(')') - open - 1);
    text = text.substr(0, open);
  }
  term.action = text;
  return term;
}

class Table {
 public:
  Table() {
    const char* text = std::getenv("METIER_FAILPOINTS");
    for (std::string rest = text == nullptr ? "" : text; !rest.empty();) {
      const auto end = rest.find(';');
      const auto entry = rest.substr(0, end);
      rest = end == std::string::npos ? "" : rest.substr(end + 1);
      const auto equals = entry.find('=');
      if (equals == std::string::npos) { continue; }
      auto& terms = points_[entry.substr(0, equals)];
      for (std::string chain = entry.substr(equals + 1); !chain.empty();) {
        const auto arrow = chain.find("->");
        terms.push_back(parse_term(chain.substr(0, arrow)));
        chain = arrow == std::string::npos ? "" : chain.substr(arrow + 2);
      }
    }
    if (const char* log = std::getenv("METIER_FAILPOINTS_LOG")) { log_ = log; }
  }

  Term next(std::string_view name) {
    const std::lock_guard lock(mutex_);
    if (!log_.empty() && ++reached_[std::string(name)] == 1) {
      const int fd = ::open(log_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
      const std::string line = std::string(name) + "\n";
      [[maybe_unused]] const auto n = ::write(fd, line.data(), line.size());
      ::close(fd);
    }
    const auto found = points_.find(name);
    if (found == points_.end()) { return {}; }
    for (auto& term : found->second) {
      if (term.left == 0) { continue; }
      if (term.left > 0) { --term.left; }
      return term;
    }
    return {};
  }

 private:
  std::mutex mutex_;
  std::map<std::string, std::vector<Term>, std::less<>> points_;
  std::map<std::string, int> reached_;
  std::string log_;
};

}  // namespace

std::optional<Error> reach_failpoint(std::string_view name) {
  static Table table;
  const auto term = table.next(name);
  if (term.action == "kill") {
    ::kill(::getpid(), SIGKILL);
    ::pause();
  } else if (term.action == "exit") {
    ::_exit(std::atoi(term.argument.c_str()));
  } else if (term.action == "delay") {
    std::this_thread::sleep_for(std::chrono::milliseconds(std::atol(term.argument.c_str())));
  } else if (term.action == "error") {
    return Error{.kind = ErrorKind::unavailable,
                 .message = "failpoint " + std::string(name) + ": " + term.argument};
  }
  return std::nullopt;
}

}  // namespace metier

#endif
