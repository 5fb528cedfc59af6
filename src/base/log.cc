#include "base/log.h"

#include <unistd.h>

#include <array>

#include "base/clock.h"

namespace metier {
namespace {

class FdSink final : public LogSink {
 public:
  FdSink(int fd, LogLevel least) : fd_(fd), least_(least) {}
  void write(LogLevel level, std::string_view line) override {
    if (level < least_) { return; }
    // One write per line: lines of several threads do not mix on O_APPEND files and pipes up to 4 KiB.
    [[maybe_unused]] const auto n = ::write(fd_, line.data(), line.size());
  }

 private:
  int fd_;
  LogLevel least_;
};

}  // namespace

std::unique_ptr<LogSink> make_log_sink(int fd, LogLevel least) {
  return std::make_unique<FdSink>(fd, least);
}

Logger Logger::with(std::string_view key, Json value) const {
  Logger out = *this;
  out.fields_[key] = std::move(value);
  return out;
}

void Logger::write(LogLevel level, std::string_view message, LogFields fields) const {
  if (sink_ == nullptr) { return; }
  static constexpr std::array<std::string_view, 4> kNames{"debug", "info", "warn", "error"};
  JsonObject line;
  line["time"] = to_iso(system_clock().now());
  line["level"] = kNames[static_cast<std::size_t>(level)];
  line["message"] = message;
  for (const auto& [key, value] : fields_) { line[key] = value; }
  for (const auto& [key, value] : fields) { line[key] = value; }
  sink_->write(level, dump_json(Json(std::move(line))) + "\n");
}

}  // namespace metier
