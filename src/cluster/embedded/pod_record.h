// Reads what a shim writes (`state`, `exit` and the notices of the same form) into a PodStatus.
#pragma once

#include <string>

#include "base/json.h"
#include "cluster/embedded/process_scan.h"
#include "resource/pod.h"

namespace metier {

struct PodRecord {
  PodStatus status;
  bool ended = false;
  int shim = 0;
  std::string boot;              // boot id of the kernel that it was written under
  std::vector<KnownMain> mains;  // of the running containers
};

// Errors: invalid. Terminal phases come from `exit` records only: a pod has ended when nothing of it runs.
Result<PodRecord> read_pod_record(std::string_view json);

// The record of a pod whose shim is gone: the last state that it wrote, ended for `reason`. Exit statuses that
// nobody can know stay out of it.
std::string lost_record(std::string_view last_state, const std::string& id, std::string_view reason,
                        std::string_view message, Time now);

std::string signal_name(int signal);  // "SIGSEGV"

}  // namespace metier
