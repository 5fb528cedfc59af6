// A look at every page of a large database after a server that did not stop cleanly: beside the work, on a thread of the
// lowest priority and a connection of its own, table by table (a long read would keep the log from being written back).
#pragma once

#include <atomic>
#include <functional>
#include <string>
#include <thread>

#include "base/result.h"

namespace metier {

class Database;

// Damage in one table with its indexes, or in the whole file when `table` is empty. Errors: invalid, code Damaged.
Result<void> quick_check(Database& database, const std::string& path, const std::string& table);

class WholeCheck final {
 public:
  // `damaged` is called on the thread, at most once.
  WholeCheck(std::string path, std::function<void(Error)> damaged);
  ~WholeCheck();  // interrupts it
  WholeCheck(const WholeCheck&) = delete;

 private:
  Result<void> look();

  std::string path_;
  std::function<void(Error)> damaged_;
  std::atomic<bool> stop_ = false;
  std::thread thread_;
};

}  // namespace metier
