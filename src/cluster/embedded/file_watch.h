// Tells when a file grows, by inotify: nobody polls. All calls on the loop's thread.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/async.h"

namespace metier {

class FileWatch final {
 public:
  explicit FileWatch(Executor executor);
  ~FileWatch();
  FileWatch(const FileWatch&) = delete;
  FileWatch& operator=(const FileWatch&) = delete;

  // Calls `changed` after each write to the file until the handle dies. Errors: not_found (no such file
  // yet), unavailable (the limit fs.inotify.max_user_watches).
  Result<std::shared_ptr<void>> watch(const std::string& path, std::function<void()> changed);

 private:
  struct State;
  std::shared_ptr<State> state_;  // shared with the pending read and the handles
};

}  // namespace metier
