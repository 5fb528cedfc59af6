// Fires the cron triggers of functions: one tick per function whatever its replicas, at one of its processors, and a function at zero
// is woken by it. What a tick owes is on disk before it is sent. The rules:
// - Without a concurrencyPolicy ticks follow each other, and those that were missed (the handler was slow, the server was down) are one
//   tick at once. Forbid: a tick that comes while one runs is skipped. Allow: it runs beside it. Replace: what runs is cancelled.
// - A tick has an id, the event's. It is sent again, with the same id and to the same processor, until that answers; the processor
//   takes an id once. So a tick is repeated only when the processor that ran it ended before it answered.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/async.h"
#include "base/cron.h"
#include "base/digest.h"
#include "base/json.h"
#include "base/log.h"
#include "resource/resource.h"

namespace metier {

class CronTicks final {
 public:
  struct Processor {
    std::string pod;
    bool ready = false;
  };
  struct Calls {
    std::function<std::vector<Processor>(const ResourceKey& function)> processors;
    // One tick to one processor; the handler's status. Errors: unavailable, nobody answers (any more).
    std::function<Async<Result<int>>(const std::string& name_space, const std::string& pod,
                                     const std::string& trigger, const std::string& id,
                                     bool replace)>
        fire;
    std::function<void(const ResourceKey& function)> wake;  // a tick waits for a processor
  };
  CronTicks(Executor executor, const Clock& clock, Random& random, std::string folder, Calls calls,
            Logger log);

  // The function's triggers from now on; called again and again, also after a restart.
  void set(const ResourceKey& function, std::map<std::string, JsonObject> triggers);
  bool waiting(const ResourceKey& function) const;
  // Begins what is due, gives the time of the next tick. The timer calls it.
  std::optional<Time> look();
  void start();
  Async<void> close();

 private:
  struct Tick {
    std::string id;
    std::string pod;  // where it was sent; empty: nowhere yet
    bool replaces = false;
  };
  struct Entry {
    ResourceKey function;
    std::string trigger, file, spec;
    std::string policy;
    CronSchedule schedule;
    Time anchor{}, last{};  // `last`: ticks up to it are begun or skipped
    bool behind = false;    // one tick more when the running one ends
    bool gone = false;
    std::map<std::string, Tick> ticks;
  };
  using EntryRef = std::shared_ptr<Entry>;
  EntryRef entry_of(const ResourceKey& function, const std::string& trigger,
                    const JsonObject& attributes);
  void due(const EntryRef& entry);
  void begin(const EntryRef& entry, bool replace);
  void save(const Entry& entry);
  Async<void> deliver(EntryRef entry, std::string id);
  Async<void> run();

  Executor executor_;
  const Clock& clock_;
  Random& random_;
  std::string folder_;
  Calls calls_;
  Logger log_;
  Scope scope_;
  Signal changed_;
  std::map<std::pair<ResourceKey, std::string>, EntryRef> entries_;
  std::map<ResourceKey, int> waits_;
  std::size_t turn_ = 0;
  bool closing_ = false;
};

}  // namespace metier
