// The template process of one Python function (python/worker/metier_worker/template.py): imports the user's module once, forks workers.
// The first may have been forked from an interpreter of the node before this program began (METIER_TEMPLATE, metier_runner/processor.py).
#pragma once

#include <sys/types.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/files.h"
#include "base/json.h"
#include "base/log.h"
#include "realtime/loop.h"
#include "realtime/processor_config.h"

namespace metier::realtime {

class PythonTemplate final : public Watched {
 public:
  struct Started {
    bool native = true;  // the extension could be loaded
    bool cold = false;   // the module left threads after its import: workers import it themselves
    std::int64_t import_ms = 0;
  };
  struct Calls {
    std::function<void(Result<Started>)> ready;  // also after a restart
    std::function<void(int worker, pid_t pid)> forked;
    std::function<void(pid_t pid, int status)> exited;
    std::function<void()> died;
  };
  PythonTemplate(Loop& loop, const ProcessorConfig& config, Logger log, Calls calls);
  ~PythonTemplate() override;

  Result<void> start();
  bool is_ready() const { return ready_; }
  pid_t pid() const { return pid_; }
  // `fds`: segment, out eventfd, in eventfd, socket.
  Result<void> fork(int worker, const JsonObject& spec, const std::vector<int>& fds);
  void reap(pid_t pid);
  void stop();  // its end of the control socket closes; waits for it

  void on_ready(std::uint32_t events) noexcept override;

 private:
  Result<void> spawn(const std::string& folder, const std::vector<std::string>& environment);
  bool adopt();
  void receive();
  void ended();

  Loop& loop_;
  const ProcessorConfig& config_;
  Logger log_;
  Calls calls_;
  Fd control_;
  pid_t pid_ = -1;
  bool ready_ = false;
};

// The environment of a handler: the processor's own, the configuration's, Nuclio's names.
std::vector<std::string> handler_environment(const ProcessorConfig& config);

}  // namespace metier::realtime
