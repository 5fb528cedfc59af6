// Pods whose server or shim is gone.
#include <csignal>

#include <fmt/format.h>

#include "cluster/embedded/testing/process_fixture.h"

namespace metier {
namespace {

namespace fs = std::filesystem;

class ProcessFaults : public ProcessFixture {
 protected:
  int shim_of(const std::string& id) {
    const auto state = parse_json(read_record(pod_folder(id) + "/state").value()).value();
    return static_cast<int>(int_in(state.as_object(), "shim").value());
  }
};

TEST_F(ProcessFaults, A_new_server_adopts_the_living_and_reports_the_dead) {
  ASSERT_TRUE(run(driver_->start(
      shell("lives", "while ! test -e $METIER_JOURNAL; do sleep 0.01; done; exit 6"))));
  ASSERT_TRUE(run(driver_->start(shell("dies", "exit 7"))));
  leave();
  while (!fs::exists(pod_folder("dies") + "/exit")) { ::usleep(500); }
  open();
  EXPECT_EQ(run(driver_->found()).value(), (std::vector<std::string>{"dies", "lives"}));
  ASSERT_TRUE(run(driver_->recover("lives", {})));
  ASSERT_TRUE(run(driver_->recover("dies", {.driver = "process", .version = 1})));
  ASSERT_TRUE(run(driver_->recover("lives", {})));
  EXPECT_EQ(run(driver_->status("lives")).value().phase, PodPhase::running);
  EXPECT_EQ(run(driver_->wait("dies")).value().containers[0].exit_code, 7);
  ASSERT_TRUE(write_file(pod_folder("lives") + "/work/journal", ""));
  EXPECT_EQ(run(driver_->wait("lives")).value().containers[0].exit_code, 6);
}

TEST_F(ProcessFaults, A_handle_of_another_driver_is_refused) {
  EXPECT_EQ(run(driver_->recover("any", {.driver = "process", .version = 2})).error().kind,
            ErrorKind::unsupported);
}

TEST_F(ProcessFaults, Conditions_and_addresses_are_known_after_a_restart) {
  auto spec = shell("again", "exit 0");
  spec.pod_ip = "127.9.9.9";
  const auto before = end_of(std::move(spec));
  leave();
  open();
  ASSERT_TRUE(run(driver_->recover("again", {})));
  const auto after = run(driver_->status("again")).value();
  EXPECT_EQ(after.pod_ip, "127.9.9.9");
  EXPECT_EQ(after.conditions.size(), before.conditions.size());
}

TEST_F(ProcessFaults, A_killed_shim_means_ShimLost_and_nothing_runs_on) {
  ASSERT_TRUE(run(
      driver_->start(shell("orphaned", "setsid sleep 1000 & touch $METIER_JOURNAL; sleep 1001"))));
  await_file(pod_folder("orphaned") + "/work/journal");
  ::kill(shim_of("orphaned"), SIGKILL);
  const auto status = run(driver_->wait("orphaned")).value();
  EXPECT_EQ(status.phase, PodPhase::failed);
  EXPECT_EQ(status.reason, "ShimLost");
  EXPECT_EQ(status.containers[0].signal, 0);
  EXPECT_TRUE(pod_processes("orphaned", {}).empty());
  EXPECT_TRUE(fs::exists(pod_folder("orphaned") + "/exit"));
}

TEST_F(ProcessFaults, Server_and_shim_killed_together_end_as_ShimLost) {
  ASSERT_TRUE(run(driver_->start(shell("both", "sleep 1000"))));
  const int shim = shim_of("both");
  leave();
  ::kill(shim, SIGKILL);
  open();
  ASSERT_TRUE(run(driver_->recover("both", {})));
  EXPECT_EQ(run(driver_->wait("both")).value().reason, "ShimLost");
  EXPECT_TRUE(pod_processes("both", {}).empty());
}

// At each step of the shim: the pod ends with its true status or as ShimLost, once, and nothing stays.
TEST_F(ProcessFaults, A_shim_killed_at_any_step_never_leaves_a_running_pod) {
  for (const std::string point :
       {"started", "locked", "forked", "state_written", "released", "exit_seen", "exit_written"}) {
    leave();
    options_.shim_env = {"METIER_SHIM_FAILPOINT=shim/" + point};
    open();
    const auto id = "at-" + point;
    auto spec = shell(id, "echo ran; exit 8");
    auto started = run(driver_->start(std::move(spec)));
    if (!started) {
      EXPECT_EQ(point, "started");
      EXPECT_FALSE(fs::exists(pod_folder(id)));
      continue;
    }
    const auto status = run(driver_->wait(id)).value();
    if (point == "exit_written") {
      EXPECT_EQ(status.containers[0].exit_code, 8) << point;
    } else {
      EXPECT_EQ(status.reason, "ShimLost") << point;
    }
    if (point == "locked" || point == "forked" || point == "state_written") {
      EXPECT_NE(log(id), "ran\n") << point;
    }
    EXPECT_TRUE(pod_processes(id, {}).empty());
    leave();
    open();
    ASSERT_TRUE(run(driver_->recover(id, {})));
    EXPECT_EQ(run(driver_->wait(id)).value().reason, status.reason) << point;
    EXPECT_TRUE(run(driver_->destroy(id)));
  }
}

TEST_F(ProcessFaults, Damaged_records_are_treated_as_absent) {
  ASSERT_EQ(end_of(shell("torn", "exit 3")).containers[0].exit_code, 3);
  leave();
  const auto whole = read_file(pod_folder("torn") + "/exit").value();
  for (const std::size_t size :
       {std::size_t{0}, std::size_t{5}, whole.size() / 2, whole.size() - 1}) {
    ASSERT_TRUE(write_file(pod_folder("torn") + "/exit", whole.substr(0, size)));
    open();
    ASSERT_TRUE(run(driver_->recover("torn", {})));
    EXPECT_EQ(run(driver_->wait("torn")).value().reason, "ShimLost");
    leave();
  }
  ASSERT_TRUE(write_file(pod_folder("torn") + "/handle", "nonsense"));
  ASSERT_TRUE(write_file(pod_folder("torn") + "/exit", whole));
  open();
  ASSERT_TRUE(run(driver_->recover("torn", {})));
  EXPECT_EQ(run(driver_->wait("torn")).value().containers[0].exit_code, 3);
}

TEST_F(ProcessFaults, A_removed_folder_ends_the_run_as_FolderLost) {
  ASSERT_TRUE(run(driver_->start(shell("removed", "sleep 1000"))));
  fs::remove_all(pod_folder("removed"));
  ASSERT_TRUE(run(driver_->stop("removed", {.how = StopOptions::How::forced})));
  EXPECT_EQ(run(driver_->wait("removed")).value().reason, "FolderLost");
}

TEST_F(ProcessFaults, A_pod_of_an_earlier_boot_ended_with_the_machine) {
  ASSERT_EQ(end_of(shell("boot", "exit 0")).phase, PodPhase::succeeded);
  leave();
  fs::remove(pod_folder("boot") + "/exit");
  auto state = parse_json(read_record(pod_folder("boot") + "/state").value()).value();
  state.as_object()["boot"] = "another";
  ASSERT_TRUE(write_record(pod_folder("boot") + "/state", dump_json(state)));
  open();
  ASSERT_TRUE(run(driver_->recover("boot", {})));
  EXPECT_EQ(run(driver_->wait("boot")).value().reason, "HostRebooted");
}

}  // namespace
}  // namespace metier
