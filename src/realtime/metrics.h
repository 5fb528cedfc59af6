// Counters and histograms of the hot path (written by one thread, read by the metrics thread) and their Prometheus text.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>

namespace metier::realtime {

// Written by one thread: a plain add that other threads may read.
class Counter final {
 public:
  void add(std::uint64_t n = 1) {
    value_.store(value_.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);
  }
  std::uint64_t value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<std::uint64_t> value_{0};
};

class Gauge final {
 public:
  void set(std::int64_t value) { value_.store(value, std::memory_order_relaxed); }
  void add(std::int64_t n) {
    value_.store(value_.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);
  }
  std::int64_t value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<std::int64_t> value_{0};
};

// Durations in buckets of powers of two from 1 µs to 137 s.
class Histogram final {
 public:
  static constexpr int kBuckets = 28;
  void observe_ns(std::int64_t ns);
  std::uint64_t count() const;
  // Upper bound of bucket i in seconds.
  static double bound(int i);
  std::uint64_t in_bucket(int i) const { return buckets_[static_cast<std::size_t>(i)].value(); }
  std::uint64_t sum_ns() const { return sum_ns_.value(); }

 private:
  std::array<Counter, kBuckets + 1> buckets_;
  Counter sum_ns_;
};

using Labels = std::initializer_list<std::pair<std::string_view, std::string_view>>;

// Prometheus' text form. HELP and TYPE appear once a name; labels that all samples share are given at the start.
class MetricsWriter final {
 public:
  explicit MetricsWriter(std::string common_labels) : common_(std::move(common_labels)) {}
  static std::string label(std::string_view name, std::string_view value);  // name="escaped"
  void counter(std::string_view name, std::string_view help, Labels labels, std::uint64_t value);
  void gauge(std::string_view name, std::string_view help, Labels labels, double value);
  void histogram(std::string_view name, std::string_view help, Labels labels, const Histogram& of);
  std::string take() { return std::move(text_); }

 private:
  void head(std::string_view name, std::string_view help, std::string_view type);
  void sample(std::string_view name, std::string_view suffix, Labels labels, std::string_view extra,
              std::string_view value);
  std::string common_;
  std::string text_;
};

}  // namespace metier::realtime
