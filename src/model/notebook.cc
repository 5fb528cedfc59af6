#include "model/notebook.h"

#include <algorithm>
#include <optional>

#include "base/text.h"
#include "model/python_source.h"

namespace metier {
namespace {

// "# mlrun: WORD rest": the place of the mark and what stands behind the word.
struct Mark {
  std::size_t begin = 0;
  std::size_t end = 0;
  std::string name;
};

std::optional<Mark> find_mark(std::string_view code, std::string_view word) {
  for (std::size_t at = code.find('#'); at != std::string_view::npos; at = code.find('#', at + 1)) {
    std::string_view rest = trim(code.substr(at + 1, code.find('\n', at) - at - 1));
    if (!rest.starts_with("mlrun:") && !rest.starts_with("nuclio:")) { continue; }
    rest = trim(rest.substr(rest.find(':') + 1));
    if (!rest.starts_with(word)) { continue; }
    const std::string_view behind = trim(rest.substr(word.size()));
    const std::size_t line_end = std::min(code.find('\n', at), code.size());
    const std::size_t line_start =
        code.rfind('\n', at) == std::string_view::npos ? 0 : code.rfind('\n', at) + 1;
    return Mark{.begin = line_start,
                .end = line_end,
                .name = std::string(behind.substr(0, behind.find(' ')))};
  }
  return std::nullopt;
}

std::string source_of(const JsonObject& cell) {
  if (const JsonArray* lines = array_in(cell, "source")) {
    std::string out;
    for (const Json& line : *lines) {
      out += line.is_string() ? std::string_view(line.get_string()) : std::string_view{};
    }
    return out;
  }
  return std::string(string_in(cell, "source"));
}

bool has_tag(const JsonObject& cell, const std::vector<std::string>& ignored) {
  const JsonObject* metadata = object_in(cell, "metadata");
  const JsonArray* tags = metadata == nullptr ? nullptr : array_in(*metadata, "tags");
  return tags != nullptr && std::ranges::any_of(*tags, [&](const Json& tag) {
           return tag.is_string() &&
                  (tag.get_string() == "mlrun-ignore" || tag.get_string() == "nuclio-ignore" ||
                   std::ranges::find(ignored, std::string_view(tag.get_string())) != ignored.end());
         });
}

class Reader {
 public:
  explicit Reader(std::string_view name, const std::vector<std::string>& ignored)
      : name_(name), ignored_(ignored) {}

  Result<void> cell(const JsonObject& cell) {
    std::string code = source_of(cell);
    if (find_mark(code, "ignore") || has_tag(cell, ignored_)) { return {}; }
    if (const auto mark = find_mark(code, "start-code"); mark && ours(*mark)) {
      if (started_ && !ended_) {
        return fail(invalid("", "two start-code marks without an end-code between them"));
      }
      if (!started_) {
        out_.code.clear();  // what came before does not belong to the function
      }
      started_ = true;
      ended_ = false;
      code = code.substr(mark->end);
    }
    bool ends = false;
    if (const auto mark = find_mark(code, "end-code"); mark && ours(*mark)) {
      code = code.substr(0, mark->begin);
      ends = true;
    }
    METIER_TRY(kept, without_magics(code));
    if (!ended_ && !trim(kept).empty()) {
      while (!kept.empty() && kept.back() == '\n') { kept.pop_back(); }
      kept.erase(0, kept.find_first_not_of('\n'));
      out_.code += kept + "\n\n";
    }
    ended_ = ended_ || ends;
    started_ = started_ || ends;
    return {};
  }

  NotebookCode take() && { return std::move(out_); }

 private:
  bool ours(const Mark& mark) const { return mark.name.empty() || mark.name == name_; }

  Result<std::string> without_magics(std::string_view code) {
    std::string kept;
    std::string cell_command;
    for (const std::string& line : split_text(code, '\n')) {
      const std::string_view text = trim(line);
      if (text.starts_with("%%nuclio")) {
        const std::string rest(trim(text.substr(8)));
        cell_command = rest.substr(0, rest.find(' '));
        kept.clear();
        if (rest.size() > cell_command.size()) {
          METIER_CHECK(
              command(cell_command, trim(std::string_view(rest).substr(cell_command.size()))));
        }
      } else if (!cell_command.empty()) {
        METIER_CHECK(command(cell_command, text));
      } else if (text.starts_with("%nuclio")) {
        const std::string rest(trim(text.substr(7)));
        const std::string word = rest.substr(0, rest.find(' '));
        METIER_CHECK(command(word, trim(std::string_view(rest).substr(word.size()))));
      } else if (!line.starts_with('!') && !line.starts_with('%')) {
        kept += line + "\n";
      }
    }
    return kept;
  }

  Result<void> command(std::string_view word, std::string_view argument) {
    for (const std::string_view flag :
         {std::string_view("--config-only"), std::string_view("-c "),
          std::string_view("--local-only"), std::string_view("-l ")}) {
      if (argument.starts_with(flag)) {
        if (flag.starts_with("--local") || flag == "-l ") {
          return {};  // meant for the notebook alone
        }
        argument = trim(argument.substr(flag.size()));
      }
    }
    const std::size_t equals = argument.find('=');
    if (argument.empty()) { return {}; }
    if (word == "cmd") {
      out_.commands.emplace_back(argument);
    } else if (word == "env") {
      if (equals == std::string_view::npos) {
        return fail(invalid("%nuclio env", quote(argument) + " has no '='",
                            "write %nuclio env NAME=VALUE"));
      }
      out_.env.emplace_back(trim(argument.substr(0, equals)), trim(argument.substr(equals + 1)));
    } else if (word == "config") {
      if (equals == std::string_view::npos) {
        return fail(invalid("%nuclio config", quote(argument) + " has no '='",
                            "write %nuclio config KEY = VALUE"));
      }
      const std::string_view written = trim(argument.substr(equals + 1));
      auto literal = python_literal(written);
      out_.config[trim(argument.substr(0, equals))] = literal ? std::move(*literal) : Json(written);
    } else if (word == "handler") {
      out_.handler = argument;
    } else if (word != "env_file" && word != "mount" && word != "show" && word != "deploy" &&
               word != "build" && word != "add" && word != "help") {
      return fail(invalid("%nuclio", quote(word) + " is an unknown command",
                          "known here: cmd, config, env, handler"));
    }
    return {};
  }

  std::string name_;
  const std::vector<std::string>& ignored_;
  bool started_ = false;
  bool ended_ = false;
  NotebookCode out_;
};

}  // namespace

Result<NotebookCode> read_notebook(std::string_view text, std::string_view function_name,
                                   const std::vector<std::string>& ignored_tags) {
  METIER_TRY(notebook, parse_json(text, JsonLimits{.bytes = 64U << 20U}));
  const JsonArray* cells =
      notebook.is_object() ? array_in(notebook.get_object(), "cells") : nullptr;
  if (cells == nullptr) {
    return fail(
        invalid("", "not a notebook: it has no list of cells", "save it as notebook format 4"));
  }
  Reader reader(function_name, ignored_tags);
  for (const Json& cell : *cells) {
    if (cell.is_object() && string_in(cell.get_object(), "cell_type") == "code") {
      METIER_CHECK(reader.cell(cell.get_object()));
    }
  }
  NotebookCode out = std::move(reader).take();
  out.code.insert(0, "# Generated by nuclio.export.NuclioExporter\n\n");
  return out;
}

}  // namespace metier
