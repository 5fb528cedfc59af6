#include <gtest/gtest.h>

#include <random>

#include "base/files.h"
#include "base/text.h"
#include "base/yaml.h"
#include "metier/test_paths.h"
#include "model/artifact.h"
#include "model/attributes.h"
#include "model/create.h"
#include "model/entry_points.h"
#include "model/kinds.h"
#include "model/merge.h"
#include "model/notebook.h"
#include "model/project.h"
#include "model/run.h"
#include "resource/resource.h"

namespace metier {
namespace {

const std::filesystem::path kData = std::filesystem::path(METIER_SOURCE_DIR) / "src/model/testdata";

std::string text_of(const std::string& name) {
  auto text = read_file(kData / name);
  return text ? *text : "no file " + name;
}
Json json_of(const std::string& name) {
  auto parsed = parse_json(text_of(name));
  return parsed ? *parsed : Json(nullptr);
}
std::string sorted(const Json& value) { return dump_python_json(value); }

Function job(std::string kind = "job") {
  NewFunction arguments{.name = "f", .project = "p", .kind = std::move(kind), .image = "i"};
  if (is_local_kind(arguments.kind)) {
    arguments.image.clear();
    arguments.command = "a.py";
  }
  auto made = new_function(arguments, system_random());
  return made ? *made : Function();
}

TEST(Function, IsMadeInEveryKindAsMlrunMakesIt) {
  const Json expected = json_of("mlrun-1.12.1-new.json");
  for (const auto& [kind, document] : expected.get_object()) {
    NewFunction arguments{.name = "my_fn",
                          .project = "p",
                          .kind = std::string(kind),
                          .command = kind == "local" ? "a.py" : "",
                          .image = kind == "local" ? "" : "img"};
    auto made = new_function(arguments, system_random());
    ASSERT_TRUE(made) << kind << ": " << made.error().text();
    EXPECT_EQ(sorted(made->to_dict()), sorted(document)) << kind;
  }
}

TEST(Function, IsMadeOfCodeAsMlrunMakesIt) {
  const Json expected = json_of("mlrun-1.12.1-code.json");
  for (const auto& [key, document] : expected.get_object()) {
    const std::string kind(key);
    const bool notebook = kind == "notebook";
    CodeToFunction arguments{.name = notebook ? "nb" : "t_x",
                             .project = "p",
                             .filename = kData / (notebook ? "nb.ipynb" : "train.py"),
                             .handler = notebook || kind == "serving" ? "" : "train",
                             .kind = notebook ? "job" : kind,
                             .image = notebook ? "" : "i"};
    auto made = code_to_function(arguments);
    ASSERT_TRUE(made) << kind << ": " << made.error().text();
    for (const std::string_view field :
         {"code_origin", "origin_filename"}) {  // we gave a path, the recording a name
      made->spec()["build"].get_object()[field] = arguments.filename.filename().string();
    }
    if (made->spec().contains("filename")) {
      made->spec()["filename"] = arguments.filename.filename().string();
    }
    Json wanted = document;
    if (kind == "serving" ||
        kind ==
            "nuclio:mlrun") {  // MLRun appends a wrapper that imports mlrun; our processor needs none
      Json& theirs = wanted.at("spec").at("build").at("functionSourceCode");
      ASSERT_TRUE(base64_decode(std::string_view(theirs.get_string()))->starts_with(*made->code()));
      theirs = made->text("build.functionSourceCode");
    }
    EXPECT_EQ(sorted(made->to_dict()), sorted(wanted)) << kind;
  }
}

TEST(Function, FilesOfMlrunRoundTripWithoutADifference) {
  for (const std::string kind : {"local", "job", "mpijob", "spark", "remote-spark", "dask",
                                 "nuclio", "serving", "nuclio-mlrun"}) {
    const std::string written = text_of("export-" + kind + ".yaml");
    auto read = parse_function(written, "yaml");
    ASSERT_TRUE(read) << kind << ": " << read.error().text();
    auto again = export_text(*read);
    ASSERT_TRUE(again);
    EXPECT_EQ(sorted(*parse_yaml(*again)), sorted(*parse_yaml(written))) << kind;
  }
  auto full = parse_function(text_of("full.yaml"), "yaml");
  ASSERT_TRUE(full);
  EXPECT_EQ(sorted(*parse_yaml(*export_text(*full, ".yaml", Strip::no))),
            sorted(*parse_yaml(text_of("full.yaml"))));
  EXPECT_EQ(sorted(*parse_json(*export_text(*full, ".json", Strip::no))),
            sorted(*parse_yaml(text_of("full.yaml"))));
}

TEST(Function, HashIsMlruns) {
  const Json recorded = json_of("mlrun-1.12.1-hash.json");
  auto function = Function::from_json(recorded.at("document"));
  ASSERT_TRUE(function);
  EXPECT_EQ(function->compute_hash(), std::string(recorded.at("hash").get_string()));
  function->set_tag("v1");
  function->status()["state"] = "ready";
  function->metadata()["hash"] = "abc";
  EXPECT_EQ(function->compute_hash(), std::string(recorded.at("hash").get_string()));
}

TEST(Function, KeepsWhatItDoesNotKnow) {
  auto function = Function::from_json(*parse_json(
      R"({"kind":"job","x":1,"metadata":{"name":"a","y":[2]},"spec":{"z":{"q":null}}})"));
  ASSERT_TRUE(function);
  EXPECT_EQ(
      dump_json(function->to_dict()),
      R"({"kind":"job","x":1,"metadata":{"name":"a","y":[2]},"spec":{"z":{"q":null}},"verbose":false})");
}

TEST(Function, NamesFieldAndBothTypes) {
  const auto error = [](std::string_view text) {
    auto function = Function::from_json(*parse_json(text));
    return function ? std::string("accepted")
                    : function.error().text() + "|" + function.error().fix;
  };
  EXPECT_EQ(error(R"({"spec":[]})"), "spec: expected an object, got a list|");
  EXPECT_EQ(error(R"({"spec":{"env":{}}})"),
            "spec.env: expected a list, got an object|write a list of {name: NAME, value: VALUE}");
  EXPECT_EQ(error(R"({"spec":{"env":[{"value":"x"}]}})"),
            "spec.env[0].name: name is missing|write {name: NAME, value: VALUE}");
  EXPECT_EQ(error(R"({"metadata":"x","spec":{"command":3}})"),
            "2 problems|metadata: expected an object, got a text\nspec.command: expected text, got "
            "an integer");
  EXPECT_EQ(error(R"([])"),
            "expected a function object, got a list|a function has kind, metadata and spec");
}

TEST(Kinds, SuggestTheNearest) {
  auto kind = resolve_kind("mpi-job", "--kind");
  ASSERT_FALSE(kind);
  EXPECT_EQ(kind.error().text(), "--kind: 'mpi-job' is unknown, did you mean 'mpijob'?");
  EXPECT_EQ(kind.error().fix,
            "kinds: handler local job dask mpijob spark remote-spark nuclio serving");
  EXPECT_EQ(resolve_kind("nuclio:mlrun")->kind, "remote");
  EXPECT_EQ(resolve_kind("nuclio:mlrun")->function_kind, "mlrun");
  EXPECT_FALSE(resolve_kind("Job"));
  EXPECT_FALSE(resolve_kind("databricks"));
}

TEST(NewFunction, ResolvesKindAndName) {
  const auto made = [](NewFunction arguments) { return *new_function(arguments, system_random()); };
  EXPECT_EQ(made({.command = "dir/My_train.py"}).kind(), "local");
  EXPECT_EQ(made({.command = "dir/My_train.py"}).name(), "my-train");
  EXPECT_EQ(made({}).kind(), "handler");
  EXPECT_EQ(made({}).name().size(), 12U);
  EXPECT_EQ(made({.command = "http://x/y"}).kind(), "remote");
  EXPECT_EQ(made({.name = "a", .kind = "nuclio", .handler = "m:h"}).text("function_handler"),
            "m:h");
  EXPECT_FALSE(new_function({.name = "a", .kind = "serving", .handler = "h"}, system_random()));
  EXPECT_FALSE(new_function({.command = "a.py", .image = "i"}, system_random()));
  EXPECT_FALSE(new_function({.name = "a/b", .kind = "job"}, system_random()));
  EXPECT_FALSE(new_function({.name = "a", .kind = "job", .mode = "fast"}, system_random()));
}

TEST(NewFunction, MovesTheImageUnderWhatMustBeBuilt) {
  auto made = new_function({.name = "a",
                            .kind = "job",
                            .image = "i",
                            .requirements = {"pandas", "# no", "pandas", "x>1 # why"}},
                           system_random());
  ASSERT_TRUE(made);
  EXPECT_EQ(made->text("image"), "");
  EXPECT_EQ(made->text("build.base_image"), "i");
  EXPECT_EQ(dump_json(*made->find("build.requirements")), R"(["pandas","x>1"])");
}

TEST(Names, UrisReadAndWrite) {
  EXPECT_EQ(function_uri(*parse_function_uri("db://p/f@abc", "d")), "p/f@abc");
  EXPECT_EQ(function_uri(*parse_function_uri("f:v1", "d")), "d/f:v1");
  EXPECT_FALSE(parse_function_uri("hub://x", "d"));
  EXPECT_FALSE(parse_function_uri("p/", "d"));
  EXPECT_EQ(run_uri(*parse_run_uri("p@0a#3:t")), "p@0a#3:t");
  EXPECT_EQ(run_uri(*parse_run_uri("p@0a")), "p@0a#0");
  EXPECT_FALSE(parse_run_uri("p@0a#x"));
  EXPECT_EQ(store_uri(*parse_store_uri("store://models/p/a_b#0:v1@tree^uid", "d")),
            "store://models/p/a_b#0:v1@tree^uid");
  EXPECT_EQ(store_uri(*parse_store_uri("store://p/key", "d")), "store://artifacts/p/key");
  EXPECT_EQ(store_uri(*parse_store_uri("store://key@t", "d")), "store://artifacts/d/key@t");
  EXPECT_FALSE(parse_store_uri("s3://a", "d"));
}

TEST(Names, OfRunsAndTheirResources) {
  EXPECT_EQ(default_run_name("my_fn", "mod.train"), "my-fn-train");
  EXPECT_EQ(default_run_name("fn", "Cls::do it"), "fn-do-it");
  EXPECT_EQ(default_run_name("fn", ""), "fn");
  const std::string name = resource_name(
      "A_very long.name that never ends and goes on and on and on until it is cut", "uid", 0, 1);
  EXPECT_LE(name.size() + std::string("-worker-99999").size(), 63U);
  EXPECT_TRUE(is_dns_label(name));
  EXPECT_EQ(name, resource_name(
                      "A_very long.name that never ends and goes on and on and on until it is cut",
                      "uid", 0, 1));
  EXPECT_NE(name, resource_name(
                      "A_very long.name that never ends and goes on and on and on until it is cut",
                      "uid", 0, 2));
  EXPECT_TRUE(is_dns_label(resource_name("...", "u", 0, 1)));
}

TEST(Environment, ReplacesInPlace) {
  Function f = job();
  ASSERT_TRUE(set_env(f, "A", 1));
  ASSERT_TRUE(set_env(f, "B", true));
  ASSERT_TRUE(set_env(f, "A", 2.5));
  ASSERT_TRUE(set_env_from_secret(f, "S", "x"));
  ASSERT_TRUE(set_env(f, "N", nullptr));
  EXPECT_EQ(dump_json(*f.find("env")),
            R"([{"name":"A","value":"2.5"},{"name":"B","value":"True"},)"
            R"({"name":"S","valueFrom":{"secretKeyRef":{"name":"x","key":"S"}}},{"name":"N"}])");
  EXPECT_EQ(get_env(f, "B")->get_string(), "True");
  EXPECT_FALSE(get_env(f, "C"));
  EXPECT_FALSE(set_env(f, "A=B", 1));
}

TEST(Environment, ReadsDotenvAsPythonDotenvDoes) {
  auto read = parse_dotenv(
      "A=1\n# c\nexport B=\"x y # z\"\nC='q'  # t\nD=${A}x\nE=a b # "
      "tail\n\nF=\nG=\"l\\n1\"\nH=a#b\n");
  ASSERT_TRUE(read);
  const std::vector<std::pair<std::string, std::string>> expected = {
      {"A", "1"},   {"B", "x y # z"}, {"C", "q"},    {"D", "1x"},
      {"E", "a b"}, {"F", ""},        {"G", "l\n1"}, {"H", "a#b"}};
  EXPECT_EQ(*read, expected);
  EXPECT_EQ(parse_dotenv("A=1\nBAD\n").error().text(), "line 2: a line without '='");
  Function f = job();
  const JsonObject variables{{"a", 1}};
  EXPECT_FALSE(set_envs(f, nullptr));
  EXPECT_FALSE(set_envs(f, &variables, "x"));
  EXPECT_EQ(set_envs(f, nullptr, "/no/such.env").error().kind, ErrorKind::not_found);
}

TEST(Limits, PatchKeepsAndPlainReplaces) {
  Function f = job();
  ASSERT_TRUE(with_limits(f, {.mem = "1G", .gpus = 1}));
  ASSERT_TRUE(with_limits(f, {.cpu = 2, .patch = true}));
  EXPECT_EQ(dump_json(*f.find("resources")),
            R"({"limits":{"memory":"1G","nvidia.com/gpu":1,"cpu":2}})");
  ASSERT_TRUE(with_limits(f, {.cpu = 2}));
  EXPECT_EQ(dump_json(*f.find("resources")), R"({"limits":{"cpu":2}})");
  ASSERT_TRUE(gpus(f, 3, "amd.com/gpu"));
  EXPECT_EQ(dump_json(*f.find("resources")), R"({"limits":{"cpu":2,"amd.com/gpu":3}})");
  ASSERT_TRUE(with_limits(f, {}));
  EXPECT_EQ(dump_json(*f.find("resources")), R"({"limits":{}})");
  ASSERT_TRUE(with_requests(f, {.mem = "12e6", .cpu = "50mi", .gpus = 4}));
  EXPECT_EQ(dump_json(*f.find("resources.requests")), R"({"memory":"12e6","cpu":"50mi"})");
}

TEST(Limits, RefuseWhatIsNoQuantity) {
  Function f = job();
  for (const std::string_view bad : {"1g", "1GPU", "no-number", "1GB", "1 G", "G"}) {
    auto result = with_limits(f, {.mem = Json(bad)});
    ASSERT_FALSE(result) << bad;
    EXPECT_EQ(result.error().field, "function.spec.resources.limits.memory");
    EXPECT_EQ(result.error().kind, ErrorKind::invalid);
  }
  for (const std::string_view good :
       {"12M", "12Mi", "12e6", "1.2.3", "5nn", "-1", "500m", "1E-3"}) {
    EXPECT_TRUE(is_mlrun_quantity(good)) << good;
  }
  EXPECT_FALSE(f.find("resources"));  // a refused call changes nothing
  Function spark = job("spark");
  EXPECT_EQ(with_limits(spark, {.mem = "1G"}).error().kind, ErrorKind::unsupported);
  EXPECT_EQ(gpus(spark, 1).error().kind, ErrorKind::unsupported);
  Function dask = job("dask");
  ASSERT_TRUE(gpus(dask, 1));
  EXPECT_EQ(dump_json(*dask.find("worker_resources")), R"({"limits":{"nvidia.com/gpu":1}})");
  Function local = job("local");
  EXPECT_EQ(with_limits(local, {.mem = "1G"}).error().kind, ErrorKind::unsupported);
}

TEST(Mounts, CollapseByNameAndPath) {
  Function f = job();
  ASSERT_TRUE(mount_hostpath(f, "/c", "/a"));
  ASSERT_TRUE(mount_hostpath(f, "/d", "/a"));
  EXPECT_EQ(dump_json(*f.find("volumes")),
            R"([{"name":"hostpath","hostPath":{"path":"/d","type":""}}])");
  EXPECT_EQ(dump_json(*f.find("volume_mounts")), R"([{"mountPath":"/a","name":"hostpath"}])");
  ASSERT_TRUE(mount_pvc(f, "", "v", "/x", "claim:/data"));
  EXPECT_EQ(dump_json(f.find("volumes")->get_array()[1]),
            R"({"name":"v","persistentVolumeClaim":{"claimName":"claim"}})");
  EXPECT_TRUE(bool_in(f.spec(), "disable_auto_mount"));
  EXPECT_FALSE(mount_pvc(f, ""));
  EXPECT_FALSE(mount_s3(f, {.secret_name = "s", .access_key = "a"}));
  ASSERT_TRUE(mount_s3(f, {.secret_name = "s", .prefix = "P_"}));
  EXPECT_EQ(
      dump_json(*f.find("env")),
      R"([{"name":"P_AWS_ACCESS_KEY_ID","valueFrom":{"secretKeyRef":{"name":"s","key":"AWS_ACCESS_KEY_ID"}}},)"
      R"({"name":"P_AWS_SECRET_ACCESS_KEY","valueFrom":{"secretKeyRef":{"name":"s","key":"AWS_SECRET_ACCESS_KEY"}}}])");
}

TEST(Placement, ChecksWhatMlrunChecks) {
  Function f = job();
  EXPECT_FALSE(set_image_pull_configuration(f, "Sometimes", ""));
  ASSERT_TRUE(set_image_pull_configuration(f, "Always", "s"));
  ASSERT_TRUE(set_image_pull_configuration(f, "", ""));
  EXPECT_EQ(f.text("image_pull_policy"), "Always");
  EXPECT_FALSE(with_preemption_mode(f, "x"));
  EXPECT_FALSE(with_priority_class(f, "x"));
  std::vector<std::string> warnings;
  ASSERT_TRUE(with_node_selection(f, {.node_selector = JsonObject{{"a/b/c", "x"}}}, &warnings));
  EXPECT_EQ(warnings.size(), 1U);
  EXPECT_FALSE(
      with_node_selection(f, {.tolerations = JsonArray{JsonObject{{"toleration_seconds", 5}}}}));
  EXPECT_FALSE(with_node_selection(f, {.affinity = JsonObject{{"node_affinity", 5}}}));
  ASSERT_TRUE(set_state_thresholds(f, JsonObject{{"executing", "2h"}}));
  EXPECT_EQ(f.text("state_thresholds.pending_scheduled"), "1h");
  EXPECT_EQ(set_state_thresholds(f, JsonObject{{"executng", "2h"}}).error().text(),
            "spec.state_thresholds.executng: 'executng' is unknown, did you mean 'executing'?");
  EXPECT_FALSE(set_state_thresholds(f, JsonObject{{"executing", "10s"}}));
  EXPECT_FALSE(set_state_thresholds(f, JsonObject{{"executing", 5}}));
  Function dask = job("dask");
  EXPECT_EQ(set_state_thresholds(dask, JsonObject{{"executing", "2h"}}).error().kind,
            ErrorKind::unsupported);
  EXPECT_EQ(set_state_thresholds(dask, JsonObject{{"executing", "2h"}}).error().fix,
            "set spec.scheduler_timeout, such as 10 minutes");
}

TEST(Code, EitherFileOrText) {
  Function f = job();
  EXPECT_FALSE(with_code(f, std::nullopt, std::nullopt));
  ASSERT_TRUE(with_code(f, std::nullopt, "def go(a): pass\n"));
  EXPECT_EQ(*f.code(), "def go(a): pass\n");
  EXPECT_TRUE(f.find("entry_points.go"));
  EXPECT_EQ(with_code(f, "/no/file.py", std::nullopt).error().kind, ErrorKind::not_found);
  EXPECT_FALSE(with_commands(f, JsonArray{1}));
  ASSERT_TRUE(with_commands(f, JsonArray{"a", "b", "a"}));
  EXPECT_EQ(dump_json(*f.find("build.commands")), R"(["a","b"])");
  EXPECT_FALSE(with_source_archive(f, "folder"));
  EXPECT_FALSE(with_source_archive(f, "x.zip", "", "", false));
  ASSERT_TRUE(with_source_archive(f, "git://host/x#main", "sub", "m.h"));
  EXPECT_TRUE(bool_in(f.find("build")->get_object(), "load_source_on_run"));
}

TEST(EntryPoints, SurviveWhatIsNoPython) {
  for (const std::string_view text :
       {"def", "def (", "def a(", "def a(\"", "def a(x=[", "'''", "def a(b: '", "class",
        "async def", "def a()->", "(((((", "\\", "def a(*,**): x"}) {
    find_entry_points(text);
  }
  EXPECT_EQ(top_level_names(
                "x = '''\ndef no(): pass\n'''\ndef yes(): pass\nclass C:\n  def m(self): pass\n"),
            (std::vector<std::string>{"yes", "C"}));
  EXPECT_EQ(find_entry_points("def a(): pass\n# mlrun:handler\ndef b(): pass\n").size(), 1U);
}

// Damaged inputs end in a value or an error, in linear time, never in a crash (run under the sanitizers).
TEST(Parsers, SurviveDamage) {
  std::mt19937 random(11);
  const std::string python = text_of("train.py");
  const std::string notebook = text_of("nb.ipynb");
  const std::string yaml = text_of("full.yaml");
  const std::string dotenv = "A=1\nexport B=\"x ${A} # z\"\nC='q'  # t\nD=${A:-b}\n";
  const auto damaged = [&](std::string text) {
    constexpr std::string_view kBytes = "\"'(){}[]:,#\\\n =$*%!-\x00\xff@a0";
    for (unsigned i = 0; i <= random() % 4; ++i) {
      const std::size_t at = random() % text.size();
      switch (random() % 3) {
        case 0: text[at] = kBytes[random() % kBytes.size()]; break;
        case 1: text.erase(at, 1 + random() % 20); break;
        default: text.insert(at, text.substr(random() % text.size(), random() % 40)); break;
      }
      if (text.empty()) { text = "x"; }
    }
    return text;
  };
  for (int i = 0; i < 1000; ++i) {
    const std::string code = damaged(python);
    find_entry_points(code);
    top_level_names(code);
    static_cast<void>(read_notebook(damaged(notebook)));
    static_cast<void>(parse_dotenv(damaged(dotenv)));
    if (auto function = parse_function(damaged(yaml), "yaml"); function) {
      static_cast<void>(validate_function(*function));
      static_cast<void>(export_text(*function));
      function->compute_hash();
    }
    static_cast<void>(parse_function_uri(damaged("db://p/f:v1@hash"), "d"));
    static_cast<void>(parse_run_uri(damaged("p@uid#3:t")));
    static_cast<void>(parse_store_uri(damaged("store://models/p/k#0:v@t^u"), "d"));
    is_mlrun_quantity(damaged("12e6Gi"));
  }
}

TEST(Parsers, StayLinear) {
  std::string brackets(1U << 20U, '(');
  std::string definitions;
  for (int i = 0; i < 60'000; ++i) { definitions += "def a\n"; }
  find_entry_points(brackets);
  find_entry_points(definitions);
  std::string unclosed;
  for (int i = 0; i < 60'000; ++i) { unclosed += "def a(x)\n"; }
  find_entry_points(unclosed);
  find_entry_points("def a(" + definitions);
  find_entry_points("def a(x=" + std::string(100'000, '[') + "): pass");
  EXPECT_FALSE(parse_dotenv("A=\"" + std::string(1U << 20U, 'x')));
}

TEST(Notebook, RefusesWhatItCannotMean) {
  EXPECT_FALSE(read_notebook("{}"));
  EXPECT_FALSE(read_notebook("x"));
  EXPECT_FALSE(
      read_notebook(R"({"cells":[{"cell_type":"code","source":"%nuclio frobnicate x"}]})"));
}

TEST(RunStates, FollowTheGraph) {
  constexpr RunState kAll[] = {RunState::created,      RunState::pending, RunState::running,
                               RunState::completed,    RunState::error,   RunState::aborting,
                               RunState::aborted,      RunState::unknown, RunState::skipped,
                               RunState::pending_retry};
  for (const RunState from : kAll) {
    EXPECT_EQ(run_state_from(to_string(from)), from);
    for (const RunState to : kAll) {
      if (is_terminal(from)) { EXPECT_EQ(may_follow(from, to), from == to); }
    }
    EXPECT_TRUE(is_terminal(from) || may_follow(from, RunState::error));
  }
  EXPECT_TRUE(may_follow(RunState::running, RunState::aborting));
  EXPECT_TRUE(may_follow(RunState::aborting, RunState::aborted));
  EXPECT_FALSE(may_follow(RunState::aborting, RunState::running));
  EXPECT_FALSE(may_follow(RunState::aborting, RunState::completed));
  EXPECT_FALSE(may_follow(RunState::running, RunState::aborted));
  EXPECT_TRUE(may_follow(RunState::pending_retry, RunState::pending));
  EXPECT_EQ(to_string(RunState::pending_retry), "pendingRetry");
}

TEST(ValidateRun, NamesEveryProblem) {
  const auto error = [](std::string_view text) {
    auto run = Run::from_json(*parse_json(text));
    auto checked = validate_run(*run);
    return checked ? std::string() : checked.error().text();
  };
  EXPECT_EQ(
      error(
          R"({"metadata":{"name":"a"},"spec":{"parameters":{"x":{"y":[1,9223372036854775807]}}}})"),
      "");
  EXPECT_EQ(
      error(
          R"({"metadata":{"name":"a"},"spec":{"parameters":{"x":{"y":[1,9223372036854775808]}}}})"),
      "spec.parameters.x.y[1]: '9223372036854775808' is larger than 2^63 - 1");
  EXPECT_EQ(error(R"({"metadata":{"name":"a"},"spec":{"inputs":{"x":1}}})"),
            "spec.inputs.x: expected a URL as text, got a integer");
  EXPECT_EQ(error(R"({"metadata":{"name":"a/b"}})"), "metadata.name: 'a/b' is not a run name");
  EXPECT_EQ(error(R"({"metadata":{"name":"a"},"spec":{"retry":{"count":-1}}})"),
            "spec.retry.count: '-1' is not a number of retries");
  EXPECT_EQ(error(R"({"metadata":{"name":""},"spec":{"inputs":[]}})"), "2 problems");
}

TEST(ValidateRun, ChecksHyperParametersWithoutBuildingThem) {
  const auto error = [](std::string_view spec) {
    auto run = metier::Run::from_json(
        *parse_json(R"({"metadata":{"name":"a"},"spec":)" + std::string(spec) + "}"));
    auto checked = validate_run(*run);
    return checked ? std::string() : checked.error().text();
  };
  EXPECT_EQ(
      error(
          R"({"hyperparams":{"a":[1,2],"b":[3]},"hyper_param_options":{"selector":"max.x.y","stop_condition":"x >= 1"}})"),
      "");
  EXPECT_EQ(error(R"({"hyperparams":{"a":[]}})"), "spec.hyperparams.a: the list is empty");
  EXPECT_EQ(
      error(R"({"hyperparams":{"a":[1,2],"b":[3]},"hyper_param_options":{"strategy":"list"}})"),
      "spec.hyperparams.b: has 1 values, the first list has 2");
  EXPECT_EQ(error(R"({"hyper_param_options":{"strategy":"gird"}})"),
            "spec.hyper_param_options.strategy: 'gird' is unknown, did you mean 'grid'?");
  EXPECT_EQ(error(R"({"hyper_param_options":{"selector":"best.x"}})"),
            "spec.hyper_param_options.selector: 'best.x' is not a selector");
  EXPECT_EQ(error(R"({"hyper_param_options":{"max_errors":-1}})"),
            "spec.hyper_param_options.max_errors: '-1' is not such a number");
  std::string many = "[0";
  for (int i = 1; i < 1000; ++i) { many += "," + std::to_string(i); }
  EXPECT_EQ(
      error(R"({"hyperparams":{"a":)" + many + R"(],"b":)" + many + R"(],"c":)" + many + "]}}"),
      "spec.hyperparams: there are more than 100000 combinations");
}

TEST(Merge, FollowsMlrunsRules) {
  Function f = job();
  ASSERT_TRUE(set_env(f, "A", "1"));
  ASSERT_TRUE(set_env(f, "B", "1"));
  ASSERT_TRUE(with_limits(f, {.cpu = "1"}));
  ASSERT_TRUE(mount_hostpath(f, "/a", "/a"));
  ASSERT_TRUE(merge_override(
      f,
      parse_json(
          R"({"metadata":{"credentials":{"access_key":"k"}},"spec":{"env":[{"name":"B","value":"2"},{"name":"C","value":"3"}],
    "resources":{"limits":{},"requests":{}},"image":"","replicas":3,"volume_mounts":[{"name":"hostpath","mountPath":"/b"}],"command":"no.py"}})")
          ->get_object()));
  EXPECT_EQ(dump_json(*f.find("env")),
            R"([{"name":"A","value":"1"},{"name":"B","value":"2"},{"name":"C","value":"3"}])");
  EXPECT_EQ(dump_json(*f.find("resources")), R"({"limits":{"cpu":"1"}})");
  EXPECT_EQ(f.text("image"), "i");
  EXPECT_EQ(f.text("command"), "");
  EXPECT_EQ(f.find("replicas")->get_int64(), 3);
  EXPECT_EQ(dump_json(*f.find("volume_mounts")), R"([{"name":"hostpath","mountPath":"/b"}])");
  EXPECT_FALSE(merge_override(f, JsonObject{{"spec", 3}}));
}

TEST(ValidateFunction, WarnsOfUnknownFieldsWithTheNearest) {
  Function f = job();
  f.spec()["replcas"] = 3;
  std::vector<std::string> warnings;
  EXPECT_TRUE(validate_function(f, &warnings));
  EXPECT_EQ(warnings,
            std::vector<std::string>{"spec.replcas: unknown field, did you mean replicas?"});
  f.spec()["resources"] = JsonObject{{"limits", JsonObject{{"memory", "2GB"}}}};
  f.spec()["replicas"] = -1;
  auto checked = validate_function(f);
  ASSERT_FALSE(checked);
  EXPECT_EQ(checked.error().message, "2 problems");
}

TEST(Artifact, ReadsItsParts) {
  auto artifact = Artifact::from_json(*parse_json(
      R"({"kind":"model","project":"p","metadata":{"key":"m","project":"p","iter":0,"tree":"t","tag":"latest","labels":{"a":"b"}},"spec":{"db_key":"train_m","size":3}})"));
  ASSERT_TRUE(artifact);
  EXPECT_EQ(store_uri(artifact->uri()), "store://models/p/train_m#0@t");
  const std::string uid = artifact->compute_uid();
  artifact->metadata()["labels"] = JsonObject{};
  artifact->spec()["metrics"] = JsonObject{{"x", 1}};
  EXPECT_EQ(artifact->compute_uid(), uid);
  EXPECT_FALSE(Artifact::from_json(*parse_json(R"({"metadata":{},"spec":{"size":"x"}})")));
  EXPECT_EQ(default_target_path("/a", "run", 0, "k", ".csv"), "/a/run/0/k.csv");
  EXPECT_EQ(expand_artifact_path("/x/{{project}}/{{run.uid}}", "p", "u", "me"), "/x/p/u");
}

TEST(Project, NeedsADnsName) {
  EXPECT_FALSE(Project::from_json(*parse_json(R"({"metadata":{"name":"My_Project"}})")));
  auto project = Project::from_json(
      *parse_json(R"({"metadata":{"name":"p"},"spec":{"x":1},"status":{"state":"deleting"}})"));
  ASSERT_TRUE(project);
  EXPECT_EQ(
      dump_json(project->document()),
      R"({"metadata":{"name":"p"},"spec":{"x":1},"status":{"state":"online"},"kind":"project"})");
}

TEST(Text, FindsTheNearest) {
  constexpr std::string_view kWords[] = {"cpu", "memory", "replicas"};
  EXPECT_EQ(nearest("cpus", kWords), "cpu");
  EXPECT_EQ(nearest("Memroy", kWords), "memory");
  EXPECT_EQ(nearest("zzz", kWords), "");
  EXPECT_EQ(nearest(std::string(1000, 'a'), kWords), "");
}

}  // namespace
}  // namespace metier
