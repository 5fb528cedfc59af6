// The parts of a run that has several: its pods by role and the ranks in them.
#pragma once

#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "kind/kind.h"
#include "resource/pod.h"

namespace metier {

// The reason of pods that are stopped because their run has ended.
inline constexpr std::string_view kRunEnded = "RunEnded";

// "launcher", "driver", "worker-2", "rank-3": what `describe` shows and `logs --part` takes.
std::string part_name(const Part& part);
// Role and index of such a name; its pod is not known.
Part part_of_name(std::string_view name);

// CPU and memory of one pod at one time.
struct UsageSample {
  Time at{};
  std::int64_t cpu_us = 0;  // since its start
  std::int64_t memory = 0;  // bytes
};
using UsageByPod = std::map<std::string, std::vector<UsageSample>, std::less<>>;

// At most kMostSamples of a pod are kept: every second one goes when there are more.
inline constexpr std::size_t kMostSamples = 240;
void add_sample(std::vector<UsageSample>& samples, const UsageSample& sample);

// [{name, role, index, pod, container, state, reason, message, exit_code, signal, start_time, end_time, cpu_seconds,
// peak_memory, samples: [[seconds since start, cpu seconds, bytes]…]}]; a part whose pod is not known is "pending". Of a pod
// that other runs share, cpu_seconds is what it used since the first sample.
JsonArray parts_json(std::span<const Part> parts,
                     const std::map<ResourceKey, ResourceStatus>& resources,
                     const UsageByPod& usage);

// The same of a part whose pod was taken from the run while it went on: "removed", with what it had used.
JsonObject removed_part_json(const Part& part, const UsageByPod& usage);

// A run has ended and what it shared with others (a Dask cluster, a warm Spark) goes on: its parts that live are "released" and,
// for this run, over at `at`. Those whose pod was taken away are "removed".
void release_parts(JsonArray& parts, const std::map<ResourceKey, ResourceStatus>& resources,
                   Time at);

// Whether the state of a part is its last.
bool is_over(std::string_view part_state);

// How long a running run of several parts has been silent; set when that is longer than EngineOptions::silence.
struct Silence {
  std::optional<Duration> mute;  // nothing was printed
  std::optional<Duration> idle;  // and hardly any processor used
};

// The part of that name in what parts_json gave; null when there is none.
const JsonObject* find_part(const JsonArray& parts, std::string_view name);

}  // namespace metier
