#include "cluster/embedded/cgroups.h"

#include <gtest/gtest.h>

#include <cstdlib>

#include "base/files.h"

namespace metier {
namespace fs = std::filesystem;
namespace {

// A recorded tree: the files of a delegated group as systemd makes it on a v2 host.
class CgroupsV2Tree : public ::testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/metier-cgroup-XXXXXX";
    root_ = ::mkdtemp(name);
    own_ = root_ / "sys/fs/cgroup/system.slice/metier.service";
    fs::create_directories(own_);
    fs::create_directories(root_ / "proc/self");
    ASSERT_TRUE(write_file(root_ / "proc/self/cgroup", "0::/system.slice/metier.service\n"));
    ASSERT_TRUE(write_file(root_ / "sys/fs/cgroup/cgroup.controllers",
                           "cpuset cpu io memory hugetlb pids rdma misc\n"));
    ASSERT_TRUE(write_file(own_ / "cgroup.controllers", "cpu memory pids\n"));
    ASSERT_TRUE(write_file(own_ / "cgroup.procs", "4711\n"));
    ASSERT_TRUE(write_file(own_ / "cgroup.subtree_control", ""));
  }
  void TearDown() override { fs::remove_all(root_); }
  std::string text(const fs::path& path) { return read_file(path).value_or("(none)"); }
  fs::path root_;
  fs::path own_;
};

TEST_F(CgroupsV2Tree, The_server_moves_to_a_leaf_and_gives_controllers_to_its_children) {
  const auto groups = host_cgroups(root_);
  EXPECT_EQ(groups->about(), "cgroup v2");
  EXPECT_EQ(text(own_ / "metier-server/cgroup.procs"), "4711");
  EXPECT_EQ(text(own_ / "cgroup.subtree_control"), "+memory +cpu");
}

TEST_F(CgroupsV2Tree, Limits_are_written_in_its_units) {
  const auto groups = host_cgroups(root_);
  const auto group = groups->create("p1", {.memory = 64 << 20, .cpu_milli = 500}).value();
  const auto folder = own_ / "metier-pod-p1";
  EXPECT_EQ(text(folder / "memory.max"), "67108864");
  EXPECT_EQ(text(folder / "cpu.max"), "50000 100000");
  EXPECT_EQ(group.procs, std::vector<std::string>{folder / "cgroup.procs"});
  EXPECT_EQ(group.kill, folder / "cgroup.kill");
  EXPECT_EQ(group.oom, folder / "memory.events");
  EXPECT_TRUE(group.unenforced.empty());
}

TEST_F(CgroupsV2Tree, Usage_is_read_from_its_files) {
  const auto groups = host_cgroups(root_);
  ASSERT_TRUE(groups->create("p1", {.memory = 64 << 20}));
  const auto folder = own_ / "metier-pod-p1";
  ASSERT_TRUE(write_file(folder / "cpu.stat", "usage_usec 1234\nuser_usec 1000\n"));
  ASSERT_TRUE(write_file(folder / "memory.current", "4096\n"));
  ASSERT_TRUE(write_file(folder / "memory.peak", "8192\n"));
  const auto usage = groups->usage("p1").value();
  EXPECT_EQ(usage.cpu_us, 1234);
  EXPECT_EQ(usage.memory, 4096);
  EXPECT_EQ(usage.peak_memory, 8192);
  EXPECT_FALSE(groups->usage("p2"));
}

TEST_F(CgroupsV2Tree, A_host_that_delegates_nothing_is_said_to_enforce_nothing) {
  ASSERT_TRUE(write_file(own_ / "cgroup.controllers", "hugetlb\n"));
  const auto groups = host_cgroups(root_);
  EXPECT_FALSE(groups->limits_memory());
  EXPECT_EQ(groups->create("p", {.memory = 1, .cpu_milli = 1}).value().unenforced.size(), 2U);
}

TEST(CgroupsHere, A_group_is_made_found_and_removed) {
  const auto groups = host_cgroups();
  if (!groups->limits_memory()) { GTEST_SKIP() << groups->about(); }
  const auto made = groups->create("test-here", {.memory = 32 << 20, .cpu_milli = 250}).value();
  EXPECT_EQ(groups->find("test-here").procs.size(), made.procs.size());
  EXPECT_TRUE(groups->remove("test-here"));
  EXPECT_TRUE(groups->remove("test-here"));
  EXPECT_TRUE(groups->find("test-here").procs.empty());
}

}  // namespace
}  // namespace metier
