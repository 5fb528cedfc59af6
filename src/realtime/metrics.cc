#include "realtime/metrics.h"

#include <fmt/format.h>

#include <bit>

namespace metier::realtime {

void Histogram::observe_ns(std::int64_t ns) {
  const auto us = static_cast<std::uint64_t>(ns < 0 ? 0 : ns / 1000);
  const auto bucket = static_cast<std::size_t>(
      std::bit_width(us == 0 ? us : us - 1));  // ≤ 1 µs: 0, ≤ 2: 1, ≤ 4: 2 …
  buckets_[std::min<std::size_t>(bucket, kBuckets)].add();
  sum_ns_.add(static_cast<std::uint64_t>(ns < 0 ? 0 : ns));
}

std::uint64_t Histogram::count() const {
  std::uint64_t total = 0;
  for (const Counter& bucket : buckets_) { total += bucket.value(); }
  return total;
}

double Histogram::bound(int i) {
  return static_cast<double>(std::uint64_t{1} << static_cast<unsigned>(i)) * 1e-6;
}

std::string MetricsWriter::label(std::string_view name, std::string_view value) {
  std::string text = fmt::format("{}=\"", name);
  for (const char c : value) {
    if (c == '\\' || c == '"') { text += '\\'; }
    if (c == '\n') {
      text += "\\n";
    } else {
      text += c;
    }
  }
  return text + '"';
}

void MetricsWriter::head(std::string_view name, std::string_view help, std::string_view type) {
  const std::string line = fmt::format("# TYPE {} {}\n", name, type);
  if (text_.find(line) == std::string::npos) {
    text_ += fmt::format("# HELP {} {}\n{}", name, help, line);
  }
}

void MetricsWriter::sample(std::string_view name, std::string_view suffix, Labels labels,
                           std::string_view extra, std::string_view value) {
  std::string all = common_;
  for (const auto& [key, text] : labels) { all += (all.empty() ? "" : ",") + label(key, text); }
  if (!extra.empty()) {
    if (!all.empty()) { all += ','; }
    all += extra;
  }
  text_ += fmt::format("{}{}{{{}}} {}\n", name, suffix, all, value);
}

void MetricsWriter::counter(std::string_view name, std::string_view help, Labels labels,
                            std::uint64_t value) {
  head(name, help, "counter");
  sample(name, "", labels, {}, fmt::format("{}", value));
}

void MetricsWriter::gauge(std::string_view name, std::string_view help, Labels labels,
                          double value) {
  head(name, help, "gauge");
  sample(name, "", labels, {}, fmt::format("{}", value));
}

void MetricsWriter::histogram(std::string_view name, std::string_view help, Labels labels,
                              const Histogram& of) {
  head(name, help, "histogram");
  std::uint64_t total = 0;
  for (int i = 0; i < Histogram::kBuckets; ++i) {
    total += of.in_bucket(i);
    sample(name, "_bucket", labels, fmt::format("le=\"{}\"", Histogram::bound(i)),
           fmt::format("{}", total));
  }
  total += of.in_bucket(Histogram::kBuckets);
  sample(name, "_bucket", labels, "le=\"+Inf\"", fmt::format("{}", total));
  sample(name, "_sum", labels, {}, fmt::format("{}", static_cast<double>(of.sum_ns()) * 1e-9));
  sample(name, "_count", labels, {}, fmt::format("{}", total));
}

}  // namespace metier::realtime
