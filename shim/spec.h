// What the shim starts. The spec is a sequence of netstrings ("5:hello,"), key and value in turn, after the
// key "metier-pod-spec" with the value "1". A key that opens a section ("container", "mount") names the
// thing; the keys after it belong to it. Unknown keys are refused: an old shim never half-obeys a new spec.
#pragma once

#include "text.h"

namespace shim {

constexpr std::size_t kMaxSpec = 4U << 20U;
constexpr std::size_t kMaxContainers = 64;

struct Mount {
  const char* source = "";
  const char* sub_path = "";  // below the source, never out of it
  const char* target = "";
  bool read_only = false;
  const char* container = "";  // empty: every container
};

struct Rlimit {
  int resource = 0;
  unsigned long long soft = 0;
  unsigned long long hard = 0;
};

struct Container {
  const char* name = "";
  bool init = false;
  List<const char*>* args = nullptr;  // null-terminated by finish()
  List<const char*>* env = nullptr;   // "NAME=value", null-terminated
  const char* cwd = "/";
  const char* log = "log";
};

enum class Restart { never, on_failure, always };

struct Spec {
  const char* id = "";
  Restart restart = Restart::never;
  std::int64_t grace_ms = 30'000;
  std::int64_t deadline_ms = 0;  // 0: none
  std::int64_t backoff_ms = 10'000;
  bool mount_namespace = false;
  bool user_namespace = false;
  const char* hostname = "";  // not empty: a UTS namespace
  bool has_identity = false;  // uid, gid and groups are set
  unsigned uid = 0;
  unsigned gid = 0;
  List<unsigned> groups;
  unsigned umask = 022;
  List<const char*> cgroups;     // files cgroup.procs: v1 one per controller, v2 one
  const char* cgroup_kill = "";  // file cgroup.kill (v2)
  const char* oom_file = "";     // memory.oom_control or memory.events
  const char* oom_score = "";    // text for /proc/self/oom_score_adj of the pod's processes
  const char* gang = "";         // folder of its gang: not empty: the pod takes ranks there
  const char* member = "";       // its name in the gang
  List<Mount> mounts;
  List<Rlimit> rlimits;
  List<Container> containers;  // init containers first
};

// The reason in `why` when it returns false. The texts of `spec` live in a buffer that is never freed.
bool read_spec(int fd, Spec& spec, const char*& why);

}  // namespace shim
