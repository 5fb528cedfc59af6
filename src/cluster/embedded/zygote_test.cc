// Pods forked from a zygote. Most run a small runner of the test, which executes its argument as Python.
#include <csignal>

#include <fmt/format.h>

#include "cluster/embedded/testing/process_fixture.h"
#include "metier/test_paths.h"

namespace metier {
namespace {

namespace fs = std::filesystem;

class ZygoteTest : public ProcessFixture {
 protected:
  void SetUp() override {
    ProcessFixture::SetUp();
    leave();
    const auto package = folder_ + "/runner/metier_runner";
    const auto real = std::string(METIER_SOURCE_DIR) + "/python/runner/metier_runner/";
    fs::create_directories(package);
    for (const char* name : {"zygote.py", "_confine.py", "_targets.py"}) {
      fs::create_symlink(real + name, package + "/" + name);
    }
    static_cast<void>(write_file(
        package + "/__init__.py",
        "import sys\n"
        "def main(argv):\n"
        "    exec(compile(argv[1], '<test>', 'exec'), sys.modules['__main__'].__dict__)\n"
        "    return 0\n"
        "if __name__ == '__main__': main(sys.argv)\n"));
    static_cast<void>(write_file(
        package + "/__main__.py",
        "import sys, metier_runner\nsys.exit(metier_runner.main(['mlrun'] + sys.argv[1:]))\n"));
    options_.runner = folder_ + "/runner";
    options_.use_zygotes = true;
    open();
  }
  static std::string interpreter() {
    static const std::string path = [] {
      std::string out(4096, '\0');
      auto* pipe = ::popen("python3 -c 'import sys; print(sys.executable, end=\"\")'", "r");
      out.resize(std::fread(out.data(), 1, out.size(), pipe));
      ::pclose(pipe);
      return out;
    }();
    return path;
  }
  LaunchSpec python(const std::string& id, const std::string& code) {
    auto spec = command(id, {"mlrun", code});
    spec.python = interpreter();
    spec.environment = "env";
    return spec;
  }
  std::string output_of(const std::string& id, const std::string& code) {
    last_ = end_of(python(id, code));
    return log(id);
  }
  PodStatus last_;
};

TEST_F(ZygoteTest, A_forked_pod_is_its_shims_child_and_its_end_is_true) {
  const auto text =
      output_of("one",
                "import os, sys\nprint(open(f'/proc/{os.getppid()}/comm').read().strip(), "
                "'metier_runner.zygote' in sys.modules)\nsys.exit(7)");
  EXPECT_EQ(text, "metier-shim True\n");
  EXPECT_EQ(last_.containers[0].exit_code, 7);
  EXPECT_EQ(last_.reason, "Error");
}

TEST_F(ZygoteTest, Signals_and_exceptions_end_it_as_any_program) {
  output_of("sig", "import os\nos.kill(os.getpid(), 11)");
  EXPECT_EQ(last_.reason, "Killed(SIGSEGV)");
  EXPECT_NE(output_of("exc", "raise ValueError('no')").find("ValueError: no"), std::string::npos);
  EXPECT_EQ(last_.containers[0].exit_code, 1);
  EXPECT_EQ(output_of("text", "import sys\nsys.exit('said')"), "said\n");
  EXPECT_EQ(last_.containers[0].exit_code, 1);
  EXPECT_EQ(
      output_of("int", "import os, signal\nos.kill(os.getpid(), 2)").find("KeyboardInterrupt") !=
          std::string::npos,
      true);
}

TEST_F(ZygoteTest, It_looks_freshly_started) {
  const auto text =
      output_of("fresh",
                "import os, sys, signal, threading, multiprocessing, __main__\n"
                "print(sys.argv[0], __main__.__name__, os.getsid(0) == os.getpid(), "
                "threading.current_thread().name)\n"
                "print(sorted(os.listdir('/proc/self/fd'))[:3], len(os.listdir('/proc/self/fd')))\n"
                "print(multiprocessing.current_process().name, multiprocessing.parent_process())\n"
                "print(signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGCHLD), "
                "signal.getsignal(signal.SIGINT) is signal.default_int_handler)\n"
                "print(sys.stdin.read() == '', len(os.listdir('/proc/self/task')))\n"
                "print([l for l in open('/proc/self/status') if l.startswith(('CapEff', "
                "'NoNewPrivs') + (('CapBnd',) if os.getuid() == 0 else ()))])\n");
  // An ordinary user without a user namespace cannot shrink the bounding set; NoNewPrivs makes it worthless.
  const std::string bound = ::geteuid() == 0 ? "'CapBnd:\\t0000000000000000\\n', " : "";
  EXPECT_EQ(text,
            "mlrun __main__ True MainThread\n"
            "['0', '1', '2'] 4\n"
            "MainProcess None\n"
            "0 0 True\n"
            "True 1\n"
            "['CapEff:\\t0000000000000000\\n', " +
                bound + "'NoNewPrivs:\\t1\\n']\n");
}

TEST_F(ZygoteTest, Environment_is_the_pods_alone) {
  auto spec = python("env",
                     "import os, subprocess\nprint(os.environ['OMP_NUM_THREADS'], 'HOME' in "
                     "os.environ, 'METIER_ZYGOTE_CANARY' in os.environ, "
                     "flush=True)\nsubprocess.run(['sh', '-c', 'echo $A $OPENBLAS_NUM_THREADS'])");
  ::setenv("METIER_ZYGOTE_CANARY", "1", 1);
  spec.env["main"] = {{"A", "b"}, {"OMP_NUM_THREADS", "6"}};
  end_of(std::move(spec));
  ::unsetenv("METIER_ZYGOTE_CANARY");
  EXPECT_EQ(log("env"), "6 True False\nb\n");
}

TEST_F(ZygoteTest, Two_pods_draw_different_numbers) {
  const std::string code =
      "import random, uuid, tempfile\nprint(random.random(), uuid.uuid4(), "
      "next(tempfile._get_candidate_names()))";
  EXPECT_NE(output_of("r1", code), output_of("r2", code));
}

TEST_F(ZygoteTest, What_a_pod_breaks_stays_its_own) {
  output_of("break",
            "import os, sys, signal, locale\nos.chdir('/'); os.umask(0); "
            "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
            "os.environ['X'] = '1'\nsys.path.clear()\nsys.stdout = None\n[os.close(i) for i in "
            "range(3, 20) if os.path.exists(f'/proc/self/fd/{i}')]\nos._exit(0)");
  EXPECT_EQ(output_of("whole",
                      "import os, json, signal\nprint(os.umask(0), 'X' in os.environ, "
                      "signal.getsignal(signal.SIGTERM))"),
            "18 False 0\n");
}

TEST_F(ZygoteTest, Process_pools_and_subprocesses_work) {
  const auto text = output_of(
      "pool",
      "import multiprocessing, os, subprocess\n"
      "with multiprocessing.get_context('fork').Pool(2) as pool: print(pool.map(abs, [-1, -2]))\n"
      "with multiprocessing.get_context('spawn').Pool(1) as pool: print(pool.map(abs, [-3]))\n"
      "print(subprocess.check_output(['echo', 'hi']))\n");
  EXPECT_EQ(text, "[1, 2]\n[3]\nb'hi\\n'\n");
  EXPECT_TRUE(pod_processes("pool", {}).empty());
}

TEST_F(ZygoteTest, Exit_handlers_run_and_output_is_flushed) {
  EXPECT_EQ(output_of("bye",
                      "import atexit, sys, threading, time\natexit.register(print, "
                      "'handler')\nsaid = threading.Event()\nthreading.Thread(target=lambda: "
                      "(said.wait(), time.sleep(0.02), print('thread'))).start()\n"
                      "sys.stdout.write('no newline ')\nsaid.set()"),
            "no newline thread\nhandler\n");
}

TEST_F(ZygoteTest, Mounts_hosts_and_limits_hold_in_a_forked_pod) {
  const auto volume = folder_ + "/volume";
  fs::create_directories(volume + "/in");
  auto spec = python("mounts",
                     "import os, subprocess\n"
                     "print(open('/etc/hosts').read(), os.uname().nodename)\n"
                     "for where in ('/mnt/x',):\n"
                     "    try: open(where, 'w')\n"
                     "    except OSError as e: print(e.errno)\n"
                     "print(subprocess.run(['mount', '-o', 'remount,rw,bind', '/mnt'], "
                     "capture_output=True).returncode != 0, flush=True)\n"
                     "print('again', file=open('/dev/stdout', 'a'), flush=True)\n"
                     "x = bytearray(300 << 20)");
  spec.volumes = {{.name = "v", .path = volume}};
  spec.pod.containers[0].mounts = {
      {.name = "v", .mount_path = "/mnt", .sub_path = "in", .read_only = true}};
  spec.pod.containers[0].resources.limits["memory"] = Quantity::from_units(64 << 20);
  spec.pod.hostname = "forked-0";
  spec.hosts = "127.0.0.9 me\n";
  const auto status = end_of(std::move(spec));
  EXPECT_TRUE(log("mounts").starts_with("127.0.0.9 me\n forked-0\n30\nTrue\nagain\n"))
      << log("mounts");
  EXPECT_EQ(status.phase, PodPhase::failed);  // without cgroups a MemoryError by RLIMIT_DATA
  if (host_cgroups()->limits_memory()) { EXPECT_EQ(status.reason, "OOMKilled"); }
}

TEST_F(ZygoteTest, A_mount_that_fails_is_named) {
  auto spec = python("badmount", "print('never')");
  spec.volumes = {{.name = "v", .path = folder_ + "/missing"}};
  spec.pod.containers[0].mounts = {{.name = "v", .mount_path = "/mnt"}};
  const auto status = end_of(std::move(spec));
  EXPECT_EQ(status.reason, "StartFailed");
  EXPECT_NE(status.message.find("missing"), std::string::npos) << status.message;
  EXPECT_EQ(log("badmount"), "");
}

TEST_F(ZygoteTest, Pods_outlive_server_and_zygote) {
  ASSERT_TRUE(run(driver_->start(
      python("lives",
             "import os, time\nwhile not os.path.exists(os.environ['METIER_JOURNAL']): "
             "time.sleep(0.005)\nraise SystemExit(4)"))));
  leave();
  open();
  ASSERT_TRUE(run(driver_->recover("lives", {})));
  ASSERT_TRUE(write_file(pod_folder("lives") + "/work/journal", ""));
  EXPECT_EQ(run(driver_->wait("lives")).value().containers[0].exit_code, 4);
}

TEST_F(ZygoteTest, A_killed_zygote_is_replaced) {
  EXPECT_EQ(output_of("before", "print('ok')"), "ok\n");
  const int old = driver_->zygotes().pid("env");
  ASSERT_GT(old, 1);  // -1, no zygote, would be everybody
  ::kill(old, SIGKILL);
  EXPECT_EQ(output_of("after", "print('ok')"), "ok\n");
  EXPECT_EQ(output_of("later", "import os, sys\nprint('metier_runner.zygote' in sys.modules)"),
            "True\n");
  EXPECT_NE(driver_->zygotes().pid("env"), old);
}

TEST_F(ZygoteTest, An_idle_zygote_ends_without_its_pods_and_the_next_pod_has_another) {
  leave();
  options_.zygote_idle = std::chrono::milliseconds(1000);
  open();
  const auto go = folder_ + "/go";
  const auto code = fmt::format(
      "import os, sys, time\nopen('{0}/began', 'w').close()\n"
      "while not os.path.exists('{1}'): time.sleep(0.01)\nsys.exit(4)",
      folder_, go);
  ASSERT_TRUE(run(driver_->start(python("long", code))));
  const int old = driver_->zygotes().pid("env");
  await_file(folder_ + "/began");
  while (driver_->zygotes().pid("env") > 1) {
    loop_.restart();
    loop_.run_one();
  }
  if (old > 1) { EXPECT_NE(::kill(old, 0), 0) << "it has been waited for"; }
  EXPECT_EQ(output_of("next", "import sys\nprint('metier_runner.zygote' in sys.modules)"),
            "True\n");
  EXPECT_NE(driver_->zygotes().pid("env"), old);
  ASSERT_TRUE(write_file(go, ""));
  EXPECT_EQ(run(driver_->wait("long")).value().containers[0].exit_code, 4);
}

TEST_F(ZygoteTest, One_that_was_started_ahead_stays) {
  leave();
  options_.zygote_idle = std::chrono::milliseconds(100);
  open();
  ASSERT_TRUE(driver_->zygotes().prewarm("env", interpreter()));
  const int pid = driver_->zygotes().pid("env");
  EXPECT_EQ(output_of("other", "import time\ntime.sleep(0.4)"), "");
  EXPECT_EQ(driver_->zygotes().pid("env"), pid);
}

TEST_F(ZygoteTest, A_stopped_zygote_that_dies_does_not_lose_the_waiting_pod) {
  ASSERT_TRUE(driver_->zygotes().prewarm("env", interpreter()));
  while (driver_->zygotes().ready("env") == nullptr) {
    loop_.restart();
    loop_.run_one();
  }
  const int pid = driver_->zygotes().pid("env");
  ASSERT_GT(pid, 1);
  ::kill(pid, SIGSTOP);
  const auto handle = [&] {
    return run(driver_->start(
        python("waits", "import sys\nprint('metier_runner.zygote' in sys.modules)")));
  };
  asio::post(loop_, [pid] { ::kill(pid, SIGKILL); });
  ASSERT_TRUE(handle());
  EXPECT_EQ(run(driver_->wait("waits")).value().phase, PodPhase::succeeded);
}

TEST_F(ZygoteTest, An_interpreter_that_cannot_start_leaves_the_reason_in_the_pod) {
  auto spec = python("bad", "print(1)");
  spec.python = "/nonexistent/python";
  const auto status = end_of(std::move(spec));
  EXPECT_EQ(status.reason, "ProgramMissing");
  EXPECT_NE(status.message.find("/nonexistent/python"), std::string::npos) << status.message;
}

TEST_F(ZygoteTest, An_import_that_leaves_a_thread_is_named_and_moved_to_the_child) {
  leave();
  ASSERT_TRUE(write_file(folder_ + "/runner/threaded.py",
                         "import threading, time\nthreading.Thread(target=time.sleep, "
                         "args=(1000,), daemon=True).start()\n"));
  ASSERT_TRUE(write_file(folder_ + "/runner/quiet.py", "loaded = True\n"));
  options_.preload = "quiet,threaded,absent";
  open();
  EXPECT_EQ(
      output_of(
          "moved",
          "import sys, os\nprint('quiet' in sys.modules, 'threaded' in sys.modules, "
          "len(os.listdir('/proc/self/task')), os.environ.get('OMP_NUM_THREADS'))\nos._exit(0)"),
      "True True 2 None\n");
  const auto* ready = driver_->zygotes().ready("env");
  ASSERT_NE(ready, nullptr);
  const auto& said = ready->as_object();
  EXPECT_EQ(int_in(said, "threads"), 1);
  EXPECT_EQ(dump_json(*said.if_contains("moved")), R"(["threaded"])");
  EXPECT_TRUE(said.at("failed").as_object().contains("absent"));
}

TEST_F(ZygoteTest, A_shim_killed_while_adopting_never_leaves_a_pod) {
  for (const std::string point :
       {"started", "locked", "forked", "state_written", "released", "exit_seen", "exit_written"}) {
    leave();
    ::setenv("METIER_SHIM_FAILPOINT", ("shim/" + point).c_str(), 1);
    open();
    const auto id = "at-" + point;
    const auto started = run(driver_->start(python(
        id, "import sys\nprint('ran', 'metier_runner.zygote' in sys.modules)\nsys.exit(8)")));
    ::unsetenv("METIER_SHIM_FAILPOINT");
    ASSERT_TRUE(started) << point;
    const auto status = run(driver_->wait(id)).value();
    if (point == "started" ||
        point ==
            "exit_written") {  // before the lock it starts cold: the driver's own shims have no failpoint here
      EXPECT_EQ(status.containers[0].exit_code, 8) << point << log(id);
    } else {
      EXPECT_EQ(status.reason, "ShimLost") << point;
    }
    if (point == "locked" || point == "forked" || point == "state_written") {
      EXPECT_EQ(log(id), "") << point;
    }
  }
}

TEST_F(ZygoteTest, The_real_runner_is_reached) {
  leave();
  options_.runner = std::string(METIER_SOURCE_DIR) + "/python/runner";
  open();
  auto spec = python("real", "no-such-verb");
  EXPECT_EQ(end_of(std::move(spec)).containers[0].exit_code, 2);
  EXPECT_NE(log("real").find("not a verb of the in-pod runner"), std::string::npos);
}

TEST_F(ZygoteTest, Launch_rate_is_printed) {
  output_of("warm", "pass");
  const auto started = std::chrono::steady_clock::now();
  for (int i = 0; i < 50; ++i) {
    ASSERT_TRUE(run(driver_->start(python(fmt::format("n{}", i), "pass"))));
  }
  for (int i = 0; i < 50; ++i) {
    ASSERT_EQ(run(driver_->wait(fmt::format("n{}", i))).value().phase, PodPhase::succeeded);
  }
  std::printf(
      "50 forked pods: %.0f/s\n",
      50 / std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count());
}

}  // namespace
}  // namespace metier
