// Whole verbs: the command line as a program of its own against a scripted server on a unix socket.
#include "cli/verbs.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <regex>

#include "metier/test_paths.h"
#include "net/testing/loopback.h"

namespace metier::cli {
namespace {

namespace fs = std::filesystem;

struct Said {
  int code = 0;
  std::string out;
  std::string err;
};

class Verbs : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string path = fs::temp_directory_path() / "metier-verbs-XXXXXX";
    ASSERT_NE(::mkdtemp(path.data()), nullptr);
    folder_ = path;
    std::ofstream(folder_ + "/train.py") << "def train(context, lr=0.1):\n    print(lr)\n";
    ASSERT_TRUE(server_.listen({.name = "u", .unix_path = folder_ + "/metier.sock"}));
    server_.start();
  }
  void TearDown() override {
    server_.stop(std::chrono::milliseconds(100));
    fs::remove_all(folder_);
  }

  // "METHOD path" → answer; the path is without query.
  void answer(const std::string& route, int status, std::string body, net::Headers headers = {}) {
    const std::lock_guard lock(mutex_);
    auto response = net::json_response(status, std::move(body));
    response.headers.insert(response.headers.end(), headers.begin(), headers.end());
    answers_[route].push_back(std::move(response));
  }
  std::string body_of(const std::string& route) {
    const std::lock_guard lock(mutex_);
    return bodies_[route];
  }
  std::string header_of(const std::string& name) {
    const std::lock_guard lock(mutex_);
    return headers_[name];
  }

  Said metier(const std::vector<std::string>& words, const std::string& more_environment = {}) {
    std::string line = "cd " + folder_ + " && env -i PATH=$PATH HOME=" + folder_ +
                       " METIER_SERVER=" + folder_ + "/metier.sock LANG=C.UTF-8 " +
                       more_environment + " " METIER_BINARY_DIR "/src/cli/cli_driver";
    for (const auto& word : words) { line += " '" + word + "'"; }
    line += " > out 2> err < /dev/null";
    const int status = std::system(line.c_str());
    return {WEXITSTATUS(status), text_of("out"), text_of("err")};
  }
  std::string text_of(const std::string& name) {
    return read_file(folder_ + "/" + name).value_or(std::string());
  }

  void script_run(std::string_view status) {
    answer(
        "POST /api/v1/submit_job", 200,
        R"({"data":{"metadata":{"uid":"4f9a12c70000000000000000000000aa","name":"train","project":"default"},"status":{"state":"pending"}}})");
    const std::string logs = "GET /api/v1/projects/default/logs/4f9a12c70000000000000000000000aa";
    answer(logs, 200, "fitting\n", {{"x-mlrun-run-state", "running"}});
    answer(logs, 200, "", {{"x-mlrun-run-state", "completed"}});
    answer(
        "GET /api/v1/projects/default/runs/4f9a12c70000000000000000000000aa", 200,
        R"({"data":{"metadata":{"uid":"4f9a12c70000000000000000000000aa","name":"train"},"status":)" +
            std::string(status) + "}}");
  }

  std::string folder_;
  bool any_uid_ = false;
  std::string hold_;
  std::atomic<int> held_ = 0;

 private:
  Async<net::Response> respond(net::Request request) {
    auto path = request.path;
    if (any_uid_) {  // the run's uid is random: any is U
      static const std::regex uid("[0-9a-f]{32}");
      path = std::regex_replace(path, uid, "U");
    }
    const auto route = request.method + " " + path;
    if (route == hold_) {
      ++held_;
      auto response = net::json_response(200, "");
      response.headers.emplace_back("x-mlrun-run-state", "running");
      co_await sleep_for(server_.loop().get_executor(), std::chrono::seconds(5));
      co_return response;
    }
    const std::lock_guard lock(mutex_);
    // A log comes in pieces.
    auto& body = bodies_[route];
    body =
        route.starts_with("POST ") && path.contains("/logs/") ? body + request.body : request.body;
    for (const auto& [name, value] : request.headers) { headers_[name] = value; }
    auto& queue = answers_[route];
    if (queue.empty()) {
      co_return net::json_response(404, R"({"detail":{"reason":"no route )" + route + "\"}}");
    }
    auto response = queue.front();
    if (queue.size() > 1) { queue.erase(queue.begin()); }
    co_return response;
  }

  std::mutex mutex_;
  std::map<std::string, std::vector<net::Response>> answers_;
  std::map<std::string, std::string> bodies_;
  std::map<std::string, std::string> headers_;
  net::testing::Loopback server_{
      [this](net::Request request) { return respond(std::move(request)); }};
};

TEST_F(Verbs, TheInterpreterOfTheSettingsIsOfTheCallersFolder) {
  EXPECT_EQ(active_python({{"METIER_PYTHON", "env/bin/python"}}),
            (fs::current_path() / "env/bin/python").string());
  EXPECT_EQ(active_python({{"METIER_PYTHON", "/opt/python"}}), "/opt/python");
  EXPECT_EQ(active_python({{"METIER_PYTHON", "python3.11"}}), "python3.11");
}

TEST_F(Verbs, RunStreamsTheLogThenPrintsResults) {
  script_run(
      R"({"state":"completed","results":{"accuracy":0.9733},"start_time":"2026-01-01T00:00:00+00:00","end_time":"2026-01-01T00:00:04+00:00",)"
      R"("artifacts":[{"kind":"model","metadata":{"key":"m"},"spec":{"size":2048}}],"artifact_uris":{"m":"store://models/default/train_m#0:latest"}})");
  const auto said = metier({"run", "train.py:train", "--kind", "job", "-p", "lr=0.05"},
                           "VIRTUAL_ENV= METIER_PYTHON=/opt/python");
  EXPECT_EQ(said.code, 0) << said.err;
  EXPECT_EQ(
      said.out,
      "fitting\naccuracy\t0.9733\nm\tmodel\t2.0 KiB\tstore://models/default/train_m#0:latest\n");
  EXPECT_EQ(said.err, "✓ train  job  4f9a12c7\n✓ completed in 4.00 s\n");
  const auto body = parse_json(body_of("POST /api/v1/submit_job"));
  ASSERT_TRUE(body);
  EXPECT_EQ(string_at(*body, "task.spec.handler"), "train");
  EXPECT_EQ(string_at(*body, "function.kind"), "job");
  EXPECT_EQ(header_of("x-metier-context"), fs::canonical(folder_).string());
  EXPECT_EQ(header_of("x-metier-python"), "/opt/python");
}

TEST_F(Verbs, RunWithJsonHasOneDocumentOnStdout) {
  script_run(R"({"state":"completed","results":{"a":1}})");
  const auto said = metier({"run", "train.py:train", "--kind", "job", "-o", "json"});
  EXPECT_EQ(said.code, 0);
  const auto document = parse_json(said.out);
  ASSERT_TRUE(document) << said.out;
  EXPECT_EQ(string_at(*document, "status.state"), "completed");
  EXPECT_NE(said.err.find("fitting\n"), std::string::npos);
}

TEST_F(Verbs, AFailureShowsTheUsersLine) {
  script_run(
      R"({"state":"error","reason":"HandlerError","error":"TypeError: no","start_time":"2026-01-01T00:00:00+00:00","end_time":"2026-01-01T00:00:00.34+00:00",)"
      R"("failure":{"type":"TypeError","message":"can't multiply","file":"train.py","line":21,"function":"train","source":"  20 for x in y:\n  21     w -= rate * x",)"
      R"("columns":[9,17],"hint":"parameter lr was passed as text","called_from":[{"file":"train.py","line":44,"function":"main"}],"hidden_frames":7}})");
  const auto said = metier({"run", "train.py:train", "--kind", "job"});
  EXPECT_EQ(said.code, 1);
  EXPECT_EQ(said.err,
            "✓ train  job  4f9a12c7\n"
            "✗ failed after 0.34 s: TypeError in your code\n"
            "\n"
            "  train.py:21, in train\n"
            "    20   for x in y:\n"
            "  ▸ 21       w -= rate * x\n"
            "                  ^^^^^^^^\n"
            "  TypeError: can't multiply\n"
            "\n"
            "  called from train.py:44, in main · 7 frames of python and metier not shown, the "
            "whole traceback: metier logs 4f9a12c7\n"
            "  hint: parameter lr was passed as text\n"
            "exit 1 · reason HandlerError · metier logs 4f9a12c7\n");
}

TEST_F(Verbs, AHandlerRunsInThisTerminalByTheRealRunner) {
  const auto found = std::system("python3 -c 'import sys; sys.exit(sys.version_info < (3, 9))'");
  if (found != 0) { GTEST_SKIP() << "no python3 here"; }
  answer(
      "GET /api/v1/projects/default/runs/U", 200,
      R"({"data":{"metadata":{"uid":"u"},"status":{"state":"completed","results":{"seen":1}}}})");
  any_uid_ = true;
  answer("POST /api/v1/projects/default/runs/U", 200, "{}");
  answer("PATCH /api/v1/projects/default/runs/U", 200, "{}");
  answer("POST /api/v1/projects/default/logs/U", 200, "{}");
  answer("POST /api/metier/v1/runs/U/lease", 200, "{}");
  const auto said = metier({"run", "train.py:train", "--kind", "handler", "-p", "lr=0.25"},
                           "METIER_RUNNER=" METIER_SOURCE_DIR "/python/runner");
  EXPECT_EQ(said.code, 0) << said.err;
  EXPECT_EQ(said.out, "0.25\nseen\t1\n");
  const auto stored = parse_json(body_of("POST /api/v1/projects/default/runs/U"));
  ASSERT_TRUE(stored);
  EXPECT_EQ(string_at(*stored, "status.state"), "running");
  EXPECT_EQ(body_of("POST /api/v1/projects/default/logs/U"), "0.25\n");
}

TEST_F(Verbs, AKilledInterpreterIsRecordedAsAnError) {
  any_uid_ = true;
  answer("GET /api/v1/projects/default/runs/U", 200,
         R"({"data":{"metadata":{"uid":"u"},"status":{"state":"running"}}})");
  answer("GET /api/v1/projects/default/runs/U", 200,
         R"({"data":{"metadata":{"uid":"u"},"status":{"state":"error","error":"x"}}})");
  answer("POST /api/v1/projects/default/runs/U", 200, "{}");
  answer("PATCH /api/v1/projects/default/runs/U", 200, "{}");
  const auto said =
      metier({"run", "train.py:train", "--kind", "handler"}, "METIER_PYTHON=/no/such/python");
  EXPECT_EQ(said.code, 1) << said.err;
  EXPECT_NE(
      body_of("PATCH /api/v1/projects/default/runs/U").find("/no/such/python cannot be started"),
      std::string::npos);
}

TEST_F(Verbs, LocalSendsFolderAndEnvironmentOverTheSocket) {
  answer(
      "POST /api/metier/v1/local", 200,
      R"({"data":{"metadata":{"uid":"4f9a12c70000000000000000000000aa","name":"train"},"status":{"state":"running"}}})");
  script_run(R"({"state":"completed"})");
  const auto said = metier({"run", "train.py:train"}, "SOME=thing METIER_TOKEN=t0p");
  EXPECT_EQ(said.code, 0) << said.err;
  const auto body = parse_json(body_of("POST /api/metier/v1/local"));
  ASSERT_TRUE(body);
  EXPECT_EQ(string_at(*body, "env.SOME"), "thing");
  EXPECT_EQ(string_at(*body, "env.METIER_TOKEN"), "");
  EXPECT_EQ(string_at(*body, "cwd"), fs::canonical(folder_).string());
  EXPECT_EQ(string_at(*body, "function.kind"), "local");
  EXPECT_EQ(header_of("authorization"), "Bearer t0p");
}

TEST_F(Verbs, ASecondInterruptDetaches) {
  script_run(R"({"state":"running"})");
  const std::string logs = "GET /api/v1/projects/default/logs/4f9a12c70000000000000000000000aa";
  hold_ = logs;  // the log of a run that says nothing
  const pid_t child = ::fork();
  if (child == 0) {
    const Fd out(::open((folder_ + "/out").c_str(), O_WRONLY | O_CREAT, 0600));
    const Fd err(::open((folder_ + "/err").c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600));
    const Fd null(::open("/dev/null", O_RDONLY));
    ::dup2(null.get(), 0);
    ::dup2(out.get(), 1);
    ::dup2(err.get(), 2);
    ::setenv("METIER_SERVER", (folder_ + "/metier.sock").c_str(), 1);
    ::execl(METIER_BINARY_DIR "/src/cli/cli_driver", "metier", "run",
            (folder_ + "/train.py").c_str(), "--kind", "job", nullptr);
    ::_exit(99);
  }
  const auto wait_for = [&](std::string_view text) {
    while (text_of("err").find(text) == std::string::npos) { std::this_thread::yield(); }
  };
  wait_for("train");
  while (held_ == 0) { std::this_thread::yield(); }
  ::kill(child, SIGINT);
  wait_for("goes on");
  ::kill(child, SIGINT);
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_EQ(WEXITSTATUS(status), 130);
  EXPECT_NE(text_of("err").find("detached"), std::string::npos) << text_of("err");
}

TEST_F(Verbs, TheExitCodeSaysWhoHasToAct) {
  EXPECT_EQ(exit_code_of_run("completed", ""), 0);
  EXPECT_EQ(exit_code_of_run("error", "OOMKilled"), 1);
  EXPECT_EQ(exit_code_of_run("error", "EnvironmentFailed"), 5);
  EXPECT_EQ(exit_code_of_run("aborted", "AbortedByUser"), 4);
  EXPECT_EQ(exit_code_of_run("error", "Internal"), 70);
  answer(
      "POST /api/v1/submit_job", 400,
      R"({"detail":{"reason":"needs 64 GiB in one pod","fix":"ask for at most --mem 27G","code":"NeverFits"}})");
  const auto said = metier({"run", "train.py:train", "--kind", "job", "--mem", "64Gi"});
  EXPECT_EQ(said.code, 5);
  EXPECT_EQ(said.err,
            "error: needs 64 GiB in one pod\n       ask for at most --mem 27G\nreason NeverFits · "
            "metier help NeverFits\n");
}

TEST_F(Verbs, MistakesAreFoundBeforeTheServerIsAsked) {
  auto said = metier({"run", "train.py:trian"});
  EXPECT_EQ(said.code, 2);
  EXPECT_EQ(said.err,
            "error: train.py: no function 'trian'\n       functions in this file: train. Run: "
            "metier run train.py:train\nreason HandlerMissing · metier help HandlerMissing\n");
  said = metier({"run", "nothing.py"});
  EXPECT_EQ(said.code, 3);
  said = metier({"rnu", "train.py"});
  EXPECT_EQ(said.code, 2);
  EXPECT_EQ(said.err, "error: 'rnu' is not a verb, did you mean run?\n       verbs: metier help\n");
  said = metier({"schedule", "x.py"});
  EXPECT_EQ(said.code, 2);
  EXPECT_NE(said.err.find("not in this version"), std::string::npos);
  said = metier({"run", "train.py:train", "--nonsense", "-o", "json"});
  EXPECT_EQ(said.code, 2);
}

TEST_F(Verbs, GetRunsPipedIsTabsWithFullUids) {
  answer(
      "GET /api/v1/projects/default/runs", 200,
      R"({"runs":[{"metadata":{"name":"train","uid":"4f9a12c70000000000000000000000aa","labels":{"kind":"job"}},)"
      R"("status":{"state":"completed","start_time":"2026-01-01T00:00:00+00:00","end_time":"2026-01-01T00:00:04+00:00","results":{"a":1}}}]})");
  const auto said = metier({"get", "runs"});
  EXPECT_EQ(said.out,
            "train\tjob\tcompleted\t2026-01-01T00:00:00+00:00\t4.00 "
            "s\ta=1\t4f9a12c70000000000000000000000aa\n")
      << said.err;
  EXPECT_EQ(metier({"get", "runs", "-o", "name"}).out, "4f9a12c70000000000000000000000aa\n");
  EXPECT_TRUE(parse_json(metier({"get", "runs", "-o", "json"}).out));
  const auto typo = metier({"get", "rnus"});
  EXPECT_EQ(typo.code, 2);
  EXPECT_NE(typo.err.find("did you mean runs?"), std::string::npos);
}

TEST_F(Verbs, AnEmptyListSaysHowToStart) {
  answer("GET /api/v1/projects/default/runs", 200, R"({"runs":[]})");
  const auto said = metier({"get", "runs"});
  EXPECT_EQ(said.code, 0);
  EXPECT_EQ(said.err, "No runs in project default yet. Start one: metier run FILE\n");
}

TEST_F(Verbs, WhyPrintsCauseFactsAndFixes) {
  answer("GET /api/v1/projects/default/runs", 200,
         R"({"runs":[{"metadata":{"name":"big","uid":"91b0c3fd0000000000000000000000aa"}}]})");
  answer("GET /api/v1/projects/default/runs/91b0c3fd0000000000000000000000aa", 200,
         R"({"data":{"metadata":{"name":"big","uid":"91b0c3fd0000000000000000000000aa"}}})");
  answer(
      "GET /api/metier/v1/runs/91b0c3fd0000000000000000000000aa/why", 200,
      R"({"code":"InsufficientMemory","sentence":"big waits for memory","facts":[["asked","memory 24 GiB","from requests"]],"fixes":[["make room","metier abort etl"]]})");
  const auto said = metier({"why", "big"});
  EXPECT_EQ(said.code, 0) << said.err;
  EXPECT_EQ(said.out,
            "big waits for memory\n\n  asked        memory 24 GiB   from requests\n\n  make room   "
            "           metier abort etl\n"
            "reason InsufficientMemory · metier help InsufficientMemory\n");
}

TEST_F(Verbs, LogsSinceATimeBeginWithALineAndShowWhenEachBegan) {
  const std::string uid = "4f9a12c70000000000000000000000aa";
  answer("GET /api/v1/projects/default/runs", 200,
         R"({"runs":[{"metadata":{"name":"train","uid":")" + uid + R"("}}]})");
  answer("GET /api/v1/projects/default/runs/" + uid, 200,
         R"({"data":{"metadata":{"name":"train","uid":")" + uid + R"("}}})");
  const auto times = "GET /api/metier/v1/runs/" + uid + "/log-times";
  answer(times, 200, R"({"offset":6,"times":[]})");
  const auto logs = "GET /api/v1/projects/default/logs/" + uid;
  answer(logs, 200, "lf a line\ntwo\nthr");  // from the byte before
  answer(logs, 200, "two\nthr");
  answer(times, 200, R"({"offset":0,"times":[[19,"T1"],[22,"T2"]]})");
  answer(logs, 200, "ee\nfour\n");
  answer(times, 200, R"({"offset":0,"times":[[30,"T3"]]})");
  answer(logs, 200, "");
  const auto said = metier({"logs", "train", "--since", "5m", "--timestamps"});
  EXPECT_EQ(said.code, 0) << said.err;
  EXPECT_EQ(said.out, "T1 two\nT2 three\nT3 four\n");
  const auto wrong = metier({"logs", "train", "--since", "yesterday"});
  EXPECT_EQ(wrong.code, 2);
  EXPECT_EQ(wrong.err,
            "error: --since: 'yesterday' is no duration and no time\n"
            "       write 30s, 5m, 1h, or 2026-11-25T16:20:28\n");
}

TEST_F(Verbs, NothingOfThatNameIsExit3) {
  answer("GET /api/v1/projects/default/runs", 200, R"({"runs":[]})");
  const auto said = metier({"logs", "nothing"});
  EXPECT_EQ(said.code, 3);
  EXPECT_EQ(
      said.err,
      "error: no run 'nothing' in project default\n       runs: metier get runs -P default\n");
}

TEST_F(Verbs, AServerThatIsNotThereIsExit6AndAMalformedOneExit2) {
  auto said = metier({"get", "runs"}, "METIER_SERVER=http://127.0.0.1:1");
  EXPECT_EQ(said.code, 6);
  EXPECT_NE(said.err.find("no server at http://127.0.0.1:1 (connection refused) (METIER_SERVER)"),
            std::string::npos)
      << said.err;
  EXPECT_EQ(metier({"get", "runs"}, "METIER_SERVER=ftp://x").code, 2);
  EXPECT_EQ(metier({"get", "runs"}, "METIER_SERVER=http://x:99999").code, 2);
  EXPECT_EQ(metier({"get", "runs"}, "METIER_SERVER=" + folder_ + "/train.py").code, 6);
}

TEST_F(Verbs, EveryVerbHasHelpThatNamesItsFlags) {
  for (const auto& entry : all_verbs()) {
    const auto said = metier({"help", std::string(entry.verb.name)});
    EXPECT_EQ(said.code, 0);
    for (const auto& flag : entry.verb.flags) {
      EXPECT_NE(said.out.find(flag.name), std::string::npos) << entry.verb.name << flag.name;
    }
    EXPECT_EQ(metier({std::string(entry.verb.name), "--help"}).out, said.out);
  }
  EXPECT_NE(metier({"help", "exit-codes"}).out.find("130"), std::string::npos);
  EXPECT_NE(metier({"help", "OOMKilled"}).out.find("--mem"), std::string::npos);
  EXPECT_EQ(metier({}).code, 0);
}

TEST_F(Verbs, AFullOrClosedOutputIsNoCrash) {
  script_run(R"({"state":"completed"})");
  const auto line = "cd " + folder_ + " && METIER_SERVER=" + folder_ +
                    "/metier.sock " METIER_BINARY_DIR
                    "/src/cli/cli_driver run train.py:train --kind job > /dev/full 2> err";
  EXPECT_EQ(WEXITSTATUS(std::system(line.c_str())), 2);
  EXPECT_NE(text_of("err").find("standard output"), std::string::npos) << text_of("err");
}

TEST_F(Verbs, CompletesVerbsFlagsAndKinds) {
  EXPECT_EQ(metier({"__complete", "de"}).out, "deploy\ndescribe\ndelete\n");
  EXPECT_EQ(metier({"__complete", "run", "--dryrun"}).out, "");
  EXPECT_EQ(metier({"__complete", "run", "--kind", "mp"}).out, "mpijob\n");
  EXPECT_NE(metier({"__complete", "run", "--k"}).out.find("--kind"), std::string::npos);
}

TEST_F(Verbs, AValueOfASecretIsNeverAnArgument) {
  const auto said = metier({"secret", "set", "db:password", "hunter2"});
  EXPECT_EQ(said.code, 2);
  EXPECT_EQ(said.err.find("hunter2"), std::string::npos);
}

TEST_F(Verbs, CommandsThatStartAtOnceShareOnePrivateServer) {
  const auto data = folder_ + "/data";
  const auto line = "cd " + folder_ +
                    " && unset METIER_SERVER && for i in 1 2 3 4; do METIER_DATA=" + data +
                    " " METIER_BINARY_DIR
                    "/src/cli/cli_driver get runs > out.$i 2> err.$i & pids=\"$pids $!\"; done; "
                    "for p in $pids; do wait $p || exit 1; done";
  EXPECT_EQ(WEXITSTATUS(std::system(line.c_str())), 0)
      << text_of("err.1") << text_of("err.2") << text_of("err.3") << text_of("err.4");
  EXPECT_EQ(text_of("data/starts"), "start\n");
  const auto all = text_of("err.1") + text_of("err.2") + text_of("err.3") + text_of("err.4");
  EXPECT_NE(all.find("started one for you (ends when idle). Records: " + data), std::string::npos)
      << all;
}

TEST_F(Verbs, ServerChecksItsFlagsFirst) {
  EXPECT_EQ(metier({"server", "--listen", "nonsense"}).code, 2);
  EXPECT_EQ(metier({"server", "--listen", "0.0.0.0:0", "--auth", "none"}).code, 2);
  EXPECT_EQ(metier({"server", "--tls-cert", "x"}).code, 2);
  EXPECT_EQ(metier({"server", "--cluster", "kubernetes"}).code, 5);
  EXPECT_EQ(metier({"server", "--cluster", "moon"}).code, 2);
}

}  // namespace
}  // namespace metier::cli
