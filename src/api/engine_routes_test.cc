// The routes over the engine – submit, logs, what MLRun's API has not – with the scripted cluster, the kinds of this
// build, a store in memory and no socket.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "api/engine_api.h"
#include "cluster/fake/fake_cluster.h"
#include "engine/testing/memory_store.h"
#include "kind/builtin.h"

namespace metier::api {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

class SeededRandom final : public Random {
 public:
  void fill(char* out, std::size_t n) override {
    for (std::size_t i = 0; i < n; ++i) {
      state_ = state_ * 6364136223846793005ULL + 1442695040888963407ULL;
      out[i] = static_cast<char>(state_ >> 33U);
    }
  }

 private:
  std::uint64_t state_ = 1;
};

class ScriptedBuilder final : public EnvironmentBuilder {
 public:
  Async<Result<std::string>> build(BuildAsk ask) override {
    asked.push_back(ask);
    co_return error ? Result<std::string>(fail(*error)) : Result<std::string>("e1");
  }
  std::string log_path(const BuildAsk&) const override { return {}; }
  std::vector<BuildAsk> asked;
  std::optional<Error> error;
};

class EngineRoutes : public ::testing::Test {
 protected:
  EngineRoutes() : cluster_(io_.get_executor(), clock_), store_(cluster_.objects()) {
    std::string name = (std::filesystem::temp_directory_path() / "metier-api-XXXXXX").string();
    data_ = ::mkdtemp(name.data());
    for (const char* project : {"default", "other"}) {
      store_.records_.project_bodies[project] =
          dump_json(JsonObject{{"metadata", JsonObject{{"name", project}}},
                               {"spec", JsonObject{}},
                               {"status", JsonObject{{"state", "online"}}}});
    }
    EngineOptions options;
    options.data = data_;
    options.log_wait = std::chrono::milliseconds(0);
    ground_ = std::make_unique<Ground>(
        Ground{io_.get_executor(), store_, cluster_, kinds_, clock_, random_, Logger{}, options});
    engine_ = std::make_unique<Engine>(*ground_);
    describe_ = std::make_unique<Describe>(*ground_, *engine_);
    objects_ = std::make_unique<ProjectObjects>(*ground_);
    resources_ = std::make_unique<RuntimeResources>(*ground_);
    builds_ = std::make_unique<Builds>(*ground_, &builder_);
    deployments_ = std::make_unique<Deployments>(*ground_, *engine_);
    EXPECT_TRUE(wait(engine_->open_tokens()));
    EXPECT_TRUE(wait(engine_->start()));
    EXPECT_TRUE(wait(deployments_->start()));
    Access access;
    access.run_token = [](std::string_view token) {
      return token == "of-u1" ? std::optional(RunTokenScope{"default", "u1"}) : std::nullopt;
    };
    router_ = std::make_unique<Router>(std::move(access), Logger());
    api_ = std::make_unique<EngineApi>(EngineApi{
        .engine = *engine_,
        .describe = *describe_,
        .objects = *objects_,
        .resources = *resources_,
        .builds = *builds_,
        .deployments = *deployments_,
        .environments = [] { return Json(JsonArray{JsonObject{{"id", "e1"}}}); },
        .secrets_changed = [this](
                               const std::string& project,
                               const std::string& name) { told_.push_back(project + "/" + name); },
        .router = router_.get(),
        .started = clock_.now()});
    add_submit_routes(*router_, *api_);
    add_log_routes(*router_, *api_);
    add_metier_routes(*router_, *api_);
  }
  ~EngineRoutes() override {
    asio::co_spawn(io_.get_executor(), builds_->stop(), [](std::exception_ptr) {});
    asio::co_spawn(io_.get_executor(), deployments_->stop(), [](std::exception_ptr) {});
    asio::co_spawn(io_.get_executor(), engine_->stop(), [](std::exception_ptr) {});
    drain();
    std::error_code error;
    std::filesystem::remove_all(data_, error);
  }

  void drain() {
    io_.restart();
    while (io_.poll() > 0) {}
  }
  template <class T>
  T wait(Async<T> task) {
    std::optional<T> out;
    asio::co_spawn(
        io_.get_executor(),
        [](Async<T> inner, std::optional<T>& result) -> Async<void> {
          result.emplace(co_await std::move(inner));
        }(std::move(task), out),
        [](std::exception_ptr error) {
          if (error) { std::rethrow_exception(error); }
        });
    for (int i = 0; i < 1000 && !out; ++i) { drain(); }
    if (!out) { throw std::runtime_error("the call did not end"); }
    drain();
    return std::move(*out);
  }

  net::Response ask(std::string method, std::string target, std::string body = "",
                    net::Headers headers = {}) {
    net::Request request;
    request.method = std::move(method);
    const auto mark = target.find('?');
    request.path = target.substr(0, mark);
    for (std::string rest = mark == std::string::npos ? "" : target.substr(mark + 1);
         !rest.empty();) {
      const auto end = rest.find('&');
      const auto pair = rest.substr(0, end);
      const auto equals = pair.find('=');
      request.query.emplace_back(pair.substr(0, equals),
                                 equals == std::string::npos ? "" : pair.substr(equals + 1));
      rest = end == std::string::npos ? "" : rest.substr(end + 1);
    }
    request.body = std::move(body);
    request.headers = std::move(headers);
    if (as_run_) {
      request.peer.listener = "runs";
      request.headers.emplace_back("host", "127.0.0.1");
      request.headers.emplace_back("authorization", "Bearer of-u1");
    } else {
      request.peer.unix_socket = true;
    }
    return wait(router_->handle(std::move(request)));
  }
  static Json json(const net::Response& response) {
    auto document = parse_json(response.body);
    EXPECT_TRUE(document) << response.body;
    return document ? std::move(*document) : Json();
  }
  static std::string header(const net::Response& response, std::string_view name) {
    return std::string(net::header(response.headers, name));
  }

  static JsonObject body_of(std::string uid = "u1", JsonObject spec = {},
                            std::string kind = "job") {
    spec["image"] = "i";
    spec["command"] = "true";
    spec["mode"] = "pass";
    JsonObject metadata{{"name", "train"}, {"project", "default"}};
    if (!uid.empty()) { metadata["uid"] = uid; }
    return JsonObject{
        {"task", JsonObject{{"metadata", std::move(metadata)}, {"spec", JsonObject{}}}},
        {"function",
         JsonObject{{"kind", kind},
                    {"metadata", JsonObject{{"name", "trainer"}, {"project", "default"}}},
                    {"spec", std::move(spec)}}}};
  }
  net::Response submit(const JsonObject& body, net::Headers headers = {}) {
    return ask("POST", "/api/v1/submit_job", dump_json(Json(body)), std::move(headers));
  }
  std::string pod(const std::string& uid = "u1") { return resource_name("train", uid, 0, 1); }

  asio::io_context io_;
  ManualClock clock_;
  SeededRandom random_;
  FakeCluster cluster_;
  MemoryStore store_;
  KindRegistry kinds_ = builtin_kinds();
  ScriptedBuilder builder_;
  std::string data_;
  std::unique_ptr<Ground> ground_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<Describe> describe_;
  std::unique_ptr<ProjectObjects> objects_;
  std::unique_ptr<RuntimeResources> resources_;
  std::unique_ptr<Builds> builds_;
  std::unique_ptr<Deployments> deployments_;
  std::unique_ptr<Router> router_;
  std::unique_ptr<EngineApi> api_;
  std::vector<std::string> told_;
  bool as_run_ = false;
};

TEST_F(EngineRoutes, SubmitAnswersTheStoredRunAndItsLogTellsTheState) {
  const auto answer = submit(body_of());
  ASSERT_EQ(answer.status, 200) << answer.body;
  EXPECT_EQ(string_at(json(answer), "data.metadata.uid"), "u1");
  EXPECT_EQ(string_at(json(answer), "data.status.state"), "pending");
  cluster_.run("default", pod());
  cluster_.append_log("default", pod(), "hello\nworld\n");
  drain();
  auto log = ask("GET", "/api/v1/projects/default/logs/u1?offset=6&size=3");
  EXPECT_EQ(log.status, 200);
  EXPECT_EQ(log.body, "wor");
  EXPECT_EQ(header(log, "x-mlrun-run-state"), "running");
  cluster_.succeed("default", pod());
  drain();
  log = ask("GET", "/api/v1/log/default/u1?offset=12");
  EXPECT_EQ(log.body, "");
  EXPECT_EQ(header(log, "x-mlrun-run-state"), "completed");
  EXPECT_EQ(json(ask("GET", "/api/v1/projects/default/logs/u1/size")).at("size").to_number<int>(),
            12);
}

TEST_F(EngineRoutes, EverythingThatIsWrongWithASubmitIs400AndSaysWhat) {
  const auto refused = [&](const std::string& body, std::string_view part) {
    const auto answer = ask("POST", "/api/v1/submit_job", body);
    EXPECT_EQ(answer.status, 400) << body;
    EXPECT_THAT(std::string(string_at(json(answer), "detail.reason")) + " " +
                    std::string(string_at(json(answer), "detail.field")),
                HasSubstr(std::string(part)))
        << answer.body;
    EXPECT_FALSE(string_at(json(answer), "detail.kind").empty()) << answer.body;
  };
  refused("{", "body");
  refused("[]", "object");
  refused("{}", "task");
  refused(R"({"task": {}})", "function");
  refused(R"({"task": {}, "functionUrl": "db://default/none"})", "no function");
  refused(R"({"task": {}, "functionUrl": "hub://describe"})", "hub");
  refused(R"({"task": {"metadata": {"project": "nowhere"}}, "function": {"kind": "job"}})",
          "no project 'nowhere'");
  refused(R"({"task": {"metadata": {"uid": "a/b"}}, "function": {"kind": "job"}})", "not a uid");
  refused(dump_json(Json(body_of("u1", {}, "jbo"))), "jbo");
  refused(dump_json(Json(body_of("u1", {}, "handler"))), "caller's side");
  refused(dump_json(Json(body_of("u1", {}, "local"))), "caller's side");
  refused(dump_json(Json(body_of(
              "u1", {{"resources", JsonObject{{"limits", JsonObject{{"memory", "2GB"}}}}}}))),
          "2GB");
  cluster_.admission.verdict = Admission::Verdict::never_fits;
  cluster_.admission.code = "NeverFits";
  cluster_.admission.reason = "asks for 9 of cpu; this node has 2";
  refused(dump_json(Json(body_of())), "asks for 9");
  EXPECT_EQ(cluster_.calls(FakeCluster::Op::apply), 0);
  EXPECT_EQ(engine_->live_runs(), 0U);
}

TEST_F(EngineRoutes, WhatIsNotBuiltYetIs501AndToTheSdk400WhichItDoesNotHide) {
  auto scheduled = body_of();
  scheduled["schedule"] = "0 * * * *";
  auto notified = body_of();
  notified["task"].as_object()["spec"].as_object()["notifications"] =
      JsonArray{JsonObject{{"kind", "slack"}, {"name", "n"}}};
  for (const auto& [body, field] :
       {std::pair{&scheduled, "schedule"}, {&notified, "spec.notifications"}}) {
    const auto answer = submit(*body);
    EXPECT_EQ(answer.status, 501) << answer.body;
    EXPECT_EQ(string_at(json(answer), "detail.field"), field);
    EXPECT_EQ(string_at(json(answer), "detail.code"), "NotBuilt");
    const auto sdk = submit(*body, {{"x-mlrun-client-version", "1.12.1"}});
    EXPECT_EQ(sdk.status, 400) << sdk.body;
    EXPECT_EQ(string_at(json(sdk), "detail.field"), field);
  }
}

TEST_F(EngineRoutes, ARepeatedIdempotencyKeyGivesTheSameRun) {
  const net::Headers key{{"idempotency-key", "k1"}};
  const auto first = json(submit(body_of(""), key));
  const auto second = json(submit(body_of(""), key));
  const auto other = json(submit(body_of(""), {{"idempotency-key", "k2"}}));
  EXPECT_FALSE(string_at(first, "data.metadata.uid").empty());
  EXPECT_EQ(string_at(first, "data.metadata.uid"), string_at(second, "data.metadata.uid"));
  EXPECT_NE(string_at(first, "data.metadata.uid"), string_at(other, "data.metadata.uid"));
  EXPECT_EQ(cluster_.calls(FakeCluster::Op::apply), 2);
}

TEST_F(EngineRoutes, ARunReachesItsOwnProjectOnly) {
  ASSERT_EQ(submit(body_of()).status, 200);
  as_run_ = true;
  auto elsewhere = body_of("u2");
  elsewhere["task"].as_object()["metadata"].as_object()["project"] = "other";
  EXPECT_EQ(submit(elsewhere).status, 400);
  EXPECT_EQ(submit(body_of("u2")).status, 200);
  EXPECT_EQ(ask("GET", "/api/v1/projects/other/logs/u1").status, 404);
  EXPECT_EQ(
      ask("POST", "/api/metier/v1/objects", R"({"kind":"Secret","metadata":{"name":"s"}})").status,
      403);
  EXPECT_EQ(ask("PATCH", "/api/metier/v1/objects/Secret/s", R"({"stringData":{"a":"b"}})").status,
            403);
  EXPECT_EQ(ask("DELETE", "/api/metier/v1/objects/Secret/s").status, 403);
}

TEST_F(EngineRoutes, LogsNameWhatIsWrong) {
  EXPECT_EQ(ask("GET", "/api/v1/projects/default/logs/none").status, 404);
  EXPECT_EQ(ask("GET", "/api/v1/projects/default/logs/none/size").status, 404);
  ASSERT_EQ(submit(body_of()).status, 200);
  for (const char* query : {"offset=-1", "offset=x", "size=-2", "attempt=-1", "wait=perhaps"}) {
    const auto answer = ask("GET", std::string("/api/v1/projects/default/logs/u1?") + query);
    EXPECT_EQ(answer.status, 400) << query;
    EXPECT_FALSE(string_at(json(answer), "detail.field").empty()) << answer.body;
  }
}

TEST_F(EngineRoutes, TheLogOfAnAttemptIsNoOtherRunsLog) {
  auto body = body_of("u1");
  body["task"].as_object()["spec"].as_object()["retry"] = JsonObject{{"count", 1}};
  ASSERT_EQ(submit(body).status, 200);
  cluster_.append_log("default", pod(), "one\n");
  cluster_.run("default", pod());
  cluster_.fail_pod("default", pod(), 1);
  drain();
  clock_.advance(std::chrono::seconds(31));
  asio::co_spawn(io_.get_executor(), engine_->run_due(), [](std::exception_ptr) {});
  drain();
  const auto second = resource_name("train", "u1", 0, 2);
  cluster_.append_log("default", second, "two\n");
  cluster_.run("default", second);
  cluster_.fail_pod("default", second, 1);
  drain();
  // A run that a client holds may have any uid; its log is a file of that name.
  RunRow held = *store_.records().run("default", "u1", 0).value();
  held.uid = "u1.2";
  ASSERT_TRUE(store_.records_.put_run(held));
  EXPECT_EQ(ask("POST", "/api/v1/projects/default/logs/u1.2", "other\n").status, 200);
  EXPECT_EQ(ask("GET", "/api/v1/projects/default/logs/u1").body, "one\ntwo\n");
  EXPECT_EQ(ask("GET", "/api/v1/projects/default/logs/u1.2").body, "other\n");
}

TEST_F(EngineRoutes, TheTimesOfALog) {
  ASSERT_EQ(submit(body_of("abc1")).status, 200);
  cluster_.run("default", pod("abc1"));
  cluster_.append_log("default", pod("abc1"), "one\ntwo\nthree\n");
  drain();
  // As the shim keeps it beside the log.
  const auto log = std::filesystem::path(data_) / "pod" / "log";
  std::filesystem::create_directories(log.parent_path());
  cluster_.work_folders["default/" + pod("abc1")] = (log.parent_path() / "work").string();
  std::ofstream(log) << "one\ntwo\nthree\n";
  const auto start = clock_.now();
  const auto times = [this](const std::string& query) {
    return json(ask("GET", "/api/metier/v1/runs/abc1/log-times" + query));
  };
  const auto second = start + std::chrono::seconds(60);
  ASSERT_TRUE(append_log_time(log.string(), {.end = 4, .at = start}));
  ASSERT_TRUE(append_log_time(log.string(), {.end = 14, .at = second}));
  const auto body = [](int offset, const std::string& marks) {
    return parse_json(fmt::format(R"({{"offset":{},"times":[{}]}})", offset, marks)).value();
  };
  const auto mark = [](int end, Time at) { return fmt::format(R"([{},"{}"])", end, to_iso(at)); };
  EXPECT_EQ(times(""), body(0, mark(4, start) + "," + mark(14, second)));
  EXPECT_EQ(times("?offset=4"), body(0, mark(14, second)));
  const auto since = to_iso(start + std::chrono::seconds(30));
  EXPECT_EQ(times("?limit=0&since=" + since), body(4, ""));
  EXPECT_EQ(times("?since=" + since), body(4, mark(14, second)));
  EXPECT_EQ(ask("GET", "/api/metier/v1/runs/abc1/log-times?since=yesterday").status, 400);
  EXPECT_EQ(ask("GET", "/api/metier/v1/runs/none/log-times").status, 404);
  // What a client appends to the log of a run that it holds has the time of the request.
  RunRow held = *store_.records().run("default", "abc1", 0).value();
  held.uid = "held1";
  ASSERT_TRUE(store_.records_.put_run(held));
  EXPECT_EQ(ask("POST", "/api/v1/projects/default/logs/held1", "other\n").status, 200);
  EXPECT_EQ(json(ask("GET", "/api/metier/v1/runs/held1/log-times")), body(0, mark(6, start)));
}

TEST_F(EngineRoutes, WhyAndTimelineOfARunByPrefixAndName) {
  ASSERT_EQ(submit(body_of("abc1")).status, 200);
  ASSERT_EQ(submit(body_of("abd2")).status, 200);
  cluster_.wait_for("default", pod("abc1"), "SecretMissing", "secret 'v' does not exist");
  drain();
  const auto why = json(ask("GET", "/api/metier/v1/runs/abc/why"));
  EXPECT_EQ(string_at(why, "code"), "SecretMissing");
  EXPECT_THAT(std::string(string_at(why, "sentence")), HasSubstr("secret that does not exist"));
  EXPECT_EQ(ask("GET", "/api/metier/v1/runs/ab/why").status, 409);
  EXPECT_EQ(ask("GET", "/api/metier/v1/runs/train/why").status, 200);
  EXPECT_EQ(ask("GET", "/api/metier/v1/runs/none/why").status, 404);
  EXPECT_EQ(ask("GET", "/api/metier/v1/runs/abc1/why?project=other").status, 404);
  const auto timeline = json(ask("GET", "/api/metier/v1/runs/abc1/timeline"));
  EXPECT_NE(find_path(timeline, "phases"), nullptr);
  EXPECT_FALSE(find_path(timeline, "events")->as_array().empty());
}

TEST_F(EngineRoutes, AdmitAndRenderTellAndChangeNothing) {
  auto told = json(ask("POST", "/api/metier/v1/admit", dump_json(Json(body_of("")))));
  EXPECT_EQ(string_at(told, "verdict"), "ok");
  EXPECT_EQ(string_at(told, "function.kind"), "job");
  EXPECT_EQ(find_path(told, "objects")->as_array().size(), 1U);
  cluster_.admission = {.verdict = Admission::Verdict::never_fits,
                        .reason = "too large",
                        .fix = "less",
                        .code = "NeverFits",
                        .warnings = {}};
  told = json(ask("POST", "/api/metier/v1/admit", dump_json(Json(body_of("")))));
  EXPECT_EQ(string_at(told, "verdict"), "never_fits");
  EXPECT_EQ(string_at(told, "reason"), "too large");
  const auto first = ask("POST", "/api/metier/v1/render", dump_json(Json(body_of(""))));
  const auto second = ask("POST", "/api/metier/v1/render", dump_json(Json(body_of(""))));
  EXPECT_EQ(first.body, second.body);
  EXPECT_THAT(first.body, HasSubstr(R"("app.kubernetes.io/managed-by":"metier")"));
  EXPECT_THAT(first.body, HasSubstr(R"("app.kubernetes.io/name":"trainer")"));
  EXPECT_EQ(string_at(find_path(json(first), "items")->as_array().at(0), "kind"), "Pod");
  EXPECT_EQ(cluster_.calls(FakeCluster::Op::apply), 0);
  EXPECT_TRUE(store_.records_.run_rows.empty());
}

TEST_F(EngineRoutes, KeysOfASecretAreAddedReplacedAndRemoved) {
  const auto keys = [&] {
    std::vector<std::string> out;
    const auto listed = json(ask("GET", "/api/metier/v1/objects?kind=Secret"));
    for (const auto& item : find_path(listed, "items")->as_array()) {
      const auto text =
          object_in(item.as_object(), "metadata")->at("annotations").at("metier.dev/keys");
      out.emplace_back(text.as_string());
    }
    return out;
  };
  const auto patch = [&](std::string_view body) {
    return ask("PATCH", "/api/metier/v1/objects/Secret/db", std::string(body)).status;
  };
  EXPECT_EQ(patch(R"({"stringData":{"user":"me"}})"), 200);
  EXPECT_EQ(patch(R"({"stringData":{"password":"hush"}})"), 200);
  EXPECT_THAT(keys(), ElementsAre(R"(["password","user"])"));
  EXPECT_EQ(patch(R"({"stringData":{"password":"other","user":null}})"), 200);
  EXPECT_THAT(keys(), ElementsAre(R"(["password"])"));
  EXPECT_EQ(*objects_->open_secret("default", "db"),
            (std::map<std::string, std::string>{{"password", "other"}}));
  EXPECT_EQ(patch(R"({"stringData":{"none":null}})"), 404);
  EXPECT_EQ(patch(R"({"stringData":{"a/b":"x"}})"), 400);
  EXPECT_EQ(patch(R"({"stringData":{"a":1}})"), 400);
  EXPECT_EQ(patch(R"({})"), 400);
  EXPECT_EQ(
      ask("PATCH", "/api/metier/v1/objects/ConfigMap/db", R"({"stringData":{"a":"b"}})").status,
      400);
  EXPECT_THAT(ask("GET", "/api/metier/v1/objects").body, Not(HasSubstr("other")));
  EXPECT_EQ(patch(R"({"stringData":{"password":null}})"), 200);
  EXPECT_THAT(keys(), ElementsAre());
  EXPECT_EQ(told_, (std::vector<std::string>(4, "default/db")));
}

TEST_F(EngineRoutes, ObjectsOfAProject) {
  const auto apply = [&](std::string_view body) {
    return ask("POST", "/api/metier/v1/objects", std::string(body)).status;
  };
  EXPECT_EQ(
      apply(R"({"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c"},"data":{"a":"b"}})"),
      200);
  EXPECT_EQ(apply(R"({"items":[]})"), 400);
  EXPECT_EQ(apply(R"({"apiVersion":"v1","kind":"Pod","metadata":{"name":"c"}})"), 400);
  EXPECT_EQ(
      apply(R"({"apiVersion":"v1","kind":"Secret","metadata":{"name":"c","namespace":"other"}})"),
      404);
  EXPECT_EQ(apply(R"({"apiVersion":"v1","kind":"Secret","metadata":{"name":"metier-env-x"}})"),
            403);
  EXPECT_EQ(find_path(json(ask("GET", "/api/metier/v1/objects?project=other")), "items")
                ->as_array()
                .size(),
            0U);
  EXPECT_EQ(ask("DELETE", "/api/metier/v1/objects/ConfigMap/c").status, 200);
  EXPECT_EQ(find_path(json(ask("GET", "/api/metier/v1/objects")), "items")->as_array().size(), 0U);
}

TEST_F(EngineRoutes, EventsAsADocument) {
  const auto before = json(ask("GET", "/api/metier/v1/events?form=json&wait=false"));
  ASSERT_EQ(submit(body_of()).status, 200);
  const auto since = "since=" + std::to_string(before.at("last").to_number<int>());
  const auto after = json(ask("GET", "/api/metier/v1/events?form=json&wait=false&" + since));
  const auto& events = find_path(after, "events")->as_array();
  ASSERT_EQ(events.size(), 1U);
  EXPECT_EQ(string_at(events[0], "data.uid"), "u1");
  EXPECT_EQ(string_at(events[0], "data.state"), "pending");
  const auto other =
      json(ask("GET", "/api/metier/v1/events?form=json&wait=false&project=other&" + since));
  EXPECT_TRUE(find_path(other, "events")->as_array().empty());
  EXPECT_EQ(header(ask("GET", "/api/metier/v1/events"), "content-type"), "text/event-stream");
}

TEST_F(EngineRoutes, AnAbortIsABackgroundTask) {
  ASSERT_EQ(submit(body_of()).status, 200);
  cluster_.run("default", pod());
  drain();
  const auto answer = ask("POST", "/api/v1/projects/default/runs/u1/abort", "{}");
  EXPECT_EQ(answer.status, 202) << answer.body;
  const auto task = std::string(string_at(json(answer), "metadata.name"));
  ASSERT_FALSE(task.empty());
  drain();
  EXPECT_EQ(ask("GET", "/api/v1/projects/default/background-tasks/" + task).status, 200);
  EXPECT_EQ(ask("GET", "/api/v1/projects/other/background-tasks/" + task).status, 404);
  EXPECT_EQ(ask("GET", "/api/v1/projects/default/background-tasks/none").status, 404);
  EXPECT_EQ(ask("POST", "/api/v1/projects/default/runs/none/abort", "{}").status, 404);
  const auto log = ask("GET", "/api/v1/projects/default/logs/u1");
  EXPECT_THAT(header(log, "x-mlrun-run-state"), HasSubstr("abort"));
}

TEST_F(EngineRoutes, PushingNotificationsIsDoneOrRefused) {
  ASSERT_EQ(submit(body_of()).status, 200);
  const auto answer = ask("POST", "/api/v1/projects/default/runs/u1/push-notifications");
  EXPECT_EQ(answer.status, 202) << answer.body;
  EXPECT_EQ(string_at(json(answer), "status.state"), "succeeded");
  EXPECT_EQ(ask("POST", "/api/v1/projects/default/runs/none/push-notifications").status, 404);
  RunRow row = *store_.records().run("default", "u1", 0).value();
  row.uid = "u2";
  row.body = R"({"metadata":{"uid":"u2"},"spec":{"notifications":[{"kind":"slack"}]},"status":{}})";
  ASSERT_TRUE(store_.records_.put_run(row));
  const auto refused = ask("POST", "/api/v1/projects/default/runs/u2/push-notifications");
  EXPECT_EQ(refused.status, 501);
  EXPECT_EQ(string_at(json(refused), "detail.field"), "spec.notifications");
}

TEST_F(EngineRoutes, RuntimeResourcesAreThePodsOfRuns) {
  ASSERT_EQ(submit(body_of()).status, 200);
  cluster_.run("default", pod());
  drain();
  EXPECT_THAT(ask("GET", "/api/v1/projects/default/runtime-resources").body, HasSubstr(pod()));
  EXPECT_THAT(ask("GET", "/api/v1/projects/other/runtime-resources").body, Not(HasSubstr(pod())));
  EXPECT_EQ(ask("GET", "/api/v1/projects/default/runtime-resources?force=perhaps").status, 400);
  const auto brief = ask("GET", "/api/metier/v1/pods?project=default").body;
  EXPECT_THAT(brief, HasSubstr(pod()));
  EXPECT_THAT(brief, testing::Not(HasSubstr("containers\":[{\"name\":\"base\",\"image")));
  EXPECT_THAT(ask("GET", "/api/metier/v1/pods?project=default&format=full").body,
              HasSubstr("containers\":[{\"name\":\"base\",\"image"));
}

TEST_F(EngineRoutes, ABuildIsAnEnvironment) {
  JsonObject function{
      {"kind", "job"},
      {"metadata", JsonObject{{"name", "f"}, {"project", "default"}}},
      {"spec", JsonObject{{"build", JsonObject{{"requirements", JsonArray{"six"}}}}}}};
  EXPECT_EQ(ask("POST", "/api/v1/build/function", "{}").status, 400);
  const auto begun =
      ask("POST", "/api/v1/build/function", dump_json(Json(JsonObject{{"function", function}})));
  EXPECT_EQ(begun.status, 200) << begun.body;
  drain();
  ASSERT_EQ(builder_.asked.size(), 1U);
  EXPECT_THAT(builder_.asked[0].requirements, ElementsAre("six"));
  auto status = ask("GET", "/api/v1/build/status?project=default&name=f");
  EXPECT_EQ(header(status, "x-mlrun-function-status"), "ready");
  builder_.error =
      Error{.kind = ErrorKind::exhausted, .message = "no", .code = "EnvironmentFailed"};
  function["spec"].as_object()["build"].as_object()["requirements"] = JsonArray{"seven"};
  ask("POST", "/api/v1/build/function", dump_json(Json(JsonObject{{"function", function}})));
  drain();
  status = ask("GET", "/api/v1/build/status?project=default&name=f");
  EXPECT_EQ(header(status, "x-mlrun-function-status"), "error");
}

TEST_F(EngineRoutes, TellsOfItself) {
  EXPECT_EQ(string_at(json(ask("GET", "/healthz")), "status"), "ok");
  EXPECT_EQ(ask("GET", "/readyz").status, 200);
  cluster_.fail_next(FakeCluster::Op::probe,
                     Error{.kind = ErrorKind::unavailable, .message = "gone"});
  EXPECT_EQ(ask("GET", "/readyz").status, 503);
  ASSERT_EQ(submit(body_of()).status, 200);
  EXPECT_THAT(ask("GET", "/metrics").body, HasSubstr("\nmetier_runs_live 1\n"));
  EXPECT_THAT(ask("GET", "/api/metier/v1/kinds").body, HasSubstr(R"("kind":"mpijob")"));
  EXPECT_THAT(ask("GET", "/api/metier/v1/environments").body, HasSubstr("e1"));
  const auto document = json(ask("GET", "/openapi.json"));
  EXPECT_NE(document.at("paths").as_object().if_contains("/api/metier/v1/runs/{uid}/why"), nullptr);
}

}  // namespace
}  // namespace metier::api
