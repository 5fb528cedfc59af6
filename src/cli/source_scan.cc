#include "cli/source_scan.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include "base/files.h"
#include "cli/arguments.h"

namespace metier::cli {
namespace {

namespace fs = std::filesystem;
constexpr std::size_t kMostCode = 8U << 20U;  // embedded in the function document

bool name_start(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
         static_cast<unsigned char>(c) >= 0x80;
}
bool name_char(char c) { return name_start(c) || (c >= '0' && c <= '9'); }

std::string_view name_at(std::string_view text) {
  std::size_t n = 0;
  while (n < text.size() && (n == 0 ? name_start(text[n]) : name_char(text[n]))) { ++n; }
  return text.substr(0, n);
}

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t' || text.front() == '\n' ||
                           text.front() == '\r')) {
    text.remove_prefix(1);
  }
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t' || text.back() == '\n' ||
                           text.back() == '\r')) {
    text.remove_suffix(1);
  }
  return text;
}

// Walks Python text skipping strings and comments; calls `see` for every other character with its position.
class Walker {
 public:
  explicit Walker(std::string_view text) : text_(text) {}

  // The position behind a string literal or comment that starts at `i`, else `i`.
  std::size_t skip(std::size_t i) const {
    const char c = text_[i];
    if (c == '#') { return std::min(text_.find('\n', i), text_.size()); }
    if (c != '"' && c != '\'') { return i; }
    const std::string triple(3, c);
    if (text_.substr(i, 3) == triple) {
      for (auto at = i + 3; at < text_.size(); ++at) {
        if (text_[at] == '\\') {
          ++at;
        } else if (text_.substr(at, 3) == triple) {
          return at + 3;
        }
      }
      return text_.size();
    }
    for (auto at = i + 1; at < text_.size(); ++at) {
      if (text_[at] == '\\') {
        ++at;
      } else if (text_[at] == c || text_[at] == '\n') {
        return at + 1;
      }
    }
    return text_.size();
  }

 private:
  std::string_view text_;
};

// The parameters between "(" at `open` and its ")".
void read_parameters(std::string_view text, std::size_t open, Found& out) {
  const Walker walker(text);
  int depth = 0;
  std::string piece;
  const auto finish_piece = [&] {
    auto part = trimmed(piece);
    if (part.starts_with("**")) { out.any_keyword = true; }
    const auto name = part.starts_with('*') ? std::string_view() : name_at(part);
    if (!name.empty() && !(out.parameters.empty() && name == "self")) {
      out.parameters.emplace_back(name);
    }
    piece.clear();
  };
  for (auto i = open; i < text.size(); ++i) {
    const auto after = walker.skip(i);
    if (after != i) {
      i = after - 1;
      continue;
    }
    const char c = text[i];
    if (c == '(' || c == '[' || c == '{') {
      if (depth++ > 0) { piece += c; }
    } else if (c == ')' || c == ']' || c == '}') {
      if (--depth == 0) {
        finish_piece();
        return;
      }
      piece += c;
    } else if (c == ',' && depth == 1) {
      finish_piece();
    } else {
      piece += c;
    }
  }
}

// One logical line that starts in the first column.
void read_statement(std::string_view text, std::size_t at, int line, Scan& out) {
  auto rest = text.substr(at, std::min(text.find('\n', at), text.size()) - at);
  if (rest.starts_with('@')) { return; }
  std::size_t skipped = 0;
  if (rest.starts_with("async ")) { skipped = 6; }
  const auto body = rest.substr(skipped);
  for (const std::string_view word : {"def ", "class "}) {
    if (!body.starts_with(word)) { continue; }
    auto from = word.size();
    while (from < body.size() && body[from] == ' ') { ++from; }
    const auto name = name_at(body.substr(from));
    if (name.empty()) { return; }
    Found found{.name = std::string(name), .line = line, .is_class = word[0] == 'c'};
    const auto open = text.find_first_of("(:", at + skipped + from + name.size());
    if (!found.is_class && open != std::string_view::npos && text[open] == '(') {
      read_parameters(text, open, found);
    }
    if (found.is_class) { found.any_keyword = true; }
    out.functions.push_back(std::move(found));
    return;
  }
  if (rest.starts_with("from ") || rest.starts_with("import ")) {
    if (rest.find(" import *") != std::string_view::npos) { out.open_ended = true; }
    // Names at the end of each item: "a as b" gives b.
    const auto import = rest.starts_with("from ") ? rest.find(" import ") : std::string_view::npos;
    const auto offset =
        import == std::string_view::npos ? std::min<std::size_t>(7, rest.size()) : import + 8;
    auto names = rest.substr(offset);
    if (trimmed(names).starts_with('(')) {  // names up to the closing bracket, over several lines
      const auto open = text.find('(', at + offset);
      names = text.substr(open + 1, std::min(text.find(')', open), text.size()) - open - 1);
    }
    if (names.ends_with('\\')) { out.open_ended = true; }
    while (!names.empty()) {
      const auto comma = std::min(names.find(','), names.size());
      auto item = trimmed(names.substr(0, comma));
      const auto as = item.find(" as ");
      if (as != std::string_view::npos) { item = trimmed(item.substr(as + 4)); }
      out.names.emplace_back(name_at(item));
      names.remove_prefix(std::min(comma + 1, names.size()));
    }
    return;
  }
  const auto name = name_at(rest);
  const auto next = trimmed(rest.substr(name.size()));
  if (!name.empty() && ((next.starts_with('=') && !next.starts_with("==")) ||
                        (next.starts_with(':') && next.find('=') != std::string_view::npos))) {
    out.names.emplace_back(name);
    return;
  }
  if (name == "try" || name == "if" || name == "else" || name == "except" || name == "finally" ||
      name == "with" || name == "for") {
    out.open_ended = out.open_ended ||
                     rest.find("__main__") == std::string_view::npos;  // definitions may be inside
  }
  if (rest.find("globals(") != std::string_view::npos || rest.starts_with("exec(")) {
    out.open_ended = true;
  }
  if (!rest.starts_with('"') && !rest.starts_with('\'')) { out.runs_something = true; }
}

Result<FileKind> kind_of_file(const std::string& path, const struct stat& info) {
  const auto suffix = fs::path(path).extension().string();
  if (suffix == ".py") { return FileKind::python; }
  if (suffix == ".ipynb") { return FileKind::notebook; }
  if (suffix == ".so") { return FileKind::library; }
  if (suffix == ".sh" || suffix == ".bash") { return FileKind::shell; }
  if (suffix == ".cc" || suffix == ".cpp" || suffix == ".cxx") {
    return fail(
        invalid("", path + ": is a source file of C++", "build it first: metier build " + path));
  }
  if (suffix == ".yaml" || suffix == ".yml" || suffix == ".json") {
    return fail(invalid("", path + ": is a function file", "run it with: metier run -f " + path));
  }
  if ((info.st_mode & 0111) != 0) { return FileKind::program; }
  if (suffix == ".R" || suffix == ".r") {
    return fail(invalid("",
                        path + ": is a program in R, which runs as an executable in kinds local "
                               "and job; kind spark runs Python, Java and Scala",
                        "begin it with #!/usr/bin/env Rscript and chmod +x it"));
  }
  return fail(invalid("", path + ": is neither Python, a shell script, a library nor executable",
                      "chmod +x it, or name the file with .py"));
}

Result<void> check_handler(const Target& target) {
  const auto& handler = target.handler;
  const auto shown = fs::path(target.path).filename().string();
  if (target.kind == FileKind::shell || target.kind == FileKind::program) {
    return fail(invalid("", fmt::format("{}: a program has no function {}", shown, quote(handler)),
                        "run it whole: metier run " + shown));
  }
  if (target.kind == FileKind::library) {
    auto bytes = read_file(target.path, 512U << 20U);
    if (bytes && bytes->find(handler) == std::string::npos) {
      return fail(Error{.kind = ErrorKind::invalid,
                        .message = fmt::format("{}: no function {}", shown, quote(handler)),
                        .code = "HandlerMissing"});
    }
    return {};
  }
  if (target.kind == FileKind::notebook) { return {}; }
  const auto first = std::string_view(handler).substr(0, handler.find('.'));
  std::vector<std::string> names;
  for (const auto& found : target.scan.functions) { names.push_back(found.name); }
  if (std::ranges::find(names, first) != names.end() ||
      std::ranges::find(target.scan.names, first) != target.scan.names.end() ||
      target.scan.open_ended) {
    return {};
  }
  std::string listed;
  for (std::size_t i = 0; i < names.size() && i < 10; ++i) {
    listed += (i == 0 ? "" : ", ") + names[i];
  }
  std::string fix = names.empty()
                        ? "this file defines no function; run it whole: metier run " + shown
                        : "functions in this file: " + listed;
  const auto close = nearest(first, names);
  if (close) { fix += fmt::format(". Run: metier run {}:{}", shown, *close); }
  return fail(Error{.kind = ErrorKind::invalid,
                    .message = fmt::format("{}: no function {}", shown, quote(handler)),
                    .fix = fix,
                    .code = "HandlerMissing"});
}

Result<void> split(std::string_view text, std::string& file, std::string& handler) {
  const auto slash = text.rfind('/');
  const auto from = slash == std::string_view::npos ? 0 : slash;
  const auto colon = text.find(':', from);
  file = text.substr(0, colon);
  if (file.empty()) {
    return fail(invalid("", quote(text) + " names no file", "write FILE:HANDLER"));
  }
  if (colon == std::string_view::npos) { return {}; }
  auto rest = text.substr(colon + 1);
  if (rest.starts_with(':')) { rest.remove_prefix(1); }
  handler = rest;
  // A name, or names joined by dots; it is looked up, never evaluated.
  bool fits = !rest.empty();
  for (std::size_t i = 0; i < rest.size(); ++i) {
    const bool first = i == 0 || rest[i - 1] == '.';
    fits = fits && (first ? name_start(rest[i])
                          : name_char(rest[i]) || (rest[i] == '.' && i + 1 < rest.size()));
  }
  if (!fits) {
    return fail(invalid("", fmt::format("{}: {} is not the name of a function", file, quote(rest)),
                        "write FILE:HANDLER"));
  }
  return {};
}

}  // namespace

Scan scan_python(std::string_view text) {
  Scan out;
  const Walker walker(text);
  int depth = 0;
  int line = 1;
  bool at_start = true;
  for (std::size_t i = 0; i < text.size();) {
    if (at_start && depth == 0 && text[i] != ' ' && text[i] != '\t' && text[i] != '\n' &&
        text[i] != '\r' && text[i] != '#') {
      read_statement(text, i, line, out);
    }
    at_start = false;
    const auto after = walker.skip(i);
    if (after != i) {
      line += static_cast<int>(std::count(text.begin() + static_cast<std::ptrdiff_t>(i),
                                          text.begin() + static_cast<std::ptrdiff_t>(after), '\n'));
      at_start = after > 0 && after <= text.size() && text[after - 1] == '\n';
      i = after;
      continue;
    }
    const char c = text[i];
    if (c == '(' || c == '[' || c == '{') { ++depth; }
    if (c == ')' || c == ']' || c == '}') { depth = std::max(depth - 1, 0); }
    if (c == '\\' && i + 1 < text.size() &&
        text[i + 1] == '\n') {  // a continued line starts no statement
      ++line;
      i += 2;
      continue;
    }
    if (c == '\n') {
      ++line;
      at_start = true;
    }
    ++i;
  }
  return out;
}

Result<Target> find_target(std::string_view text) {
  Target out;
  std::string file;
  METIER_CHECK(split(text, file, out.handler));
  struct stat info{};
  if (::stat(file.c_str(), &info) != 0) {
    if (errno == ENOENT || errno == ENOTDIR) {
      return fail(Error{.kind = ErrorKind::not_found,
                        .message = file + ": no such file",
                        .fix = "the path is relative to the current folder"});
    }
    auto error = errno_error(file, errno);
    error.kind = ErrorKind::invalid;
    return fail(std::move(error));
  }
  if (S_ISDIR(info.st_mode)) {
    return fail(invalid("", file + ": is a folder", "name a file in it"));
  }
  if (!S_ISREG(info.st_mode)) {
    return fail(
        invalid("", file + ": is not a regular file (a FIFO, device or socket)", "name a file"));
  }
  std::error_code ec;
  out.path = fs::absolute(file, ec).lexically_normal().string();
  METIER_TRY(kind, kind_of_file(file, info));
  out.kind = kind;
  if (::access(file.c_str(), R_OK) != 0) {
    auto error = errno_error(file, errno);
    error.kind = ErrorKind::invalid;
    return fail(std::move(error));
  }
  if (kind == FileKind::python || kind == FileKind::notebook) {
    if (static_cast<std::uint64_t>(info.st_size) > kMostCode) {
      return fail(invalid("", fmt::format("{}: is larger than {} MiB", file, kMostCode >> 20U),
                          "code travels with the function; keep data in other files"));
    }
    METIER_TRY(content, read_file(file, kMostCode));
    out.text = std::move(content);
    if (kind == FileKind::python) { out.scan = scan_python(out.text); }
  }
  if (!out.handler.empty()) { METIER_CHECK(check_handler(out)); }
  return out;
}

}  // namespace metier::cli
