#include "spec.h"

#include <sys/stat.h>
#include <unistd.h>
#include <cstdlib>
#include <cstring>
#include <new>

namespace shim {
namespace {

// The next netstring, ended by NUL in place; null at the end or when it is damaged.
const char* next(char*& at, const char* end) {
  std::size_t size = 0;
  int digits = 0;
  while (at < end && *at >= '0' && *at <= '9' && digits < 8) {
    size = size * 10 + static_cast<std::size_t>(*at - '0');
    ++at;
    ++digits;
  }
  if (digits == 0 || at >= end || *at != ':') { return nullptr; }
  ++at;
  if (size >= static_cast<std::size_t>(end - at) || at[size] != ',') { return nullptr; }
  const char* text = at;
  at[size] = '\0';
  if (std::memchr(text, '\0', size) != nullptr) { return nullptr; }
  at += size + 1;
  return text;
}

template <class T>
T* make() {
  return new (grown(nullptr, sizeof(T))) T();
}

bool set_container(Container& container, const char* key, const char* value) {
  if (equal(key, "arg")) {
    container.args->push() = value;
    return true;
  }
  if (equal(key, "env")) {
    container.env->push() = value;
    return true;
  }
  if (equal(key, "cwd")) {
    container.cwd = value;
    return true;
  }
  if (equal(key, "log")) {
    container.log = value;
    return true;
  }
  return false;
}

bool set_mount(Mount& mount, const char* key, const char* value) {
  if (equal(key, "source")) {
    mount.source = value;
    return true;
  }
  if (equal(key, "sub_path")) {
    mount.sub_path = value;
    return true;
  }
  if (equal(key, "target")) {
    mount.target = value;
    return true;
  }
  if (equal(key, "read_only")) {
    mount.read_only = equal(value, "1");
    return true;
  }
  if (equal(key, "of")) {
    mount.container = value;
    return true;
  }
  return false;
}

bool set_rlimit(Spec& spec, const char* value) {
  char* rest = nullptr;
  auto& limit = spec.rlimits.push();
  limit.resource = static_cast<int>(std::strtol(value, &rest, 10));
  limit.soft = std::strtoull(rest, &rest, 10);
  limit.hard = std::strtoull(rest, &rest, 10);
  return *rest == '\0';
}

bool set_pod(Spec& spec, const char* key, const char* value) {
  if (equal(key, "id")) {
    spec.id = value;
    return true;
  }
  if (equal(key, "restart")) {
    spec.restart = equal(value, "always")       ? Restart::always
                   : equal(value, "on_failure") ? Restart::on_failure
                                                : Restart::never;
    return true;
  }
  if (equal(key, "grace_ms")) {
    spec.grace_ms = number_of(value);
    return true;
  }
  if (equal(key, "deadline_ms")) {
    spec.deadline_ms = number_of(value);
    return true;
  }
  if (equal(key, "backoff_ms")) {
    spec.backoff_ms = number_of(value);
    return true;
  }
  if (equal(key, "mount_namespace")) {
    spec.mount_namespace = equal(value, "1");
    return true;
  }
  if (equal(key, "user_namespace")) {
    spec.user_namespace = equal(value, "1");
    return true;
  }
  if (equal(key, "hostname")) {
    spec.hostname = value;
    return true;
  }
  if (equal(key, "uid")) {
    spec.uid = static_cast<unsigned>(number_of(value));
    spec.has_identity = true;
    return true;
  }
  if (equal(key, "gid")) {
    spec.gid = static_cast<unsigned>(number_of(value));
    return true;
  }
  if (equal(key, "group")) {
    spec.groups.push() = static_cast<unsigned>(number_of(value));
    return true;
  }
  if (equal(key, "umask")) {
    spec.umask = static_cast<unsigned>(number_of(value));
    return true;
  }
  if (equal(key, "cgroup")) {
    spec.cgroups.push() = value;
    return true;
  }
  if (equal(key, "cgroup_kill")) {
    spec.cgroup_kill = value;
    return true;
  }
  if (equal(key, "oom_file")) {
    spec.oom_file = value;
    return true;
  }
  if (equal(key, "oom_score")) {
    spec.oom_score = value;
    return true;
  }
  if (equal(key, "gang")) {
    spec.gang = value;
    return true;
  }
  if (equal(key, "member")) {
    spec.member = value;
    return true;
  }
  if (equal(key, "rlimit")) { return set_rlimit(spec, value); }
  return false;
}

bool load(int fd, char*& data, std::size_t& size) {
  struct stat info{};
  if (::fstat(fd, &info) != 0 || info.st_size <= 0 ||
      static_cast<std::size_t>(info.st_size) > kMaxSpec) {
    return false;
  }
  size = static_cast<std::size_t>(info.st_size);
  data = static_cast<char*>(grown(nullptr, size + 1));
  std::size_t got = 0;
  while (got < size) {
    const auto n = ::pread(fd, data + got, size - got, static_cast<off_t>(got));
    if (n <= 0) { return false; }
    got += static_cast<std::size_t>(n);
  }
  data[size] = '\0';
  return true;
}

}  // namespace

bool read_spec(int fd, Spec& spec, const char*& why) {
  char* at = nullptr;
  std::size_t size = 0;
  why = "spec: cannot be read, or is larger than 4 MiB";
  if (!load(fd, at, size)) { return false; }
  const char* end = at + size;
  const char* key = next(at, end);
  const char* value = key == nullptr ? nullptr : next(at, end);
  why = "spec: is not a version 1 spec";
  if (value == nullptr || !equal(key, "metier-pod-spec") || !equal(value, "1")) { return false; }
  enum class In { pod, container, mount } in = In::pod;
  while (at < end) {
    key = next(at, end);
    value = key == nullptr ? nullptr : next(at, end);
    why = "spec: damaged";
    if (value == nullptr) { return false; }
    if (equal(key, "container") || equal(key, "init_container")) {
      why = "spec: too many containers";
      if (spec.containers.size() == kMaxContainers) { return false; }
      auto& container = spec.containers.push();
      container.name = value;
      container.init = equal(key, "init_container");
      container.args = make<List<const char*>>();
      container.env = make<List<const char*>>();
      in = In::container;
      continue;
    }
    if (equal(key, "mount")) {
      spec.mounts.push();
      in = In::mount;
      continue;
    }
    why = *key == '\0' ? "spec: an empty key" : key;
    const bool known =
        in == In::container ? set_container(spec.containers[spec.containers.size() - 1], key, value)
        : in == In::mount   ? set_mount(spec.mounts[spec.mounts.size() - 1], key, value)
                            : set_pod(spec, key, value);
    if (!known) { return false; }
  }
  why = "spec: no container, or one without a command";
  if (spec.containers.size() == 0) { return false; }
  for (auto& container : spec.containers) {
    if (container.args->size() == 0) { return false; }
    container.args->push() = nullptr;
    container.env->push() = nullptr;
  }
  return true;
}

}  // namespace shim
