// The program's own log: one JSON line an event on stderr (or a file), facts as fields. Never user output.
#pragma once

#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "base/json.h"

namespace metier {

enum class LogLevel { debug, info, warn, error };

class LogSink {
 public:
  virtual ~LogSink() = default;
  virtual void write(LogLevel level, std::string_view line) = 0;  // thread-safe
};
// Lines at `least` or above to a descriptor that stays open.
std::unique_ptr<LogSink> make_log_sink(int fd, LogLevel least);

using LogFields = std::initializer_list<std::pair<std::string_view, Json>>;

// Cheap to copy; carries its fields. The sink outlives every logger.
class Logger final {
 public:
  Logger() = default;  // says nothing
  explicit Logger(LogSink* sink) : sink_(sink) {}
  Logger with(std::string_view key, Json value) const;
  void debug(std::string_view message, LogFields fields = {}) const {
    write(LogLevel::debug, message, fields);
  }
  void info(std::string_view message, LogFields fields = {}) const {
    write(LogLevel::info, message, fields);
  }
  void warn(std::string_view message, LogFields fields = {}) const {
    write(LogLevel::warn, message, fields);
  }
  void error(std::string_view message, LogFields fields = {}) const {
    write(LogLevel::error, message, fields);
  }

 private:
  void write(LogLevel level, std::string_view message, LogFields fields) const;
  LogSink* sink_ = nullptr;
  JsonObject fields_;
};

}  // namespace metier
