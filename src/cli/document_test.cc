#include "cli/document.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "base/digest.h"
#include "cli/verbs.h"

namespace metier::cli {
namespace {

namespace fs = std::filesystem;

class Documents : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string path = fs::temp_directory_path() / "metier-doc-XXXXXX";
    ASSERT_NE(::mkdtemp(path.data()), nullptr);
    folder_ = path;
    std::ofstream(folder_ + "/train.py")
        << "def train(context, lr, epochs=1):\n    context.get_param('extra')\n";
    std::ofstream(folder_ + "/iris.csv") << "1\n";
    std::ofstream(folder_ + "/reqs.txt") << "# comment\nnumpy>=1.0  # why\n\npandas\n";
    std::ofstream(folder_ + "/function.yaml")
        << "kind: job\nmetadata: {name: f}\nspec: {image: i, unknown: kept}\n";
  }
  void TearDown() override { fs::remove_all(folder_); }

  Result<Submission> make(std::vector<std::string> words) {
    auto arguments = Arguments::parse(find_verb("run")->verb, words);
    if (!arguments) { return fail(std::move(arguments).error()); }
    return make_submission(*arguments, Caller{.folder = folder_,
                                              .data = "/data/metier",
                                              .socket = "/data/metier/metier.sock",
                                              .project = "default"});
  }
  Result<Submission> job(std::vector<std::string> more) {
    more.insert(more.begin(), {folder_ + "/train.py:train", "--kind", "job"});
    return make(more);
  }
  std::string folder_;
};

TEST_F(Documents, TakesAnMpiJobAndThenTheFlags) {
  std::ofstream(folder_ + "/mpijob.yaml") << R"(apiVersion: kubeflow.org/v2beta1
kind: MPIJob
metadata: {name: pi, namespace: n}
spec:
  mpiReplicaSpecs:
    Launcher: {template: {spec: {containers: [{image: i, command: [mpirun, ./pi]}]}}}
    Worker: {replicas: 2, template: {spec: {containers: [{image: i, env: [{name: B, value: "2"}]}]}}}
)";
  const auto out = make({"-f", folder_ + "/mpijob.yaml", "--replicas", "5", "-e", "A=1", "--mem",
                         "1G", "--set", "spec.clean_pod_policy=\"None\""});
  ASSERT_TRUE(out) << out.error().text();
  EXPECT_EQ(out->kind, "mpijob");
  const Json function = out->function;
  EXPECT_EQ(string_at(function, "kind"), "mpijob");
  EXPECT_EQ(string_at(function, "metadata.name"), "pi");
  EXPECT_EQ(*find_path(function, "spec.replicas"), Json(5));
  EXPECT_EQ(dump_json(*find_path(function, "spec.env")),
            R"([{"name":"B","value":"2"},{"name":"A","value":"1"}])");
  EXPECT_EQ(string_at(function, "spec.resources.limits.memory"), "1G");
  EXPECT_EQ(string_at(function, "spec.clean_pod_policy"), "None");
  EXPECT_EQ(out->warnings,
            std::vector<std::string>{
                "metadata.namespace has no effect: a run belongs to a project (-P)"});
}

TEST_F(Documents, RefusesASparkApplicationAndSaysWhatToWrite) {
  std::ofstream(folder_ + "/spark.yaml")
      << "apiVersion: sparkoperator.k8s.io/v1beta2\nkind: SparkApplication\nspec: {type: Python}\n";
  const auto out = make({"-f", folder_ + "/spark.yaml"});
  ASSERT_FALSE(out);
  EXPECT_NE(out.error().text().find("documents of kind 'SparkApplication' are not read"),
            std::string::npos)
      << out.error().text();
  EXPECT_NE(out.error().fix.find("kind spark"), std::string::npos) << out.error().fix;
}

TEST_F(Documents, BuildsFunctionAndRun) {
  const auto out = job({"-p",
                        "lr=0.05",
                        "-p",
                        "extra=text",
                        "-i",
                        "epochs=iris.csv",
                        "--cpu",
                        "2",
                        "--mem",
                        "1G",
                        "-e",
                        "A=b",
                        "--secret",
                        "db:pass-word",
                        "-v",
                        folder_ + ":/data:ro",
                        "--requirements",
                        folder_ + "/reqs.txt",
                        "--timeout",
                        "10m",
                        "--retry",
                        "2",
                        "--set",
                        "spec.x.y=[1]"});
  ASSERT_TRUE(out) << out.error().text() << out.error().fix;
  const Json function = out->function;
  const Json run = out->run;
  EXPECT_EQ(string_at(function, "metadata.name"), "train");
  EXPECT_EQ(
      base64_decode(string_at(function, "spec.build.functionSourceCode")).value().substr(0, 9),
      "def train");
  EXPECT_EQ(dump_json(*find_path(function, "spec.build.requirements")),
            R"(["numpy>=1.0","pandas"])");
  EXPECT_EQ(dump_json(*find_path(function, "spec.resources")),
            R"({"limits":{"cpu":"2","memory":"1G"},"requests":{"cpu":"2","memory":"1G"}})");
  EXPECT_EQ(
      dump_json(*find_path(function, "spec.env")),
      R"([{"name":"A","value":"b"},{"name":"pass_word","valueFrom":{"secretKeyRef":{"name":"db","key":"pass-word"}}}])");
  EXPECT_EQ(dump_json(*find_path(function, "spec.x.y")), "[1]");
  EXPECT_EQ(string_at(run, "metadata.name"), "train");
  EXPECT_EQ(string_at(run, "spec.handler"), "train");
  EXPECT_EQ(dump_json(*find_path(run, "spec.parameters")), R"({"lr":0.05,"extra":"text"})");
  EXPECT_EQ(string_at(run, "spec.inputs.epochs"), folder_ + "/iris.csv");
  EXPECT_EQ(string_at(run, "spec.state_thresholds.executing"), "600s");
  EXPECT_EQ(out->context, folder_);
}

TEST_F(Documents, KeepsUnknownFieldsOfAFunctionFile) {
  const auto out = make({"-f", folder_ + "/function.yaml", "--handler", "h"});
  ASSERT_TRUE(out) << out.error().text();
  EXPECT_EQ(string_at(Json(out->function), "spec.unknown"), "kept");
  EXPECT_EQ(out->kind, "job");
  EXPECT_EQ(string_at(Json(out->run), "metadata.name"), "f-h");
}

TEST_F(Documents, NamesFlagAndRuleOfEveryMistake) {
  struct Case {
    std::vector<std::string> words;
    std::string_view field;
  };
  const std::vector<Case> cases{
      {{"-p", "x"}, "-p"},
      {{"-p", "=1"}, "-p"},
      {{"-p", "1x=2"}, "-p"},
      {{"-p", "lr=1", "-p", "lr=2"}, "-p"},
      {{"-p", "learning=1"}, "-p learning"},
      {{"--replicas", "0"}, "--replicas"},
      {{"--replicas", "1.5"}, "--replicas"},
      {{"--replicas", "99999999999"}, "--replicas"},
      {{"--min", "3", "--max", "1"}, "--min"},
      {{"--cpu", "0"}, "--cpu"},
      {{"--cpu", "-1"}, "--cpu"},
      {{"--cpu", "1e309"}, "--cpu"},
      {{"--cpu", "NaN"}, "--cpu"},
      {{"--cpu", "1,5"}, "--cpu"},
      {{"--cpu", "500M"}, "--cpu"},
      {{"--mem", "2"}, "--mem"},
      {{"--mem", "2G i"}, "--mem"},
      {{"--mem", "1Zi"}, "--mem"},
      {{"--mem", "-1Gi"}, "--mem"},
      {{"--mem", "2GB"}, "--mem"},
      {{"-v", "/a"}, "-v"},
      {{"-v", "/a:b"}, "-v"},
      {{"-v", "/a:/b:rw:x"}, "-v"},
      {{"-v", "../x:/y"}, "-v"},
      {{"-v", "/:/x"}, "-v"},
      {{"-v", "/proc:/p"}, "-v"},
      {{"-v", "/tmp:/"}, "-v"},
      {{"-v", "/data:/d"}, "-v"},
      {{"-v", "/data/metier/pods:/d"}, "-v"},
      {{"-v", "/no/such/folder:/d"}, "-v"},
      {{"-e", "A B"}, "-e"},
      {{"-e", "=x"}, "-e"},
      {{"-e", "1A=x"}, "-e"},
      {{"-e", "METIER_TOKEN=x"}, "-e"},
      {{"--secret", ""}, "--secret"},
      {{"--secret", "x:y:z"}, "--secret"},
      {{"-x", "lr=1"}, "-x"},
      {{"--selector", "max.a"}, "--selector"},
      {{"--timeout", "soon"}, "--timeout"},
      {{"--retry", "-1"}, "--retry"},
      {{"--set", "run.x=1"}, "--set"},
      {{"--set", "spec.x=nojson"}, "--set spec.x"},
      {{"-i", "epochs=missing.csv"}, "-i epochs"},
      {{"--requirements", "/no/such"}, "--requirements"},
  };
  for (const auto& [words, field] : cases) {
    const auto out = job(words);
    ASSERT_FALSE(out) << words[0] << " " << words[1];
    EXPECT_EQ(out.error().field, field) << out.error().text();
    const int code = exit_code_of_error(out.error());
    EXPECT_TRUE(code == 2 || code == 3) << code;
  }
}

TEST_F(Documents, ChecksKindsAgainstFlags) {
  EXPECT_EQ(make({folder_ + "/train.py", "--kind", "Job"}).error().fix,
            "kinds: handler local job dask mpijob spark remote-spark nuclio serving");
  EXPECT_EQ(make({folder_ + "/train.py", "--kind", "jbo"}).error().message,
            "'jbo' is unknown, did you mean 'job'?");
  EXPECT_EQ(make({folder_ + "/train.py", "--kind", ""}).error().field, "--kind");
  EXPECT_EQ(make({folder_ + "/train.py", "--kind", "local", "--replicas", "2"}).error().field,
            "--replicas");
  EXPECT_EQ(job({"--replicas", "3"}).error().message, "kind job runs in one pod");
  EXPECT_TRUE(job({"--replicas", "1"}));
  const auto remote = make({folder_ + "/train.py", "--kind", "remote-spark", "--replicas", "3"});
  ASSERT_TRUE(remote) << remote.error().text();
  ASSERT_EQ(remote->warnings.size(), 1U);
  EXPECT_TRUE(remote->warnings[0].starts_with("--replicas 3: one pod runs here"));
  EXPECT_EQ(make({folder_ + "/train.py", "--kind", "local", "-e", "LD_PRELOAD=x"}).error().field,
            "-e");
  EXPECT_TRUE(job({"-e", "LD_PRELOAD=x"}));
  EXPECT_FALSE(make({folder_ + "/train.py", "-f", "x"}));
  EXPECT_FALSE(make({}));
}

TEST(Values, KeepTheTypeTheyAreWrittenIn) {
  EXPECT_EQ(dump_json(parameter_value("1")), "1");
  EXPECT_EQ(dump_json(parameter_value("0.5")), "0.5");
  EXPECT_EQ(dump_json(parameter_value("True")), "true");
  EXPECT_EQ(dump_json(parameter_value("[1, \"a\"]")), "[1,\"a\"]");
  EXPECT_EQ(dump_json(parameter_value("")), "\"\"");
  EXPECT_EQ(dump_json(parameter_value("high")), "\"high\"");
  EXPECT_EQ(dump_json(parameter_value("007")), "\"007\"");
}

TEST(Names, AreNormalized) {
  EXPECT_EQ(normalized_name("My_Train file"), "my-train-file");
  EXPECT_EQ(run_name("/x/flights.py", "prepare"), "flights-prepare");
  EXPECT_EQ(run_name("/x/train.py", "train"), "train");
  EXPECT_EQ(run_name("/x/hello.py", ""), "hello");
}

}  // namespace
}  // namespace metier::cli
