// Small files in the form of base/files.h: "METIER1 <size> <crc-32c>\n<body>", written under a temporary name
// and renamed; what must survive power loss is fsynced before, and the folder after. All names are relative to
// the pod's folder.
#pragma once

#include "text.h"

namespace shim {

enum class Durable { no, yes };
// 0 or errno.
int write_record(const char* name, const Text& body, Durable durable);

// The counter `oom_kill` of a cgroup's memory.oom_control or memory.events; 0 when there is none.
long long oom_kills(const char* file);
// Field 22 of /proc/PID/stat: with the boot id it tells a process from a later one of the same number.
long long start_ticks(int pid);
// Parent and state letter of a process, its name; false when it is gone.
bool process_facts(int pid, int& parent, char& state, char (&name)[32]);
const char* boot_id();

#ifdef METIER_FAILPOINTS_ENABLED
void failpoint(const char* name);  // dies here when METIER_SHIM_FAILPOINT names it
#else
inline void failpoint(const char*) {}
#endif

}  // namespace shim
