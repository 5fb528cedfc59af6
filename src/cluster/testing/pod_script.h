// What a fake pod does, written as annotations of the pod, so that one test object means the same to
// FakeCluster, to FakePodDriver and (by its command) to real processes.
//   fake.metier.dev/run    how long: "at-once" (default), "until-stopped", "stubborn" (ignores graceful stops)
//   fake.metier.dev/exit   exit code (default 0)
//   fake.metier.dev/log    text of its log, written when it starts
//   fake.metier.dev/start  "fail": the driver cannot start it
#pragma once

#include <string>

#include "resource/resource.h"

namespace metier {

struct PodScript {
  enum class Run { at_once, until_stopped, stubborn };
  Run run = Run::at_once;
  int exit_code = 0;
  std::string log;
  bool start_fails = false;
};

PodScript pod_script_of(const ObjectMeta& metadata);

}  // namespace metier
