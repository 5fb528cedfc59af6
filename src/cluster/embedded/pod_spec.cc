#include "cluster/embedded/pod_spec.h"

#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <filesystem>

#include <fmt/format.h>

#include "resource/labels.h"

namespace metier {
namespace {

using Env = std::vector<std::pair<std::string, std::string>>;

constexpr std::string_view kPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

// Runs `flags` through unshare in a child; true when the kernel permits it.
bool may_unshare(int flags) {
  const pid_t child = ::fork();
  if (child == 0) {
    const bool done =
        ::unshare(flags) == 0 && ((flags & CLONE_NEWNS) == 0 ||
                                  ::mount(nullptr, "/", nullptr, MS_REC | MS_SLAVE, nullptr) == 0);
    ::_exit(done ? 0 : 1);
  }
  int status = 1;
  while (child > 0 && ::waitpid(child, &status, 0) < 0 && errno == EINTR) {}
  return child > 0 && status == 0;
}

const std::string* find(const Env& env, std::string_view name) {
  for (auto it = env.rbegin(); it != env.rend(); ++it) {
    if (it->first == name) { return &it->second; }
  }
  return nullptr;
}

void set_default(Env& env, std::string_view name, std::string value) {
  if (find(env, name) == nullptr) { env.emplace_back(name, std::move(value)); }
}

void replace(Env& env, std::string_view name, std::string value) {
  std::erase_if(env, [&](const auto& one) { return one.first == name; });
  env.emplace_back(name, std::move(value));
}

// Programs that a zygote can be: they are Python of the pod's own environment.
bool runs_dask(const std::vector<std::string>& args) {
  return args.size() > 1 && args[0] == "dask" && (args[1] == "scheduler" || args[1] == "worker");
}

// A processor of a Python function: the zygote forks its template (python/runner/metier_runner/processor.py).
bool runs_python_processor(const LaunchSpec& spec, const std::vector<std::string>& args) {
  return args.size() > 1 && args[1] == "processor" &&
         spec.pod.metadata.annotations.contains(kForkedTemplateAnnotation);
}

bool runs_runner(const std::vector<std::string>& args) {
  return !args.empty() && args[0] == "mlrun";
}

// Of the user that the pod runs as, as in a container: where programs keep caches and settings.
std::string home_of(const LaunchSpec& spec, const PodPaths& paths, const HostAbility& host) {
  const auto uid = spec.pod.run_as_user.value_or(host.uid);
  if (uid == 0) { return "/root"; }
  return uid == host.uid && !host.home.empty() ? host.home : paths.folder + "/work";
}

Env environment_of(const LaunchSpec& spec, const Container& container, const PodPaths& paths,
                   const HostAbility& host) {
  Env env;
  if (const auto it = spec.env.find(container.name); it != spec.env.end()) { env = it->second; }
  const auto* given = find(env, "PATH");
  auto path = given != nullptr ? *given : std::string(kPath);
  // An activated environment: its programs are found first.
  const auto bin = std::filesystem::path(spec.python).parent_path().string();
  if (!bin.empty() && !spec.host_process && bin != "/usr/bin") { path = bin + ":" + path; }
  if (!spec.path_suffix.empty()) { path += ":" + spec.path_suffix; }
  replace(env, "PATH", std::move(path));
  if (!paths.runner.empty()) {
    const auto* old = find(env, "PYTHONPATH");
    replace(env, "PYTHONPATH",
            old != nullptr && !old->empty() ? *old + ":" + paths.runner : paths.runner);
  }
  set_default(env, "METIER_POD_UID", spec.id);
  set_default(env, "METIER_POD_NAME", spec.pod.metadata.name);
  set_default(env, "METIER_JOURNAL", paths.folder + "/work/journal");
  if (!spec.pod_ip.empty()) { set_default(env, "METIER_POD_IP", spec.pod_ip); }
  if (!paths.gang.empty()) { replace(env, "METIER_GANG", paths.gang); }
  if (!spec.host_process) {
    set_default(env, "HOME", home_of(spec, paths, host));
    set_default(env, "TMPDIR", paths.folder + "/work/tmp");
  }
  return env;
}

Result<PlannedContainer> plan_container(const LaunchSpec& spec, const Container& container,
                                        bool init, bool first, const PodPaths& paths,
                                        const HostAbility& host) {
  PlannedContainer out{.name = container.name, .init = init};
  out.args = container.command;
  out.args.insert(out.args.end(), container.args.begin(), container.args.end());
  if (out.args.empty() || out.args[0].empty()) {
    return fail(invalid(fmt::format("spec.containers[{}].command", container.name),
                        "no command: an image's own entry point is not known on this machine",
                        "name the program in command or args"));
  }
  for (const auto& arg : out.args) {
    if (arg.find('\0') != std::string::npos) {
      return fail(invalid(fmt::format("spec.containers[{}].command", container.name),
                          "an argument holds a NUL byte"));
    }
  }
  out.env = environment_of(spec, container, paths, host);
  out.cwd = !container.working_dir.empty() ? container.working_dir
            : spec.host_process            ? "/"
                                           : paths.folder + "/work";
  out.log = log_name(container.name, first, 0);
  // Without an `mlrun` of ours on PATH the runner is reached as a module.
  if (runs_runner(out.args) && spec.path_suffix.empty() && !spec.python.empty()) {
    out.args.erase(out.args.begin());
    out.args.insert(out.args.begin(), {spec.python, "-m", "metier_runner"});
  }
  return out;
}

std::string volume_source(const LaunchVolume& volume, const PodPaths& paths) {
  if (!volume.path.empty()) { return volume.path; }
  if (volume.memory || !volume.files.empty()) { return paths.memory + "/" + volume.name; }
  return paths.folder + "/volumes/" + volume.name;
}

Result<void> plan_mounts(const LaunchSpec& spec, const PodPaths& paths, const HostAbility& host,
                         PodPlan& plan) {
  const auto of_container = [&](const Container& container) -> Result<void> {
    for (const auto& mount : container.mounts) {
      const auto volume = std::find_if(spec.volumes.begin(), spec.volumes.end(),
                                       [&](const auto& one) { return one.name == mount.name; });
      if (volume == spec.volumes.end()) {
        return fail(invalid(fmt::format("spec.containers[{}].volumeMounts", container.name),
                            fmt::format("there is no volume {}", quote(mount.name))));
      }
      PlannedMount planned{.source = volume_source(*volume, paths),
                           .sub_path = mount.sub_path,
                           .target = mount.mount_path,
                           .container = container.name,
                           .read_only = mount.read_only || volume->read_only};
      const bool in_place = planned.sub_path.empty() && planned.source == planned.target;
      if (!host.mount_namespace) {
        if (in_place && !planned.read_only) { continue; }
        return fail(
            Error{.kind = ErrorKind::unsupported,
                  .message = fmt::format(
                      "volume {} cannot be at {}: this host lets this user make no mount namespace",
                      quote(mount.name), quote(mount.mount_path)),
                  .field = fmt::format("spec.containers[{}].volumeMounts", container.name),
                  .fix = "run the server as root or permit user namespaces (sysctl "
                         "kernel.unprivileged_userns_clone=1)",
                  .code = "NoMountNamespace"});
      }
      plan.mounts.push_back(std::move(planned));
    }
    return {};
  };
  for (const auto& container : spec.pod.init_containers) { METIER_CHECK(of_container(container)); }
  for (const auto& container : spec.pod.containers) { METIER_CHECK(of_container(container)); }
  // Outer paths before what lies inside them.
  std::sort(plan.mounts.begin(), plan.mounts.end(), [](const auto& a, const auto& b) {
    return std::count(a.target.begin(), a.target.end(), '/') <
           std::count(b.target.begin(), b.target.end(), '/');
  });
  if (!spec.hosts.empty() && !spec.host_process) {
    if (host.mount_namespace) {
      plan.mounts.push_back(
          {.source = paths.folder + "/hosts", .target = "/etc/hosts", .read_only = true});
    } else {
      plan.conditions.push_back(
          {.type = "NoMountNamespace",
           .reason = "NoMountNamespace",
           .message =
               "names of pods and services do not resolve here: use the METIER_…_ADDR variables"});
    }
  }
  return {};
}

void plan_limits(const LaunchSpec& spec, const Cgroups& cgroups, PodPlan& plan) {
  const auto limits = pod_limits(spec.pod);
  if (const auto it = limits.find("memory"); it != limits.end()) {
    plan.limits.memory = it->second.units();
  }
  if (const auto it = limits.find("cpu"); it != limits.end()) {
    plan.limits.cpu_milli = it->second.milli();
  }
  if (plan.limits.memory && !cgroups.limits_memory()) {
    plan.rlimits.emplace_back(RLIMIT_DATA, static_cast<std::uint64_t>(*plan.limits.memory));
    plan.conditions.push_back(
        {.type = "LimitNotEnforced",
         .reason = "Memory",
         .message = "the memory limit holds for each process (RLIMIT_DATA), not for the pod: " +
                    cgroups.about()});
  }
  if (plan.limits.cpu_milli && !cgroups.limits_cpu()) {
    plan.conditions.push_back({.type = "LimitNotEnforced",
                               .reason = "Cpu",
                               .message = "the cpu limit is not enforced: " + cgroups.about()});
  }
}

void netstring(std::string& out, std::string_view text) {
  out += fmt::format("{}:", text.size());
  out += text;
  out += ',';
}
void entry(std::string& out, std::string_view key, std::string_view value) {
  netstring(out, key);
  netstring(out, value);
}

}  // namespace

std::string log_name(const std::string& container, bool first, int attempt) {
  auto name = first ? std::string("log") : "log." + container;
  if (attempt > 1) { name += fmt::format("@{}", attempt); }
  return name;
}

HostAbility probe_host(std::string_view force) {
  HostAbility out;
  out.uid = ::geteuid();
  out.gid = ::getegid();
  out.root = out.uid == 0;
  if (const char* home = std::getenv("HOME"); home != nullptr && *home == '/') { out.home = home; }
  const bool no_userns = force.find("no-userns") != std::string_view::npos;
  const bool no_mount = force.find("no-mount") != std::string_view::npos;
  const bool direct = out.root && may_unshare(CLONE_NEWNS | CLONE_NEWUTS);
  if (!direct && !no_userns) {
    out.user_namespace = may_unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWUTS);
  }
  const bool able = (direct && !no_userns) || out.user_namespace;
  out.mount_namespace = able && !no_mount;
  out.uts_namespace = able;
  return out;
}

Result<PodPlan> plan_pod(const LaunchSpec& spec, const PodPaths& paths, const HostAbility& host,
                         const Cgroups& cgroups) {
  const Pod& pod = spec.pod;
  PodPlan plan{.id = spec.id, .restart = pod.restart};
  plan.grace_ms = std::int64_t{pod.grace_s} * 1000;
  plan.deadline_ms = pod.deadline_s.value_or(0) * 1000;
  for (const auto& container : pod.init_containers) {
    METIER_TRY(planned, plan_container(spec, container, true, false, paths, host));
    plan.containers.push_back(std::move(planned));
  }
  for (std::size_t i = 0; i < pod.containers.size(); ++i) {
    METIER_TRY(planned, plan_container(spec, pod.containers[i], false, i == 0, paths, host));
    plan.containers.push_back(std::move(planned));
  }
  if (pod.containers.empty()) {
    return fail(invalid("spec.containers", "a pod needs a container"));
  }
  METIER_CHECK(plan_mounts(spec, paths, host, plan));
  if (!paths.gang_memory.empty() && host.mount_namespace) {
    // Last: the sources of memory-backed volumes are below the host's own.
    plan.mounts.push_back({.source = paths.gang_memory, .target = "/dev/shm"});
  }
  plan.mount_namespace = !plan.mounts.empty();
  if (!spec.host_process && host.uts_namespace && !pod.hostname.empty()) {
    plan.hostname = pod.hostname;
  }
  if (!paths.gang.empty()) {
    plan.gang = paths.gang;
    plan.member = pod.metadata.name;
  }
  plan.user_namespace = host.user_namespace && (plan.mount_namespace || !plan.hostname.empty());
  plan_limits(spec, cgroups, plan);
  plan.rlimits.emplace_back(RLIMIT_CORE, 0);

  const auto uid = static_cast<unsigned>(pod.run_as_user.value_or(host.uid));
  if (host.root) {
    plan.has_identity = true;
    plan.uid = uid;
    plan.gid = static_cast<unsigned>(pod.run_as_group.value_or(uid == host.uid ? host.gid : uid));
    for (const auto group : pod.groups) { plan.groups.push_back(static_cast<unsigned>(group)); }
    if (uid == 0) {
      plan.conditions.push_back({.type = "RunsAsRoot",
                                 .reason = "RunsAsRoot",
                                 .message = "the pod runs as root, without capabilities"});
    }
  } else if (uid != host.uid) {
    return fail(
        Error{.kind = ErrorKind::unsupported,
              .message = fmt::format("user {} cannot be taken: the server is not root", uid),
              .field = "spec.securityContext.runAsUser",
              .fix = "leave it out, or run the server as root",
              .code = "NotRoot"});
  }
  if (uid == host.uid) {
    plan.conditions.push_back(
        {.type = "SharedUid",
         .reason = "SharedUid",
         .message = "the pod runs as the server's own user: it could end its shim (ShimLost)"});
  }
  const auto& program =
      !pod.containers[0].command.empty() ? pod.containers[0].command : pod.containers[0].args;
  // What is started again is started by the shim, cold: a processor may be, the runner's programs are started once.
  const bool forked_program =
      runs_python_processor(spec, program) ||
      ((runs_runner(program) || runs_dask(program)) && pod.restart == RestartPolicy::never);
  plan.forkable = forked_program && pod.containers.size() == 1 && pod.init_containers.empty() &&
                  uid == host.uid && !spec.python.empty() && !spec.host_process;
  return plan;
}

std::string shim_spec(const PodPlan& plan, const PodGroup& group, bool with_values) {
  std::string out;
  entry(out, "metier-pod-spec", "1");
  entry(out, "id", plan.id);
  entry(out, "restart",
        plan.restart == RestartPolicy::always       ? "always"
        : plan.restart == RestartPolicy::on_failure ? "on_failure"
                                                    : "never");
  entry(out, "grace_ms", std::to_string(plan.grace_ms));
  entry(out, "deadline_ms", std::to_string(plan.deadline_ms));
  if (plan.mount_namespace) { entry(out, "mount_namespace", "1"); }
  if (plan.user_namespace) { entry(out, "user_namespace", "1"); }
  if (!plan.hostname.empty()) { entry(out, "hostname", plan.hostname); }
  if (!plan.gang.empty()) {
    entry(out, "gang", plan.gang);
    entry(out, "member", plan.member);
  }
  if (plan.has_identity) {
    entry(out, "uid", std::to_string(plan.uid));
    entry(out, "gid", std::to_string(plan.gid));
    for (const auto one : plan.groups) { entry(out, "group", std::to_string(one)); }
  }
  for (const auto& file : group.procs) { entry(out, "cgroup", file); }
  if (!group.kill.empty()) { entry(out, "cgroup_kill", group.kill); }
  if (!group.oom.empty()) { entry(out, "oom_file", group.oom); }
  entry(out, "oom_score", "500");
  for (const auto& [resource, value] : plan.rlimits) {
    entry(out, "rlimit", fmt::format("{} {} {}", resource, value, value));
  }
  for (const auto& mount : plan.mounts) {
    entry(out, "mount", mount.target);
    entry(out, "source", mount.source);
    if (!mount.sub_path.empty()) { entry(out, "sub_path", mount.sub_path); }
    entry(out, "target", mount.target);
    if (mount.read_only) { entry(out, "read_only", "1"); }
    if (!mount.container.empty()) { entry(out, "of", mount.container); }
  }
  for (const auto& container : plan.containers) {
    entry(out, container.init ? "init_container" : "container", container.name);
    for (const auto& arg : container.args) { entry(out, "arg", arg); }
    for (const auto& [name, value] : container.env) {
      entry(out, "env", with_values ? name + "=" + value : name + "=*");
    }
    entry(out, "cwd", container.cwd);
    entry(out, "log", container.log);
  }
  return out;
}

std::string launch_document(const PodPlan& plan, const PodPaths& paths) {
  const auto& container = plan.containers.front();
  JsonObject env;
  for (const auto& [name, value] : container.env) { env[name] = value; }
  JsonArray mounts;
  for (const auto& mount : plan.mounts) {
    mounts.push_back(JsonObject{{"source", mount.source},
                                {"sub_path", mount.sub_path},
                                {"target", mount.target},
                                {"readonly", mount.read_only}});
  }
  JsonArray args;
  for (const auto& arg : container.args) { args.push_back(Json(arg)); }
  // plan_container wrote `python -m metier_runner` where nothing of ours is on PATH; here it is `mlrun` again.
  if (args.size() >= 3 && args[1].as_string() == "-m") {
    args.erase(args.begin(), args.begin() + 3);
    args.insert(args.begin(), Json("mlrun"));
  }
  JsonArray rlimits;
  for (const auto& [resource, value] : plan.rlimits) {
    rlimits.push_back(JsonArray{resource, value, value});
  }
  return dump_json(JsonObject{{"shim", paths.shim},
                              {"folder", paths.folder},
                              {"argv", std::move(args)},
                              {"env", std::move(env)},
                              {"cwd", container.cwd},
                              {"log", container.log},
                              {"mounts", std::move(mounts)},
                              {"mount_namespace", plan.mount_namespace},
                              {"user_namespace", plan.user_namespace},
                              {"hostname", plan.hostname},
                              {"rlimits", std::move(rlimits)},
                              {"umask", 022}});
}

}  // namespace metier
