// What each step of a graph has cost so far, in a file that a worker writes and its processor reads: nothing is sent, and what a worker
// counted outlives it.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace metier::serving {

struct StepCost {
  // Powers of two from 1 µs on, as realtime::Histogram has them; the last one is everything above.
  static constexpr std::size_t kBuckets = 29;
  std::string name;
  std::uint64_t failures = 0, sum_ns = 0;
  std::array<std::uint64_t, kBuckets> buckets{};
  std::uint64_t count() const;
  void add(std::int64_t ns, bool failed);
  // Upper bound of bucket i in seconds.
  static double bound(std::size_t i);
};

// Written by one thread at a time.
class StepStats {
 public:
  // A file of its own, made anew. Errors: unavailable.
  static Result<StepStats> create(const std::string& path, const std::vector<std::string>& steps);
  explicit operator bool() const { return cells_ != nullptr; }
  void add(std::size_t step, std::int64_t ns, bool failed);

  struct Cell;

 private:
  std::shared_ptr<Cell> cells_;  // unmapped by its last owner
  std::size_t count_ = 0;
};

// The sum over all files of a folder, in the order of the first one's steps. What is no such file is left out.
std::vector<StepCost> read_step_stats(const std::string& folder);

}  // namespace metier::serving
