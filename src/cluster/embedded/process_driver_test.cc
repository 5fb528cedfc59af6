#include "cluster/embedded/process_driver.h"

#include <csignal>
#include <cstdio>
#include <fstream>

#include <fmt/format.h>

#include <boost/asio/ip/tcp.hpp>

#include "base/log_times.h"
#include "cluster/embedded/testing/process_fixture.h"
#include "resource/labels.h"

namespace metier {
namespace {

namespace fs = std::filesystem;
using ProcessDriverTest = ProcessFixture;

const Condition* condition(const PodStatus& status, std::string_view type) {
  for (const auto& one : status.conditions) {
    if (one.type == type) { return &one; }
  }
  return nullptr;
}

std::size_t open_descriptors() {
  std::size_t count = 0;
  for ([[maybe_unused]] const auto& one : fs::directory_iterator("/proc/self/fd")) { ++count; }
  return count;
}

TEST_F(ProcessDriverTest, A_pod_runs_and_its_end_and_log_are_kept) {
  const auto status = end_of(shell("a1", "printf 'one\\ntwo'; printf three >&2"));
  EXPECT_EQ(status.phase, PodPhase::succeeded);
  EXPECT_EQ(status.reason, "Completed");
  EXPECT_EQ(log("a1"), "one\ntwothree");
  EXPECT_GT(status.containers[0].started, status.started - std::chrono::seconds(1));
  EXPECT_GE(status.finished, status.containers[0].finished);
}

TEST_F(ProcessDriverTest, Every_exit_code_is_the_programs_own) {
  for (const int code : {1, 2, 77, 126, 127, 128, 255}) {
    const auto status = end_of(shell(fmt::format("c{}", code), fmt::format("exit {}", code)));
    EXPECT_EQ(status.phase, PodPhase::failed);
    EXPECT_EQ(status.containers[0].exit_code, code);
    EXPECT_EQ(status.containers[0].signal, 0);
    EXPECT_EQ(status.reason, "Error");
  }
}

TEST_F(ProcessDriverTest, Death_by_every_signal_is_named) {
  for (int signal = 1; signal < 32; ++signal) {
    if (signal == SIGCHLD || signal == SIGCONT || signal == SIGURG || signal == SIGWINCH ||
        signal == SIGSTOP || signal == SIGTSTP || signal == SIGTTIN || signal == SIGTTOU) {
      continue;
    }
    const auto id = fmt::format("s{}", signal);
    const auto status =
        end_of(command(id, {"python3", "-c",
                            fmt::format("import os, signal; signal.signal({0}, 0) if {0} != 9 else "
                                        "0; os.kill(os.getpid(), {0})",
                                        signal)}));
    EXPECT_EQ(status.containers[0].signal, signal);
    EXPECT_EQ(status.reason, fmt::format("Killed({})", signal_name(signal)));
  }
}

TEST_F(ProcessDriverTest, A_program_that_is_not_there_fails_to_start_by_name) {
  auto status = end_of(command("nope", {"no-such-program"}));
  EXPECT_EQ(status.phase, PodPhase::failed);
  EXPECT_EQ(status.reason, "ProgramMissing");
  EXPECT_TRUE(
      status.message.starts_with("program 'no-such-program' is not there (looked in PATH /"))
      << status.message;
  status = end_of(command("nowhere", {"/no/such/program"}));
  EXPECT_EQ(status.reason, "ProgramMissing");
  EXPECT_EQ(status.message, "program '/no/such/program' is not there");

  const auto script = folder_ + "/script";
  ASSERT_TRUE(write_file(script, "#!/no/such/interpreter\n", 0644));
  status = end_of(command("plain", {script}));
  EXPECT_EQ(status.reason, "StartFailed");
  EXPECT_TRUE(status.message.contains("chmod +x")) << status.message;
  fs::permissions(script, fs::perms::owner_all);
  status = end_of(command("script", {script}));
  EXPECT_EQ(status.reason, "ProgramMissing");
  EXPECT_TRUE(status.message.starts_with("the interpreter that the first line of"))
      << status.message;
}

TEST_F(ProcessDriverTest, Starting_an_id_twice_is_a_conflict_also_after_a_restart) {
  ASSERT_EQ(end_of(shell("twice", "exit 0")).phase, PodPhase::succeeded);
  EXPECT_EQ(run(driver_->start(shell("twice", "exit 0"))).error().kind, ErrorKind::conflict);
  leave();
  open();
  EXPECT_EQ(run(driver_->start(shell("twice", "exit 0"))).error().kind, ErrorKind::conflict);
  EXPECT_TRUE(fs::exists(pod_folder("twice") + "/exit"));
}

TEST_F(ProcessDriverTest, Unknown_ids_are_not_found_everywhere) {
  EXPECT_EQ(run(driver_->wait("x")).error().kind, ErrorKind::not_found);
  EXPECT_EQ(run(driver_->status("x")).error().kind, ErrorKind::not_found);
  EXPECT_EQ(run(driver_->stop("x", {})).error().kind, ErrorKind::not_found);
  EXPECT_EQ(run(driver_->destroy("x")).error().kind, ErrorKind::not_found);
  EXPECT_EQ(run(driver_->exec("x", "", {.command = {"true"}})).error().kind, ErrorKind::not_found);
  EXPECT_EQ(run(driver_->recover("../x", {})).error().kind, ErrorKind::not_found);
  EXPECT_EQ(run(driver_->recover("x", {})).error().kind, ErrorKind::not_found);
}

TEST_F(ProcessDriverTest, A_failed_start_leaves_nothing) {
  options_.shim = "/nonexistent/shim";
  open();
  auto spec = shell("f1", "exit 0");
  spec.pod.containers[0].resources.limits["memory"] = Quantity::from_units(64 << 20);
  EXPECT_FALSE(run(driver_->start(std::move(spec))));
  EXPECT_FALSE(fs::exists(pod_folder("f1")));
  EXPECT_TRUE(host_cgroups()->find("f1").procs.empty());
  EXPECT_EQ(run(driver_->wait("f1")).error().kind, ErrorKind::not_found);
}

TEST_F(ProcessDriverTest, A_needed_port_that_is_taken_names_its_holder_and_what_moves_it) {
  const asio::ip::tcp::acceptor server(loop_, {asio::ip::make_address("127.0.0.1"), 0});
  const int port = server.local_endpoint().port();
  auto spec = shell("p1", "exit 0");
  spec.pod_ip = "127.0.0.1";
  auto& ports = spec.pod.metadata.annotations[std::string(kPortsAnnotation)];
  ports = fmt::format("1,{}=spark.ui.port", port);
  const auto refused = run(driver_->start(spec));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, "PortTaken");
  EXPECT_TRUE(refused.error().message.starts_with(
      fmt::format("port {} of its address 127.0.0.1 is in use by process {} (", port, ::getpid())))
      << refused.error().message;
  EXPECT_TRUE(refused.error().fix.ends_with(", or set spark.ui.port")) << refused.error().fix;
  EXPECT_FALSE(fs::exists(pod_folder("p1")));
  spec.pod_ip = "127.0.0.77";
  EXPECT_EQ(end_of(spec).phase, PodPhase::succeeded);
}

TEST_F(ProcessDriverTest, Init_containers_run_in_order_before_all_main_containers) {
  auto spec = shell("init", "cat $METIER_JOURNAL; echo main");
  Container second = spec.pod.containers[0];
  second.name = "side";
  second.command = {"/bin/sh", "-c", "echo side"};
  for (const char* name : {"one", "two"}) {
    Container init = second;
    init.name = name;
    init.command = {"/bin/sh", "-c",
                    std::string("echo ") + name + " >> $METIER_JOURNAL; echo log of " + name};
    spec.pod.init_containers.push_back(init);
  }
  spec.pod.containers.push_back(second);
  const auto status = end_of(std::move(spec));
  EXPECT_EQ(status.phase, PodPhase::succeeded);
  EXPECT_EQ(status.containers.size(), 4U);
  EXPECT_EQ(log("init"), "one\ntwo\nmain\n");
  EXPECT_EQ(log("init", "side"), "side\n");
  EXPECT_EQ(log("init", "two"), "log of two\n");
}

TEST_F(ProcessDriverTest, A_failed_init_container_ends_the_pod) {
  auto spec = shell("badinit", "echo never");
  Container init = spec.pod.containers[0];
  init.name = "init";
  init.command = {"/bin/sh", "-c", "exit 9"};
  spec.pod.init_containers.push_back(init);
  const auto status = end_of(std::move(spec));
  EXPECT_EQ(status.phase, PodPhase::failed);
  EXPECT_EQ(status.containers[0].exit_code, 9);
  EXPECT_EQ(log("badinit"), "");
}

TEST_F(ProcessDriverTest, On_failure_starts_again_with_a_log_of_its_own) {
  auto spec =
      shell("again", "echo $$; test -e $METIER_JOURNAL || { touch $METIER_JOURNAL; exit 1; }");
  spec.pod.restart = RestartPolicy::on_failure;
  const auto status = end_of(std::move(spec));
  EXPECT_EQ(status.phase, PodPhase::succeeded);
  EXPECT_EQ(status.containers[0].restarts, 1);
  EXPECT_NE(log("again", "", 1), log("again", "", 2));
  EXPECT_EQ(log("again"), log("again", "", 2));
  EXPECT_FALSE(driver_->log_path("again", "", 3));
}

TEST_F(ProcessDriverTest, A_pod_past_its_deadline_is_ended_by_that_name) {
  auto spec = shell("late", "trap 'exit 0' TERM; sleep 100 & wait");
  spec.pod.deadline_s = 0;
  spec.pod.deadline_s = 1;
  spec.pod.grace_s = 1;
  const auto status = end_of(std::move(spec));
  EXPECT_EQ(status.phase, PodPhase::failed);
  EXPECT_EQ(status.reason, "DeadlineExceeded");
}

TEST_F(ProcessDriverTest, Stop_ends_what_ignores_it_and_the_whole_tree) {
  ASSERT_TRUE(run(driver_->start(shell("deaf",
                                       "trap '' TERM; setsid sleep 1000 & (sleep 1001 &); touch "
                                       "$METIER_JOURNAL; while :; do sleep 1002; done"))));
  await_file(pod_folder("deaf") + "/work/journal");
  const StopOptions options{
      .grace = std::chrono::milliseconds(20), .reason = "AbortedByUser", .message = "by a test"};
  ASSERT_TRUE(run(driver_->stop("deaf", options)));
  ASSERT_TRUE(run(driver_->stop("deaf", options)));
  const auto status = run(driver_->wait("deaf")).value();
  EXPECT_EQ(status.phase, PodPhase::failed);
  EXPECT_EQ(status.reason, "AbortedByUser");
  EXPECT_EQ(status.containers[0].signal, SIGKILL);
  EXPECT_TRUE(pod_processes("deaf", {}).empty());
}

TEST_F(ProcessDriverTest, A_stop_that_names_no_grace_has_the_pods_own_also_after_a_restart) {
  for (const std::string id : {"known", "found"}) {
    auto spec =
        shell(id, "trap 'exit 5' TERM; touch $METIER_JOURNAL; while :; do sleep 0.01; done");
    spec.pod.grace_s = 0;  // killed at once: a program that was asked first would exit 5
    ASSERT_TRUE(run(driver_->start(std::move(spec))));
    await_file(pod_folder(id) + "/work/journal");
  }
  ASSERT_TRUE(run(driver_->stop("known", {})));
  EXPECT_EQ(run(driver_->wait("known")).value().containers[0].signal, SIGKILL);
  leave();
  open();
  ASSERT_TRUE(run(driver_->recover("found", {})));
  ASSERT_TRUE(run(driver_->stop("found", {})));
  EXPECT_EQ(run(driver_->wait("found")).value().containers[0].signal, SIGKILL);
}

TEST_F(ProcessDriverTest, A_stopped_process_dies_too) {
  ASSERT_TRUE(run(driver_->start(shell("frozen",
                                       "(kill -STOP $$; until grep -q 'State:.T' /proc/$$/status; "
                                       "do :; done; touch $METIER_JOURNAL) & wait"))));
  await_file(pod_folder("frozen") + "/work/journal");
  ASSERT_TRUE(run(driver_->stop("frozen", {.grace = std::chrono::milliseconds(20)})));
  EXPECT_EQ(run(driver_->wait("frozen")).value().containers[0].signal, SIGKILL);
}

TEST_F(ProcessDriverTest, A_graceful_stop_lets_the_program_end_itself) {
  ASSERT_TRUE(run(driver_->start(
      shell("polite",
            "trap 'echo bye; exit 5' TERM; touch $METIER_JOURNAL; while :; do sleep 0.01; done"))));
  await_file(pod_folder("polite") + "/work/journal");
  ASSERT_TRUE(run(driver_->stop("polite", {.grace = std::chrono::seconds(60)})));
  EXPECT_EQ(run(driver_->wait("polite")).value().containers[0].exit_code, 5);
  EXPECT_EQ(log("polite"), "bye\n");
}

TEST_F(ProcessDriverTest, Orphans_are_killed_and_named) {
  const auto status = end_of(shell("orphans", "(setsid sleep 1234 &) ; exit 0"));
  EXPECT_EQ(status.phase, PodPhase::succeeded);
  ASSERT_NE(condition(status, "OrphansKilled"), nullptr);
  EXPECT_TRUE(pod_processes("orphans", {}).empty());
}

TEST_F(ProcessDriverTest, Commands_run_in_the_pod_with_its_environment) {
  auto spec = shell("box", "sleep 1000");
  spec.env["main"] = {{"COLOUR", "blue"}};
  ASSERT_TRUE(run(driver_->start(std::move(spec))));
  const auto result = run(driver_->exec("box", "",
                                        {.command = {"sh", "-c", "echo $COLOUR $MORE; exit 3"},
                                         .env = {{"MORE", "x y"}}}))
                          .value();
  EXPECT_EQ(result.output, "blue x y\n");
  EXPECT_EQ(result.exit_code, 3);
  EXPECT_TRUE(fs::exists(pod_folder("box") + "/exec." + result.id + ".exit"));
  const auto missing = run(driver_->exec("box", "", {.command = {"no-such"}})).value();
  EXPECT_EQ(missing.exit_code, 127);
  EXPECT_NE(missing.output.find("No such file"), std::string::npos);
  EXPECT_EQ(run(driver_->exec("box", "other", {.command = {"true"}})).error().kind,
            ErrorKind::not_found);
}

TEST_F(ProcessDriverTest, Destroy_refuses_a_live_pod_and_removes_a_dead_one) {
  ASSERT_TRUE(run(driver_->start(shell("live", "sleep 1000"))));
  EXPECT_EQ(run(driver_->destroy("live")).error().kind, ErrorKind::conflict);
  ASSERT_TRUE(run(driver_->stop("live", {.how = StopOptions::How::forced})));
  ASSERT_TRUE(run(driver_->wait("live")));
  ASSERT_TRUE(run(driver_->destroy("live")));
  EXPECT_FALSE(fs::exists(pod_folder("live")));
}

TEST_F(ProcessDriverTest, A_pod_cannot_make_its_read_only_volume_writable) {
  auto spec =
      shell("ro",
            "cat /mnt/f; touch /mnt/x; mount -o remount,rw,bind /mnt; touch /mnt/x; umount /mnt; "
            "touch /mnt/x; grep CapEff /proc/self/status; grep CapBnd /proc/self/status");
  const auto volume = folder_ + "/volume";
  fs::create_directories(volume);
  ASSERT_TRUE(write_file(volume + "/f", "inside\n"));
  spec.volumes = {{.name = "v", .path = volume}};
  spec.pod.containers[0].mounts = {{.name = "v", .mount_path = "/mnt", .read_only = true}};
  end_of(std::move(spec));
  EXPECT_TRUE(log("ro").starts_with("inside\n")) << log("ro");
  EXPECT_FALSE(fs::exists(volume + "/x"));
  EXPECT_FALSE(fs::exists("/mnt/f"));
  EXPECT_NE(log("ro").find("CapEff:\t0000000000000000\nCapBnd:\t0000000000000000"),
            std::string::npos)
      << log("ro");
}

TEST_F(ProcessDriverTest, A_sub_path_is_mounted_and_cannot_leave_its_volume) {
  const auto volume = folder_ + "/volume";
  fs::create_directories(volume + "/in");
  fs::create_directory_symlink("/etc", volume + "/out");
  ASSERT_TRUE(write_file(volume + "/in/f", "deep"));
  auto spec = shell("sub", "cat /mnt/f");
  spec.volumes = {{.name = "v", .path = volume}};
  spec.pod.containers[0].mounts = {{.name = "v", .mount_path = "/mnt", .sub_path = "in"}};
  end_of(spec);
  EXPECT_EQ(log("sub"), "deep");
  spec.id = "out";
  spec.pod.containers[0].mounts[0].sub_path = "out";
  const auto status = end_of(std::move(spec));
  EXPECT_EQ(status.reason, "StartFailed");
}

TEST_F(ProcessDriverTest, Another_user_opens_dev_stdout_and_owns_its_work_folder) {
  if (::geteuid() != 0) { GTEST_SKIP(); }
  auto spec = shell("nobody",
                    "id -u; echo through >> /dev/stdout; cat /proc/self/status | grep NoNewPrivs; "
                    "touch $METIER_JOURNAL && echo wrote; cat ../exit ../spec");
  spec.pod.run_as_user = 12345;
  fs::permissions(folder_, fs::perms(0755));
  const auto status = end_of(std::move(spec));
  EXPECT_TRUE(log("nobody").starts_with("12345\nthrough\nNoNewPrivs:\t1\nwrote\n"))
      << log("nobody");
  EXPECT_EQ(condition(status, "SharedUid"), nullptr);
}

TEST_F(ProcessDriverTest, Files_of_secrets_are_on_memory_and_go_with_the_pod) {
  auto spec = shell("secret", "cat /mnt/token; stat -f -c %T /mnt");
  spec.volumes = {{.name = "s", .files = {{"token", "hush\n"}}, .memory = true}};
  spec.pod.containers[0].mounts = {{.name = "s", .mount_path = "/mnt"}};
  spec.env["main"] = {{"PASSWORD", "canary-value"}};
  end_of(std::move(spec));
  EXPECT_EQ(log("secret"), "hush\ntmpfs\n");
  EXPECT_EQ(read_file(pod_folder("secret") + "/spec").value().find("canary-value"),
            std::string::npos);
  ASSERT_TRUE(run(driver_->destroy("secret")));
  EXPECT_FALSE(fs::exists("/dev/shm/metier-secret"));
}

TEST_F(ProcessDriverTest, Hosts_file_and_host_name_are_the_pods_own) {
  auto spec = shell("net", "cat /etc/hosts; hostname");
  spec.hosts = "127.1.2.3 peer\n";
  spec.pod.hostname = "worker-0";
  end_of(std::move(spec));
  EXPECT_EQ(log("net"), "127.1.2.3 peer\nworker-0\n");
}

TEST_F(ProcessDriverTest, A_memory_limit_holds_and_is_named) {
  if (!host_cgroups()->limits_memory()) { GTEST_SKIP(); }
  auto spec = command("oom", {"python3", "-c", "x = bytearray(300 << 20)"});
  spec.pod.containers[0].resources.limits["memory"] = Quantity::from_units(48 << 20);
  const auto status = end_of(std::move(spec));
  EXPECT_EQ(status.reason, "OOMKilled");
  EXPECT_EQ(status.containers[0].exit_code, 137);
}

TEST_F(ProcessDriverTest, A_child_that_the_limit_kills_is_told_whatever_its_parent_ends_by) {
  if (!host_cgroups()->limits_memory()) { GTEST_SKIP(); }
  auto spec = command("child", {"sh", "-c", "python3 -c 'x = bytearray(300 << 20)'; exit 3"});
  spec.pod.containers[0].resources.limits["memory"] = Quantity::from_units(48 << 20);
  const auto status = end_of(std::move(spec));
  EXPECT_EQ(status.reason, "Error");
  EXPECT_EQ(status.containers[0].exit_code, 3);
  ASSERT_NE(condition(status, "ProcessOOMKilled"), nullptr);
  EXPECT_EQ(condition(end_of(shell("well", "exit 3")), "ProcessOOMKilled"), nullptr);
}

TEST_F(ProcessDriverTest, A_kill_of_the_whole_cgroup_leaves_a_true_exit) {
  if (!host_cgroups()->limits_memory()) { GTEST_SKIP(); }
  auto spec = shell("group", "touch $METIER_JOURNAL; sleep 1000");
  spec.pod.containers[0].resources.limits["memory"] = Quantity::from_units(64 << 20);
  ASSERT_TRUE(run(driver_->start(std::move(spec))));
  await_file(pod_folder("group") + "/work/journal");
  for (const int pid : host_cgroups()->members("group")) { ::kill(pid, SIGKILL); }
  const auto status = run(driver_->wait("group")).value();
  EXPECT_EQ(status.reason, "Killed(SIGKILL)");
  ASSERT_TRUE(run(driver_->destroy("group")));
  EXPECT_TRUE(host_cgroups()->find("group").procs.empty());
}

TEST_F(ProcessDriverTest, What_the_host_cannot_enforce_is_a_condition) {
  leave();
  options_.force = "no-cgroup,no-mount,no-userns";
  open();
  auto spec = shell("weak", "ulimit -d");
  spec.pod.containers[0].resources.limits["memory"] = Quantity::from_units(64 << 20);
  spec.hosts = "127.1.2.3 peer\n";
  const auto status = end_of(spec);
  EXPECT_NE(condition(status, "LimitNotEnforced"), nullptr);
  EXPECT_NE(condition(status, "NoMountNamespace"), nullptr);
  EXPECT_EQ(log("weak"), "65536\n");
  spec.id = "foreign";
  spec.volumes = {{.name = "v", .path = folder_}};
  spec.pod.containers[0].mounts = {{.name = "v", .mount_path = "/mnt"}};
  EXPECT_EQ(run(driver_->start(std::move(spec))).error().code, "NoMountNamespace");
}

TEST_F(ProcessDriverTest, Logs_are_byte_exact) {
  const auto status = end_of(command(
      "bytes", {"python3", "-c",
                "import os\nfor i in range(1000): os.write(1 + i % 2, bytes(range(256)))"}));
  EXPECT_EQ(status.phase, PodPhase::succeeded);
  std::string block;
  for (int i = 0; i < 256; ++i) { block += static_cast<char>(i); }
  std::string whole;
  for (int i = 0; i < 1000; ++i) { whole += block; }
  EXPECT_EQ(log("bytes"), whole);
}

TEST_F(ProcessDriverTest, The_time_of_what_is_written_is_kept) {
  const auto go = folder_ + "/go";
  ASSERT_TRUE(run(driver_->start(shell(
      "times", "echo one; while [ ! -e " + go + " ]; do sleep 0.01; done; echo two; echo three"))));
  const auto path = driver_->log_path("times", "", 0).value();
  await_file(log_times_path(path));
  const auto first = read_log_times(path);
  ASSERT_EQ(first.size(), 1U);
  EXPECT_EQ(first[0].end, 4U);
  std::ofstream(go) << "go";
  const auto status = run(driver_->wait("times")).value();
  const auto all = read_log_times(path);
  ASSERT_GE(all.size(), 2U);
  EXPECT_EQ(all[0], first[0]);
  EXPECT_EQ(all.back().end, 14U);
  EXPECT_GE(all[0].at, status.started - std::chrono::milliseconds(10));  // the kernel's tick
  EXPECT_GE(all.back().at, all[0].at);
  EXPECT_LE(all.back().at, status.finished);
  EXPECT_EQ(log("times"), "one\ntwo\nthree\n");
}

TEST_F(ProcessDriverTest, Two_hundred_pods_leave_nothing) {
  end_of(shell("warm", "exit 0"));
  const auto before = open_descriptors();
  const auto started = std::chrono::steady_clock::now();
  std::vector<std::string> ids;
  for (int i = 0; i < 200; ++i) {
    ids.push_back(fmt::format("n{}", i));
    ASSERT_TRUE(run(driver_->start(command(ids.back(), {"/bin/true"}))));
  }
  for (const auto& id : ids) {
    EXPECT_EQ(run(driver_->wait(id)).value().phase, PodPhase::succeeded);
  }
  const auto took =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
  std::printf("200 pods of /bin/true, one after the other: %.0f/s\n", 200 / took);
  for (const auto& id : ids) { ASSERT_TRUE(run(driver_->destroy(id))); }
  loop_.restart();
  loop_.poll();
  EXPECT_EQ(open_descriptors(), before);
  EXPECT_EQ(run(driver_->found()).value(), std::vector<std::string>{"warm"});
}

TEST_F(ProcessDriverTest, The_shim_is_small) {
  ASSERT_TRUE(run(driver_->start(shell("small", "sleep 1000"))));
  const auto state = parse_json(read_record(pod_folder("small") + "/state").value()).value();
  std::ifstream file(fmt::format("/proc/{}/status", int_in(state.as_object(), "shim").value()));
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("VmRSS:")) {
      std::printf("shim %s, file %ld KiB\n", line.c_str(),
                  static_cast<long>(fs::file_size(options_.shim) / 1024));
    }
  }
}

}  // namespace
}  // namespace metier
