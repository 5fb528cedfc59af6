#include "model/mpi_program.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <string_view>

namespace metier::mpi {
namespace {

using Words = std::vector<std::string>;

std::string_view name_of(std::string_view path) { return path.substr(path.rfind('/') + 1); }

// "python", "python3.11", "python3.13t".
bool is_python(std::string_view word) {
  const auto name = name_of(word);
  return name.starts_with("python") &&
         name.find_first_not_of("0123456789.td", 6) == std::string_view::npos;
}

// A module that lets no rank wait, or is no program of the user's.
bool ends_by_itself(std::string_view module) {
  return module == "mpi4py" || module == "mpi4py.run" || module == "metier_runner" ||
         module.starts_with("metier_runner.");
}

// `at` is where what is run begins: "-m", "-c" or a file.
Words with_guard(Words command, std::size_t at) {
  command.insert(command.begin() + static_cast<std::ptrdiff_t>(at), {"-m", "metier_runner.rank"});
  return command;
}

Words guarded_python(Words command) {
  for (std::size_t at = 1; at < command.size(); ++at) {
    const auto word = command[at];
    if (word == "--") {
      if (at + 1 >= command.size()) { return command; }
      command.erase(command.begin() + static_cast<std::ptrdiff_t>(at));
      return with_guard(std::move(command), at);
    }
    if (word == "--check-hash-based-pycs") {
      ++at;
      continue;
    }
    if (word == "-" || word.starts_with("--")) { return command; }
    if (!word.starts_with('-')) { return with_guard(std::move(command), at); }
    // One word may say several: "-uW".
    for (std::size_t i = 1; i < word.size(); ++i) {
      const char option = word[i];
      const bool last = i + 1 == word.size();
      if (option == 'W' || option == 'X') {
        if (last) { ++at; }
        break;
      }
      if (option == 'm' || option == 'c') {
        if (last && at + 1 >= command.size()) { return command; }
        const auto what = last ? command[at + 1] : word.substr(i + 1);
        if (option == 'm' && ends_by_itself(what)) { return command; }
        Words out(command.begin(), command.begin() + static_cast<std::ptrdiff_t>(at));
        if (i > 1) { out.push_back(word.substr(0, i)); }
        out.insert(out.end(), {"-m", "metier_runner.rank", std::string{'-', option}, what});
        out.insert(out.end(), command.begin() + static_cast<std::ptrdiff_t>(at + (last ? 2 : 1)),
                   command.end());
        return out;
      }
      if (std::string_view("bBdOPqRsSuv").find(option) == std::string_view::npos) {
        return command;
      }
    }
  }
  return command;
}

// The words that the kernel would start such a file with; empty: it does not begin with "#!", or may not be executed.
Words interpreter_of(const std::string& file) {
  if (::access(file.c_str(), X_OK) != 0) { return {}; }
  char head[256];
  const int fd = ::open(file.c_str(), O_RDONLY | O_CLOEXEC);
  const ssize_t n = fd < 0 ? -1 : ::read(fd, head, sizeof head);
  if (fd >= 0) { ::close(fd); }
  if (n < 3 || !std::string_view(head, 2).starts_with("#!")) { return {}; }
  std::string_view line(head + 2, static_cast<std::size_t>(n) - 2);
  line = line.substr(0, line.find('\n'));
  const auto trim = [](std::string_view text) {
    while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) {
      text.remove_prefix(1);
    }
    while (!text.empty() && (text.back() == ' ' || text.back() == '\t' || text.back() == '\r')) {
      text.remove_suffix(1);
    }
    return text;
  };
  line = trim(line);
  const auto end = std::min(line.find_first_of(" \t"), line.size());
  Words out{std::string(line.substr(0, end))};
  auto rest = trim(line.substr(end));                        // one word, whatever is in it
  if (name_of(out[0]) == "env" && rest.starts_with("-S")) {  // which env takes apart
    for (rest = trim(rest.substr(2)); !rest.empty();) {
      const auto next = std::min(rest.find_first_of(" \t"), rest.size());
      out.emplace_back(rest.substr(0, next));
      rest = trim(rest.substr(next));
    }
  } else if (!rest.empty()) {
    out.emplace_back(rest);
  }
  return out;
}

}  // namespace

Words guarded(Words command, const std::string& python) {
  if (name_of(command[0]) == "mlrun" && command.size() > 1) {
    Words out{python.empty() ? "python3" : python, "-m", "metier_runner.rank", "mlrun"};
    out.insert(out.end(), command.begin() + 1, command.end());
    return out;
  }
  if (is_python(command[0])) { return guarded_python(std::move(command)); }
  if (command[0].find('/') == std::string::npos) { return command; }
  auto words = interpreter_of(command[0]);
  if (words.empty()) { return command; }
  const std::size_t at = name_of(words[0]) == "env" ? 1 : 0;
  if (at >= words.size() || !is_python(words[at])) { return command; }
  Words before(words.begin(), words.begin() + static_cast<std::ptrdiff_t>(at));
  Words rest(words.begin() + static_cast<std::ptrdiff_t>(at), words.end());
  rest.insert(rest.end(), command.begin(), command.end());
  rest = guarded_python(std::move(rest));
  before.insert(before.end(), rest.begin(), rest.end());
  return before;
}

}  // namespace metier::mpi
