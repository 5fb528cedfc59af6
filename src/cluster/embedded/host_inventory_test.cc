#include "cluster/embedded/host_inventory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "base/files.h"

namespace metier {
namespace {

using testing::ElementsAre;

class Inventory : public testing::Test {
 protected:
  Inventory()
      : root(std::filesystem::temp_directory_path() /
             ("metier-inventory-" + std::to_string(getpid()) + "-" +
              testing::UnitTest::GetInstance()->current_test_info()->name())) {
    put("proc/meminfo", "MemTotal:        8000000 kB\nMemFree: 1 kB\n");
  }
  ~Inventory() override { std::filesystem::remove_all(root); }
  void put(const std::string& path, std::string_view text) {
    std::filesystem::create_directories((root / path).parent_path());
    ASSERT_TRUE(write_file(root / path, text));
  }
  HostFacts read(int cpus = 4) {
    return LinuxInventory(root, [cpus] { return cpus; }).read().value();
  }

  std::filesystem::path root;
};

TEST_F(Inventory, ReadsTheMachineWhenNothingLimitsIt) {
  const auto facts = read();
  EXPECT_EQ(facts.cpu_milli, 4000);
  EXPECT_EQ(facts.memory, 8'000'000LL * 1024);
  EXPECT_TRUE(facts.devices.empty());
  EXPECT_TRUE(facts.notes.empty());
}

TEST_F(Inventory, TakesTheLeastOfAllV1Limits) {
  put("proc/self/cgroup", "4:memory:/a/b\n3:cpu,cpuacct:/a\n");
  put("sys/fs/cgroup/memory/a/b/memory.limit_in_bytes", "9223372036854771712\n");
  put("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "1073741824\n");
  put("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
  put("sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us", "150000\n");
  put("sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us", "100000\n");
  const auto facts = read();
  EXPECT_EQ(facts.memory, 1 << 30);
  EXPECT_EQ(facts.cpu_milli, 1500);
  EXPECT_EQ(facts.notes.size(), 2U);
}

TEST_F(Inventory, TakesTheLeastOfAllV2Limits) {
  put("proc/self/cgroup", "0::/user/run\n");
  put("sys/fs/cgroup/cgroup.controllers", "cpu memory\n");
  put("sys/fs/cgroup/user/run/memory.max", "max\n");
  put("sys/fs/cgroup/user/memory.max", "2147483648\n");
  put("sys/fs/cgroup/user/run/cpu.max", "50000 100000\n");
  put("sys/fs/cgroup/user/cpu.max", "max 100000\n");
  const auto facts = read();
  EXPECT_EQ(facts.memory, 2LL << 30);
  EXPECT_EQ(facts.cpu_milli, 500);
}

TEST_F(Inventory, CountsGpusByNumber) {
  for (const auto* name :
       {"dev/nvidia0", "dev/nvidia10", "dev/nvidia2", "dev/nvidiactl", "dev/nvidia-uvm"}) {
    put(name, "");
  }
  EXPECT_THAT(read().devices.at("nvidia.com/gpu"), ElementsAre(0, 2, 10));
  put("dev/kfd", "");
  put("dev/dri/renderD128", "");
  put("dev/dri/renderD129", "");
  EXPECT_THAT(read().devices.at("amd.com/gpu"), ElementsAre(0, 1));
}

TEST_F(Inventory, KeepsSomeMemoryBack) {
  EXPECT_EQ(reserved_memory({.memory = 1LL << 30}, {}), 128LL << 20);
  EXPECT_EQ(reserved_memory({.memory = 100LL << 30}, {}), 1LL << 30);
  EXPECT_EQ(reserved_memory({.memory = 100LL << 20}, {}), 50LL << 20);
  EXPECT_EQ(reserved_memory({.memory = 100LL << 30}, {.memory = 0}), 0);
}

TEST(LinuxInventory, ReadsThisMachine) {
  const auto facts = LinuxInventory().read();
  ASSERT_TRUE(facts) << facts.error().text();
  EXPECT_GE(facts->cpu_milli, 1);
  EXPECT_GT(facts->memory, 64LL << 20);
}

}  // namespace
}  // namespace metier
