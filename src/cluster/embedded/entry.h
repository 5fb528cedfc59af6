// One pod of the embedded cluster, from its object's first sight to its folder's end. Private to it.
#pragma once

#include "cluster/embedded/embedded_cluster.h"

namespace metier {

struct EmbeddedCluster::Entry {
  enum class Stage {
    blocked,   // something it refers to is missing
    queued,    // waits in the scheduler
    placed,    // holds its resources, start not begun
    starting,  // the driver is asked
    live,      // the driver has it
    ended,     // terminal; the driver may still keep its folder
  };

  explicit Entry(Executor executor) : changed(executor) {}

  ResourceKey key;
  std::string uid;
  std::string owner;
  Labels labels;
  std::vector<std::string> containers;
  std::shared_ptr<const Pod> pod;  // shared with coroutines on their way; dropped at the end
  PodStatus status;
  PodHandle handle;
  Devices devices;
  std::string gang;  // id of its PodGroup
  std::string address;
  Stage stage = Stage::queued;
  ResourceKey blocked_on;
  std::optional<StopOptions> stop;     // wanted before the driver had it
  std::optional<StopOptions> removal;  // wanted: forget it after its end
  bool scheduled_before = false;       // its placement was durable before a crash
  bool driver_has = false;
  bool gone = false;  // its object is no longer in the store
  bool dirty = false;
  bool writing = false;
  bool removing = false;  // finish_removal is on its way
  Alarms::Id deadline = 0;
  Signal changed;  // its status or its log

  bool ended() const { return stage == Stage::ended; }
  bool unwanted() const { return stop.has_value() || removal.has_value() || gone; }
};

// What we keep in a pod's status besides Kubernetes' fields.
Json status_document(const PodStatus& status, const PodHandle& handle, const Devices& devices);
void read_status_document(const Json& document, PodStatus& status, PodHandle& handle,
                          Devices& devices);

}  // namespace metier
