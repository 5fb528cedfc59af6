#include "cluster/embedded/pod_spec.h"

#include <gtest/gtest.h>

#include "resource/labels.h"

namespace metier {
namespace {

std::string home_in(const HostAbility& host, std::optional<std::int64_t> user,
                    std::vector<std::pair<std::string, std::string>> given = {}) {
  LaunchSpec spec{.id = "p"};
  spec.pod.run_as_user = user;
  spec.pod.containers.push_back({.name = "base", .command = {"true"}});
  spec.env["base"] = std::move(given);
  const auto groups = host_cgroups("/", "no-cgroup");
  const auto plan = plan_pod(spec, {.folder = "/data/pods/p"}, host, *groups);
  if (!plan) { return plan.error().text(); }
  for (const auto& [name, value] : plan->containers[0].env) {
    if (name == "HOME") { return value; }
  }
  return "none";
}

TEST(PlanPod, HomeIsThatOfThePodsUser) {
  const HostAbility root{.root = true, .uid = 0, .home = "/root"};
  EXPECT_EQ(home_in(root, {}), "/root");
  EXPECT_EQ(home_in(root, 1000), "/data/pods/p/work");
  const HostAbility user{.uid = 1000, .home = "/home/user"};
  EXPECT_EQ(home_in(user, {}), "/home/user");
  EXPECT_EQ(home_in(user, 1000), "/home/user");
  EXPECT_EQ(home_in(user, {}, {{"HOME", "/mine"}}), "/mine");
  EXPECT_EQ(home_in(HostAbility{.uid = 1000}, {}), "/data/pods/p/work");
}

bool forked(std::vector<std::string> command, RestartPolicy restart, bool annotated = false,
            std::optional<std::int64_t> user = {}) {
  LaunchSpec spec{.id = "p", .python = "/usr/bin/python3"};
  spec.pod.restart = restart;
  spec.pod.run_as_user = user;
  if (annotated) { spec.pod.metadata.annotations[std::string(kForkedTemplateAnnotation)] = "true"; }
  spec.pod.containers.push_back({.name = "base", .command = std::move(command)});
  const auto groups = host_cgroups("/", "no-cgroup");
  const auto plan = plan_pod(spec, {.folder = "/data/pods/p"}, HostAbility{.root = true}, *groups);
  return plan && plan->forkable;
}

TEST(PlanPod, WhatAnInterpreterOfTheNodeCanBeIsForkedFromIt) {
  EXPECT_TRUE(forked({"mlrun", "run"}, RestartPolicy::never));
  EXPECT_FALSE(forked({"mlrun", "run"}, RestartPolicy::on_failure));
  EXPECT_FALSE(forked({"sh"}, RestartPolicy::never));
  const std::vector<std::string> processor{"/usr/bin/metier", "processor", "--config", "/c"};
  EXPECT_TRUE(forked(processor, RestartPolicy::always, true));
  EXPECT_FALSE(forked(processor, RestartPolicy::always)) << "its function is no Python";
  EXPECT_FALSE(forked(processor, RestartPolicy::always, true, 1000)) << "a zygote is the server's";
}

}  // namespace
}  // namespace metier
