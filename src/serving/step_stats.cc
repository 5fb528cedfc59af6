#include "serving/step_stats.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstring>
#include <filesystem>
#include <numeric>

namespace metier::serving {

// One for each step, the file is an array of them.
struct StepStats::Cell {
  std::array<char, 8> magic;
  std::array<char, 64> name;
  std::uint64_t failures, sum_ns;
  std::array<std::uint64_t, StepCost::kBuckets> buckets;
};

namespace {

constexpr std::array<char, 8> kMagic = {'m', 's', 't', 'e', 'p', 's', '0', '1'};

std::size_t bucket_of(std::int64_t ns) {
  const auto micros = static_cast<std::uint64_t>(std::max<std::int64_t>(ns, 0)) / 1000;
  const auto width = static_cast<std::size_t>(std::bit_width(micros == 0 ? micros : micros - 1));
  return std::min(width, StepCost::kBuckets - 1);
}

void bump(std::uint64_t& value, std::uint64_t by) {
  const std::atomic_ref<std::uint64_t> cell(value);
  cell.store(cell.load(std::memory_order_relaxed) + by, std::memory_order_relaxed);
}

}  // namespace

std::uint64_t StepCost::count() const {
  return std::accumulate(buckets.begin(), buckets.end(), std::uint64_t{0});
}

void StepCost::add(std::int64_t ns, bool failed) {
  ++buckets[bucket_of(ns)];
  sum_ns += static_cast<std::uint64_t>(std::max<std::int64_t>(ns, 0));
  failures += failed ? 1 : 0;
}

double StepCost::bound(std::size_t i) { return static_cast<double>(std::uint64_t{1} << i) * 1e-6; }

Result<StepStats> StepStats::create(const std::string& path,
                                    const std::vector<std::string>& steps) {
  StepStats out;
  const std::size_t size = steps.size() * sizeof(Cell);
  const int file = ::open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
  void* at = MAP_FAILED;
  if (file >= 0 && ::ftruncate(file, static_cast<off_t>(size)) == 0) {
    at = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  }
  if (file >= 0) { ::close(file); }
  if (at == MAP_FAILED) {
    return fail(ErrorKind::unavailable, "step counters cannot be written to " + quote(path));
  }
  out.cells_ =
      std::shared_ptr<Cell>(static_cast<Cell*>(at), [size](Cell* cells) { ::munmap(cells, size); });
  out.count_ = steps.size();
  for (std::size_t i = 0; i < steps.size(); ++i) {
    Cell& cell = out.cells_.get()[i];
    std::memcpy(cell.name.data(), steps[i].data(), std::min(steps[i].size(), cell.name.size() - 1));
    cell.magic = kMagic;
  }
  return out;
}

void StepStats::add(std::size_t step, std::int64_t ns, bool failed) {
  if (step >= count_) { return; }
  Cell& cell = cells_.get()[step];
  bump(cell.buckets[bucket_of(ns)], 1);
  bump(cell.sum_ns, static_cast<std::uint64_t>(std::max<std::int64_t>(ns, 0)));
  if (failed) { bump(cell.failures, 1); }
}

std::vector<StepCost> read_step_stats(const std::string& folder) {
  std::vector<StepCost> out;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(folder, error)) {
    const int file = ::open(entry.path().c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    struct stat found{};
    if (file < 0 || ::fstat(file, &found) != 0 || !S_ISREG(found.st_mode) ||
        found.st_size > (16 << 20)) {
      if (file >= 0) { ::close(file); }
      continue;
    }
    std::vector<StepStats::Cell> cells(static_cast<std::size_t>(found.st_size) /
                                       sizeof(StepStats::Cell));
    const ssize_t size = ::read(file, cells.data(), cells.size() * sizeof(StepStats::Cell));
    ::close(file);
    if (size != static_cast<ssize_t>(cells.size() * sizeof(StepStats::Cell))) { continue; }
    for (StepStats::Cell& cell : cells) {
      if (cell.magic != kMagic) { continue; }
      cell.name.back() = '\0';
      const std::string name(cell.name.data());
      auto at = std::ranges::find(out, name, &StepCost::name);
      if (at == out.end()) {
        out.push_back({.name = name});
        at = std::prev(out.end());
      }
      at->failures += cell.failures;
      at->sum_ns += cell.sum_ns;
      for (std::size_t i = 0; i < StepCost::kBuckets; ++i) { at->buckets[i] += cell.buckets[i]; }
    }
  }
  return out;
}

}  // namespace metier::serving
