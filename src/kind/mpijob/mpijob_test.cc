#include "kind/mpijob/mpijob_kind.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <sstream>

#include "base/files.h"
#include "metier/test_paths.h"
#include "model/attributes.h"
#include "model/create.h"
#include "model/mpi_arguments.h"
#include "model/mpi_program.h"
#include "model/mpijob_document.h"
#include "resource/pod.h"

namespace metier {
namespace {

using namespace std::string_literals;

const std::filesystem::path kFolder =
    std::filesystem::path(METIER_SOURCE_DIR) / "src/kind/mpijob/golden";

Function function_of(std::string_view spec) {
  auto parsed = Function::from_json(
      *parse_json(R"({"kind":"mpijob","metadata":{"name":"f","project":"p"},"spec":)" +
                  std::string(spec) + "}"));
  EXPECT_TRUE(parsed) << parsed.error().text();
  return parsed ? *parsed : Function();
}

Run run_of(std::string_view spec = "{}", std::string_view state = "created") {
  return *Run::from_json(*parse_json(
      R"({"metadata":{"name":"f-train","uid":"0123456789abcdef0123456789abcdef","project":"p","iteration":0,
    "labels":{"owner":"me","kind":"mpijob"}},"spec":)" +
      std::string(spec) + R"(,"status":{"state":")" + std::string(state) + "\"}}"));
}

std::string name_of_job() {
  return resource_name("f-train", "0123456789abcdef0123456789abcdef", 0, 1);
}

Site site(std::string api = "v1") {
  Site out;
  out.embedded = false;
  out.api_url = "http://127.0.0.1:8080";
  out.mpi_api = std::move(api);
  return out;
}

Json lowered(const Function& function, const Run& run, const Site& where = site()) {
  const auto kind = make_mpijob_kind();
  EXPECT_TRUE(kind->validate(Subject{function, &run}))
      << kind->validate(Subject{function, &run}).error().text();
  auto resources = kind->lower(Subject{function, &run}, where);
  EXPECT_TRUE(resources) << resources.error().text();
  return resources && resources->size() == 1 ? to_json(resources->front()) : Json();
}

void expect_golden(const std::string& name, const Json& value) {
  const auto file = kFolder / (name + ".json");
  const std::string text = dump_json(value, JsonStyle::pretty) + "\n";
  if (std::getenv("METIER_UPDATE_GOLDEN") != nullptr) { ASSERT_TRUE(write_file(file, text, 0644)); }
  auto recorded = read_file(file);
  ASSERT_TRUE(recorded) << file;
  EXPECT_EQ(text, *recorded) << file;
}

std::string refusal(std::string_view spec, std::string_view run = "{}") {
  const auto function = function_of(spec);
  const auto submitted = run_of(run);
  auto valid = make_mpijob_kind()->validate(Subject{function, &submitted});
  return valid ? "" : valid.error().text();
}

constexpr std::string_view kArgs =
    R"("mpi_args":["-x","NCCL_SOCKET_NTHREADS=2","-x","NCCL_NSOCKS_PERTHREAD=8","-x","NCCL_MIN_NCHANNELS=4"])";

TEST(MpiJob, LowersTheDefaultFunctionAsMlrunDoes) {
  expect_golden(
      "default",
      lowered(
          function_of(R"({"command":"train.py","image":"mlrun/mlrun","clean_pod_policy":"All",)" +
                      std::string(kArgs) + "}"),
          run_of(R"({"handler":"train","parameters":{"lr":0.1}})")));
}

TEST(MpiJob, LowersEveryAttribute) {
  Function f = function_of(
      R"({"command":"train.py","image":"python","replicas":3,"clean_pod_policy":"Running","default_handler":"train","workdir":"/w",
    "run_launcher_as_worker":true,"launcher_creation_policy":"WaitForWorkersReady","service_account":"sa","security_context":{"runAsUser":1000},)" +
      std::string(kArgs) + "}");
  ASSERT_TRUE(set_env(f, "A", 1));
  ASSERT_TRUE(with_requests(f, {.mem = "1G", .cpu = "500m"}));
  ASSERT_TRUE(with_limits(f, {.mem = "2Gi", .cpu = "2", .gpus = 1}));
  ASSERT_TRUE(mount_pvc(f, "claim", "data", "/data"));
  Site where = site();
  where.default_resources =
      *parse_json(R"({"requests":{"cpu":"25m","memory":null},"limits":{"cpu":null}})");
  where.project_secret_keys = {"KEY"};
  const auto run = run_of(R"({"parameters":{"slots_per_worker":2}})");
  expect_golden("full", lowered(f, run, where));
  where.mpi_api = "v2beta1";
  expect_golden("v2beta1", lowered(f, run, where));
}

// The fields of the operator's v2beta1 schema (structural: a field that it does not know is dropped by the API server), with
// the type of each and the values it takes. `Pod` is a pod template.
struct Field {
  std::string_view path;
  char type;  // 'o' object, 'i' integer ≥ 0, 'b' boolean, 's' text
  std::vector<std::string_view> values = {};
};
const std::vector<Field>& operator_schema() {
  static const std::vector<Field> fields{
      {"spec", 'o'},
      {"spec/slotsPerWorker", 'i'},
      {"spec/runLauncherAsWorker", 'b'},
      {"spec/sshAuthMountPath", 's'},
      {"spec/mpiImplementation", 's', {"OpenMPI", "Intel", "MPICH"}},
      {"spec/launcherCreationPolicy", 's', {"AtStartup", "WaitForWorkersReady"}},
      {"spec/runPolicy", 'o'},
      {"spec/runPolicy/cleanPodPolicy", 's', {"None", "Running", "All"}},
      {"spec/runPolicy/ttlSecondsAfterFinished", 'i'},
      {"spec/runPolicy/activeDeadlineSeconds", 'i'},
      {"spec/runPolicy/backoffLimit", 'i'},
      {"spec/runPolicy/suspend", 'b'},
      {"spec/mpiReplicaSpecs", 'o'},
      {"spec/mpiReplicaSpecs/Launcher", 'o'},
      {"spec/mpiReplicaSpecs/Launcher/replicas", 'i'},
      {"spec/mpiReplicaSpecs/Launcher/restartPolicy", 's', {"Never", "OnFailure"}},
      {"spec/mpiReplicaSpecs/Launcher/template", 'o'},
      {"spec/mpiReplicaSpecs/Worker", 'o'},
      {"spec/mpiReplicaSpecs/Worker/replicas", 'i'},
      {"spec/mpiReplicaSpecs/Worker/restartPolicy", 's', {"Never", "OnFailure"}},
      {"spec/mpiReplicaSpecs/Worker/template", 'o'}};
  return fields;
}

void expect_conforms(const std::string& path, const Json& value) {
  const auto& schema = operator_schema();
  const auto known = std::ranges::find(schema, path, &Field::path);
  ASSERT_NE(known, schema.end()) << path << " is no field of the operator's MPIJob";
  switch (known->type) {
    case 'i': ASSERT_TRUE(value.is_int64() && value.get_int64() >= 0) << path; break;
    case 'b': ASSERT_TRUE(value.is_bool()) << path; break;
    case 's':
      ASSERT_TRUE(value.is_string()) << path;
      EXPECT_TRUE(known->values.empty() ||
                  std::ranges::find(known->values, std::string_view(value.get_string())) !=
                      known->values.end())
          << path;
      break;
    default:
      ASSERT_TRUE(value.is_object()) << path;
      if (path.ends_with("/template")) { return; }
      for (const auto& [key, inner] : value.get_object()) {
        expect_conforms(path + "/" + std::string(key), inner);
      }
  }
}

TEST(MpiJob, ConformsToTheOperatorsSchema) {
  for (
      const std::string_view spec :
      {R"({"command":"a.py"})", R"({"command":"a.py","clean_pod_policy":"None","replicas":3})",
       R"({"command":"a.py","run_launcher_as_worker":true,"launcher_creation_policy":"AtStartup","mpi_implementation":"MPICH"})"}) {
    const auto run = run_of(R"({"parameters":{"slots_per_worker":2}})");
    const Json job = lowered(function_of(spec), run, site("v2beta1"));
    expect_conforms("spec", job.at("spec"));
    EXPECT_EQ(job.at_pointer("/spec/mpiReplicaSpecs/Launcher/replicas"), Json(1));
    for (const std::string role : {"Launcher", "Worker"}) {
      Resource pod{
          .api_version = "v1", .kind = "Pod", .metadata = {.name = "x", .name_space = "p"}};
      pod.body["spec"] = job.at_pointer("/spec/mpiReplicaSpecs/" + role + "/template/spec");
      ensure_object(pod.body, "spec").erase("serviceAccountName");
      // IPC_LOCK is asked for as MLRun does.
      const auto sound = pod_from(pod, {.allow_privileged = true});
      EXPECT_TRUE(sound) << sound.error().text();
    }
  }
}

TEST(MpiJob, AsksForMemoryOnTheEmbeddedClusterUnlessTheUserDoes) {
  const auto memory = [](std::string_view resources) {
    Site where = site();
    where.embedded = true;
    const auto run = run_of(R"({"parameters":{"slots_per_worker":2}})");
    const auto job =
        lowered(function_of(R"({"command":"a.py","resources":)" + std::string(resources) + "}"),
                run, where);
    const auto& worker =
        job.at_pointer("/spec/mpiReplicaSpecs/Worker/template/spec/containers/0/resources");
    return dump_json(worker);
  };
  EXPECT_EQ(memory("{}"), R"({"requests":{"memory":"128Mi"}})");
  EXPECT_EQ(memory(R"({"requests":{"cpu":"1"}})"), R"({"requests":{"cpu":"1","memory":"128Mi"}})");
  EXPECT_EQ(memory(R"({"requests":{"memory":"1Mi"}})"), R"({"requests":{"memory":"1Mi"}})");
  EXPECT_EQ(memory(R"({"limits":{"memory":"1Gi"}})"), R"({"limits":{"memory":"1Gi"}})");
}

TEST(MpiJob, RefusesWhatCannotBe) {
  EXPECT_EQ(refusal(R"({"command":"a.py","replicas":-1})"),
            "spec.replicas: -1 is not a whole number from 1 to 1000");
  EXPECT_EQ(refusal(R"({"command":"a.py","replicas":0})"), "");  // MLRun: 1 when falsy
  EXPECT_EQ(refusal(R"({"command":"a.py","max_replicas":4})"),
            "spec.max_replicas: an MPI job has a fixed number of workers");
  EXPECT_EQ(refusal(R"({"command":"a.py"})", R"({"parameters":{"slots_per_worker":"two"}})"),
            "spec.parameters.slots_per_worker: \"two\" is not a whole number from 1 to 256");
  EXPECT_EQ(refusal(R"({"command":"a.py","slots_per_worker":0})"),
            "spec.slots_per_worker: 0 is not a whole number from 1 to 256");
  EXPECT_EQ(refusal(R"({"command":"a.py","run_launcher_as_worker":"true"})"),
            "spec.run_launcher_as_worker: \"true\" is not true or false");
  EXPECT_EQ(refusal(R"({"command":"a.py","active_deadline_seconds":0})"),
            "spec.active_deadline_seconds: 0 is not a whole number from 1 to 315360000");
  EXPECT_EQ(refusal(R"({"command":"a.py","clean_pod_policy":"Never"})"),
            "spec.clean_pod_policy: 'Never' is not possible");
  EXPECT_EQ(refusal(R"({"command":"a.py","mpi_args":"-x A"})"),
            "spec.mpi_args: \"-x A\" is not a list of texts");
  EXPECT_EQ(refusal(R"({"command":"a.py","mpi_args":["-n",2]})"),
            "spec.mpi_args[1]: 2 is not a text");
  EXPECT_EQ(refusal(R"({"command":"a.py","mpi_args":["--hostfile","h"]})"),
            "spec.mpi_args: option '--hostfile' has no meaning here");
  EXPECT_EQ(refusal(R"({"command":"a.py","mpi_args":["--wat"]})"),
            "spec.mpi_args: option '--wat' of mpirun is not known here");
  EXPECT_EQ(refusal(R"({"command":"a.py","mpi_args":["python"]})"),
            "spec.mpi_args: 'python' is no option: the program is the function's own");
}

TEST(MpiJob, HorovodsLogsAreAmongTheRunsArtifacts) {
  const auto logs = [](std::string_view timeline, std::string_view run) {
    Function function = function_of(R"({"command":"a.py"})");
    EXPECT_TRUE(set_env(function, "HOROVOD_TIMELINE", Json(timeline)));
    const auto job = lowered(function, run_of(run));
    std::string out;
    for (const std::string role : {"Launcher", "Worker"}) {
      for (const auto& entry :
           job.at_pointer("/spec/mpiReplicaSpecs/" + role + "/template/spec/containers/0/env")
               .as_array()) {
        if (entry.at("name") == Json("HOROVOD_TIMELINE")) {
          out += std::string(entry.at("value").get_string()) + " ";
        }
      }
    }
    return out;
  };
  constexpr std::string_view kRun = R"({"output_path":"/data/u"})";
  EXPECT_EQ(logs("hvd_logs/trace.log", kRun),
            "/data/u/hvd_logs/trace.log /data/u/hvd_logs/trace.log ");
  EXPECT_EQ(logs("./hvd_logs/trace.log", kRun),
            "/data/u/hvd_logs/trace.log /data/u/hvd_logs/trace.log ");
  EXPECT_EQ(logs("/mine/trace.log", kRun), "/mine/trace.log /mine/trace.log ");
  EXPECT_EQ(logs("DYNAMIC", kRun), "DYNAMIC DYNAMIC ");
  EXPECT_EQ(logs("trace.log", R"({"output_path":"s3://bucket/u"})"), "trace.log trace.log ");
}

TEST(MpiJob, EveryRefusalSaysWhatToWrite) {
  for (const std::string_view spec :
       {R"("replicas":-1)", R"("slots_per_worker":0)", R"("active_deadline_seconds":0)",
        R"("clean_pod_policy":"Never")", R"("run_launcher_as_worker":"true")",
        R"("mpi_args":"-x A")", R"("mpi_args":[1])", R"("mpi_args":["--wat"])",
        R"("mpi_args":["--hostfile","h"])", R"("mpi_args":["-mca","btl"])",
        R"("mpi_args":["-n","many"])", R"("mpi_args":["-x","=1"])"}) {
    const auto function = function_of(R"({"command":"a.py",)" + std::string(spec) + "}");
    const auto run = run_of();
    const auto valid = make_mpijob_kind()->validate(Subject{function, &run});
    ASSERT_FALSE(valid) << spec;
    EXPECT_TRUE(valid.error().field.starts_with("spec.")) << valid.error().field;
    EXPECT_NE(valid.error().fix, "") << spec;
  }
}

TEST(MpiJob, ItsFieldsAreKnown) {
  const auto function = function_of(
      R"({"command":"a.py","active_deadline_seconds":5,"slots_per_worker":2,"run_launcher_as_worker":true,
      "launcher_creation_policy":"AtStartup","mpi_implementation":"OpenMPI","mpi_args":[],"clean_pod_policy":"All"})");
  std::vector<std::string> warnings;
  ASSERT_TRUE(validate_function(function, &warnings));
  EXPECT_EQ(warnings, std::vector<std::string>{});
}

TEST(MpiJob, TheOldVersionHasAnAnnotationForTheImplementation) {
  const auto job =
      lowered(function_of(R"({"command":"a.py","mpi_implementation":"MPICH"})"), run_of());
  EXPECT_EQ(job.at("metadata").at("annotations").at(std::string(kImplementation)), Json("MPICH"));
}

TEST(MpiArguments, AreTranslatedForTheMpiThatIsThere) {
  mpi::Arguments parsed;
  ASSERT_EQ(mpi::split({"-x", "A=1", "-x", "B", "--allow-run-as-root", "-np", "3", "--bind-to",
                        "core", "prog", "-x"},
                       parsed),
            "");
  EXPECT_EQ(parsed.ranks, 3);
  EXPECT_EQ(parsed.program, (std::vector<std::string>{"prog", "-x"}));
  std::vector<std::string> words;
  ASSERT_EQ(mpi::translate(parsed, mpi::Flavor::mpich, words), "");
  EXPECT_EQ(words, (std::vector<std::string>{"-genv", "A", "1", "-bind-to", "core"}));
  words.clear();
  ASSERT_EQ(mpi::translate(parsed, mpi::Flavor::openmpi4, words), "");
  EXPECT_EQ(words, (std::vector<std::string>{"-x", "A=1", "-x", "B", "--bind-to", "core"}));
  mpi::Arguments own;
  ASSERT_EQ(mpi::split({"-mca", "btl", "tcp,self"}, own), "");
  EXPECT_EQ(mpi::translate(own, mpi::Flavor::mpich, words),
            "option '-mca' is Open MPI's, and the MPI here is MPICH");
  mpi::Arguments short_of;
  EXPECT_EQ(mpi::split({"-mca", "btl"}, short_of), "option '-mca' needs 2 values");
}

TEST(MpiProgram, PythonRunsWhereNoRankWaitsForOneThatRaised) {
  const auto guarded = [](std::initializer_list<const char*> words) {
    std::string out;
    for (const auto& word : mpi::guarded({words.begin(), words.end()}, "/env/bin/python")) {
      out += (out.empty() ? "" : " ") + word;
    }
    return out;
  };
  const std::string rank = "-m metier_runner.rank ";
  EXPECT_EQ(guarded({"mlrun", "run", "a.py"}), "/env/bin/python " + rank + "mlrun run a.py");
  EXPECT_EQ(guarded({"python", "a.py", "-m"}), "python " + rank + "a.py -m");
  EXPECT_EQ(guarded({"/x/python3.11", "train"}), "/x/python3.11 " + rank + "train");
  EXPECT_EQ(guarded({"python", "-u", "a.py"}), "python -u " + rank + "a.py");
  EXPECT_EQ(guarded({"python", "-BW", "ignore", "-X", "dev", "a.py"}),
            "python -BW ignore -X dev " + rank + "a.py");
  EXPECT_EQ(guarded({"python", "-Wignore", "-Xdev", "--check-hash-based-pycs", "never", "a.py"}),
            "python -Wignore -Xdev --check-hash-based-pycs never " + rank + "a.py");
  EXPECT_EQ(guarded({"python", "-u", "--", "-odd.py", "x"}), "python -u " + rank + "-odd.py x");
  EXPECT_EQ(guarded({"python", "-m", "pkg.mod", "x"}), "python " + rank + "-m pkg.mod x");
  EXPECT_EQ(guarded({"python", "-um", "pkg.mod", "-c"}), "python -u " + rank + "-m pkg.mod -c");
  EXPECT_EQ(guarded({"python", "-O", "-c", "1/0", "x"}), "python -O " + rank + "-c 1/0 x");
  EXPECT_EQ(guarded({"python", "-c1/0"}), "python " + rank + "-c 1/0");
  for (const char* as_it_is :
       {"-m mpi4py a.py", "-u -m mpi4py.run a.py", "-m metier_runner.rank a.py", "-I a.py",
        "-uE a.py", "-i a.py", "-", "--version", "-V", "-m", "-W", "-u"}) {
    std::vector<std::string> words{"python"};
    std::istringstream text(as_it_is);
    for (std::string word; text >> word;) { words.push_back(word); }
    EXPECT_EQ(mpi::guarded(words, ""), words) << as_it_is;
  }
  EXPECT_EQ(guarded({"python"}), "python");
  EXPECT_EQ(guarded({"python3-config", "a.py"}), "python3-config a.py");
  EXPECT_EQ(guarded({"sh", "-c", "python a.py"}), "sh -c python a.py");
}

TEST(MpiProgram, AFileIsRunByTheInterpreterThatItNames) {
  std::string folder = ::testing::TempDir() + "program-XXXXXX";
  ASSERT_NE(::mkdtemp(folder.data()), nullptr);
  const std::string file = folder + "/train";
  const auto words = [&](const std::string& first_line, unsigned mode = 0755) {
    std::filesystem::remove(file);
    EXPECT_TRUE(write_file(file, first_line + "\nprint()\n", mode));
    std::string out;
    for (const auto& word : mpi::guarded({file, "x"}, "")) {
      out += (out.empty() ? "" : " ") + (word == file ? "FILE" : word);
    }
    return out;
  };
  const std::string rank = "-m metier_runner.rank FILE x";
  EXPECT_EQ(words("#!/usr/bin/python3"), "/usr/bin/python3 " + rank);
  EXPECT_EQ(words("#! /usr/bin/python3 -u "), "/usr/bin/python3 -u " + rank);
  EXPECT_EQ(words("#!/usr/bin/env python3"), "/usr/bin/env python3 " + rank);
  EXPECT_EQ(words("#!/usr/bin/env -S python3 -u -W ignore"),
            "/usr/bin/env python3 -u -W ignore " + rank);
  EXPECT_EQ(words("#!/usr/bin/env -S python3 -m mpi4py"), "/usr/bin/env python3 -m mpi4py FILE x");
  EXPECT_EQ(words("#!/bin/sh"), "FILE x");
  EXPECT_EQ(words("#!"), "FILE x");
  EXPECT_EQ(words("print(1)"), "FILE x");
  EXPECT_EQ(words("#!/usr/bin/python3", 0644), "FILE x");
  EXPECT_EQ(mpi::guarded({"./nothing", "x"}, ""), (std::vector<std::string>{"./nothing", "x"}));
  std::filesystem::remove_all(folder);
}

TEST(MpiJobImport, AnMpiJobDocumentIsAFunctionThatLowersToIt) {
  const auto document = *parse_json(
      R"({"apiVersion":"kubeflow.org/v2beta1","kind":"MPIJob","metadata":{"name":"pi"},"spec":{"slotsPerWorker":2,
    "runPolicy":{"cleanPodPolicy":"Running","activeDeadlineSeconds":90},"runLauncherAsWorker":true,"mpiReplicaSpecs":{
    "Launcher":{"template":{"spec":{"containers":[{"name":"l","image":"i","command":["mpirun","-n","2"],"args":["-x","A=1","./pi","{n}"]}]}}},
    "Worker":{"replicas":2,"template":{"spec":{"volumes":[],"containers":[{"name":"w","image":"i","env":[{"name":"B","value":"2"}]}]}}}}}})");
  ASSERT_TRUE(is_mpijob(document));
  auto function = function_from_mpijob(document);
  ASSERT_TRUE(function) << function.error().text();
  const auto job = lowered(*function, run_of(), site("v2beta1"));
  const auto& launcher =
      job.at_pointer("/spec/mpiReplicaSpecs/Launcher/template/spec/containers/0");
  EXPECT_EQ(dump_json(launcher.at("command")), R"(["mpirun","-n","2","-x","A=1","./pi","{n}"])");
  EXPECT_EQ(job.at("spec").at("slotsPerWorker"), Json(2));
  EXPECT_EQ(job.at("spec").at("runLauncherAsWorker"), Json(true));
  EXPECT_EQ(job.at_pointer("/spec/runPolicy/cleanPodPolicy"), Json("Running"));
  EXPECT_EQ(job.at_pointer("/spec/runPolicy/activeDeadlineSeconds"), Json(90));
  EXPECT_EQ(job.at_pointer("/spec/mpiReplicaSpecs/Worker/replicas"), Json(2));
  const auto other = function_from_mpijob(
      *parse_json(R"({"apiVersion":"kubeflow.org/v1","kind":"MPIJob","spec":{"mpiReplicaSpecs":{
    "Launcher":{"template":{"spec":{"containers":[{"command":["sh","-c","mpirun x"]}]}}},"Worker":{"template":{"spec":{"containers":[{}]}}}}}})"));
  ASSERT_FALSE(other);
  EXPECT_NE(other.error().text().find("'sh' is not mpirun"), std::string::npos)
      << other.error().text();
}

// A document with more in both templates, as YAML would give it.
Json mpijob_with(std::string_view launcher_pod, std::string_view worker_pod,
                 std::string_view run_policy = "{}", std::string_view launcher_container = "",
                 std::string_view worker_container = "",
                 std::string_view metadata = R"({"name":"pi"})") {
  const std::string text =
      R"({"apiVersion":"kubeflow.org/v2beta1","kind":"MPIJob","metadata":)" +
      std::string(metadata) + R"(,"spec":{"runPolicy":)" + std::string(run_policy) +
      R"(,"mpiReplicaSpecs":{"Launcher":{"replicas":1,"template":{"spec":{)" +
      std::string(launcher_pod) + R"("containers":[{)" + std::string(launcher_container) +
      R"("image":"i","command":["mpirun","./pi"]}]}}},"Worker":{"replicas":2,"template":{"spec":{)" +
      std::string(worker_pod) + R"("containers":[{)" + std::string(worker_container) +
      R"("image":"i"}]}}}}}})";
  auto parsed = parse_json(text);
  EXPECT_TRUE(parsed) << text;
  return parsed ? *parsed : Json();
}

std::string import_refusal(const Json& document) {
  auto function = function_from_mpijob(document);
  return function ? "" : function.error().text() + " | " + function.error().fix;
}

TEST(MpiJobImport, JoinsWhatBothTemplatesSay) {
  std::vector<std::string> warnings;
  auto function = function_from_mpijob(
      mpijob_with(
          R"("volumes":[{"name":"d","emptyDir":{}}],"priorityClassName":"high","imagePullSecrets":[{"name":"s"}],)",
          R"("volumes":[{"name":"d","emptyDir":{}},{"name":"w","emptyDir":{}}],"nodeSelector":{"a":"b"},)",
          R"({"cleanPodPolicy":"None","suspend":false})",
          R"("env":[{"name":"A","value":"1"}],"workingDir":"/l","securityContext":{"runAsUser":1000},)",
          R"("env":[{"name":"B","value":"2"}],"command":["/usr/sbin/sshd"],"args":["-De"],)"
          R"("securityContext":{"runAsUser":1000,"capabilities":{"add":["IPC_LOCK"]}},)",
          R"({"name":"pi","annotations":{"why":"test"},"labels":{"team":"a"}})"),
      &warnings);
  ASSERT_TRUE(function) << function.error().text();
  EXPECT_EQ(warnings, std::vector<std::string>{});
  EXPECT_EQ(dump_json(function->spec().at("env")),
            R"([{"name":"B","value":"2"},{"name":"A","value":"1"}])");
  EXPECT_EQ(function->spec().at("volumes").get_array().size(), 2U);
  EXPECT_EQ(function->text("priority_class_name"), "high");
  EXPECT_EQ(function->text("image_pull_secret"), "s");
  EXPECT_EQ(function->text("workdir"), "/l");
  EXPECT_EQ(dump_json(function->spec().at("security_context")), R"({"runAsUser":1000})");
  EXPECT_EQ(dump_json(function->metadata()),
            R"({"name":"pi","labels":{"team":"a"},"annotations":{"why":"test"}})");
}

TEST(MpiJobImport, TellsWhatHasNoEffect) {
  std::vector<std::string> warnings;
  ASSERT_TRUE(function_from_mpijob(
      mpijob_with(
          R"("hostNetwork":true,"restartPolicy":"OnFailure",)",
          R"("nodeSelector":{},"terminationGracePeriodSeconds":5,)",
          R"({"ttlSecondsAfterFinished":60,"backoffLimit":0})",
          R"("resources":{"limits":{"cpu":1}},)",
          R"("command":["python","agent.py"],"securityContext":{"readOnlyRootFilesystem":true},"ports":[{}],)",
          R"({"name":"pi","namespace":"n","uid":"1"})"),
      &warnings));
  const std::string launcher = "spec.mpiReplicaSpecs.Launcher.template.spec";
  const std::string worker = "spec.mpiReplicaSpecs.Worker.template.spec";
  std::vector<std::string> fields;
  for (const auto& line : warnings) {
    fields.push_back(line.substr(0, line.find(" has no effect")));
  }
  std::ranges::sort(fields);
  EXPECT_EQ(fields, (std::vector<std::string>{
                        "metadata.namespace", launcher + ".containers[0].resources",
                        launcher + ".hostNetwork", launcher + ".restartPolicy",
                        worker + ".containers[0].command", worker + ".containers[0].ports",
                        worker + ".containers[0].securityContext.readOnlyRootFilesystem",
                        worker + ".terminationGracePeriodSeconds",
                        "spec.runPolicy.ttlSecondsAfterFinished"}));
}

TEST(MpiJobImport, RefusesWhatWouldBeAnotherProgram) {
  EXPECT_EQ(import_refusal(mpijob_with("", "", R"({"suspend":true})")),
            "spec.runPolicy.suspend: true: a run starts when it is submitted | leave it out, and "
            "submit the job when it may start");
  EXPECT_EQ(
      import_refusal(mpijob_with("", R"("initContainers":[{"name":"i"}],)")).substr(0, 80),
      "spec.mpiReplicaSpecs.Worker.template.spec.initContainers: a function has none | "s.substr(
          0, 80));
  EXPECT_EQ(import_refusal(mpijob_with("", "", "{}", R"("env":[{"name":"A","value":"1"}],)",
                                       R"("env":[{"name":"A","value":"2"}],)")),
            "spec.mpiReplicaSpecs.Launcher.template.spec.containers[0].env[0]: 'A' is something "
            "else for the Worker | give both the same, or another name");
  EXPECT_EQ(import_refusal(mpijob_with("", "", "{}", R"("securityContext":{"privileged":true},)")),
            "spec.mpiReplicaSpecs.Launcher.template.spec.containers[0].securityContext.privileged: "
            "a function's pods have no privileges | leave it out");
  auto old = mpijob_with("", "");
  old.get_object()["apiVersion"] = "kubeflow.org/v1alpha1";
  EXPECT_EQ(import_refusal(old),
            "apiVersion: 'kubeflow.org/v1alpha1' is not read | kubeflow.org/v1 or "
            "kubeflow.org/v2beta1");
}

// --- observation

ResourceStatus job_status(std::string_view condition, std::int64_t revision = 1) {
  ResourceStatus out;
  out.key = {.name_space = "p", .kind = "MPIJob", .name = name_of_job()};
  out.revision = revision;
  JsonObject status;
  if (!condition.empty()) {
    status["conditions"] = JsonArray{JsonObject{{"type", condition}, {"status", "True"}}};
    status["completionTime"] = "2026-01-01T00:00:09.000000+00:00";
  }
  out.status = std::move(status);
  return out;
}

ContainerStatus ended(std::string name, bool rank, int code, int signal, int second) {
  ContainerStatus out{
      .name = std::move(name), .rank = rank, .state = ContainerStatus::State::terminated};
  out.exit_code = signal != 0 ? 128 + signal : code;
  out.signal = signal;
  out.reason = signal != 0 ? "Killed(SIGKILL)" : code == 0 ? "Completed" : "Error";
  out.started = Time{std::chrono::seconds(1)};
  out.finished = Time{std::chrono::seconds(second)};
  return out;
}

ResourceStatus pod(std::string suffix, PodPhase phase, std::vector<ContainerStatus> containers,
                   std::string reason = "") {
  ResourceStatus out;
  out.key = {.name_space = "p", .kind = "Pod", .name = name_of_job() + suffix};
  out.status = to_json(PodStatus{.phase = phase,
                                 .reason = std::move(reason),
                                 .finished = Time{std::chrono::seconds(5)},
                                 .containers = std::move(containers)});
  return out;
}

Observation observed(std::vector<ResourceStatus> resources, std::string_view state = "running") {
  const auto function = function_of(R"({"command":"a.py"})");
  const auto run = run_of("{}", state);
  return make_mpijob_kind()->observe(Subject{function, &run}, resources, Time{});
}

TEST(MpiJobObservation, TellsPartsAndRanks) {
  const auto seen =
      observed({job_status("Succeeded"),
                pod("-worker-1", PodPhase::succeeded,
                    {ended("base", false, 0, 0, 4), ended("rank-1", true, 0, 0, 3)}),
                pod("-launcher", PodPhase::succeeded, {ended("base", false, 0, 0, 3)}),
                pod("-worker-0", PodPhase::succeeded,
                    {ended("base", false, 0, 0, 4), ended("rank-0", true, 0, 0, 3)})});
  EXPECT_EQ(seen.state, RunState::completed);
  ASSERT_EQ(seen.parts.size(), 5U);
  EXPECT_EQ(seen.parts[0].role, "launcher");
  EXPECT_EQ(seen.parts[1].pod, name_of_job() + "-worker-0");
  EXPECT_EQ(seen.parts[4].role, "rank");
  EXPECT_EQ(seen.parts[4].container, "rank-1");
  EXPECT_FALSE(seen.first_failure);
  EXPECT_TRUE(seen.finished);
}

TEST(MpiJobObservation, PodsStayWhenTheFunctionAsksForIt) {
  const auto run = run_of("{}", "running");
  for (const auto* policy : {"None", "All", "Running", ""}) {
    auto function = function_of(R"({"command":"a.py"})");
    function.spec()["clean_pod_policy"] = policy;
    const auto kind = make_mpijob_kind();
    EXPECT_EQ(kind->observe(Subject{function, &run}, {}, Time{}).pods_stay,
              std::string_view(policy) == "None");
  }
}

TEST(MpiJobObservation, NamesTheRankThatFailedFirst) {
  const auto seen = observed(
      {job_status("Failed"), pod("-launcher", PodPhase::failed, {ended("base", false, 3, 0, 4)}),
       pod("-worker-0", PodPhase::succeeded,
           {ended("base", false, 0, 0, 4), ended("rank-0", true, 0, 9, 3)}),
       pod("-worker-1", PodPhase::succeeded,
           {ended("base", false, 0, 0, 4), ended("rank-1", true, 3, 0, 2)})});
  EXPECT_EQ(seen.state, RunState::error);
  ASSERT_TRUE(seen.first_failure);
  EXPECT_EQ(seen.first_failure->code, "RankFailed");
  EXPECT_EQ(seen.first_failure->rank, 1);
  EXPECT_EQ(seen.message, "rank 1 in pod " + name_of_job() + "-worker-1 ended with exit code 3");
}

TEST(MpiJobObservation, ARankThatMpirunEndedIsNoCause) {
  const auto failed = [](int code, int signal, int second) {
    return observed(
        {job_status("Failed"), pod("-launcher", PodPhase::failed, {ended("base", false, 7, 0, 4)}),
         pod("-worker-0", PodPhase::succeeded,
             {ended("base", false, 0, 0, 4), ended("rank-0", true, 143, 0, 2)}),
         pod("-worker-1", PodPhase::succeeded,
             {ended("base", false, 0, 0, 4), ended("rank-1", true, code, signal, second)}),
         pod("-worker-2", PodPhase::succeeded,
             {ended("base", false, 0, 0, 4), ended("rank-2", true, 0, 15, 1)})});
  };
  EXPECT_EQ(failed(7, 0, 3).first_failure->rank, 1);
  EXPECT_EQ(failed(0, 0, 3).first_failure->rank, 2) << "nothing else failed";
  EXPECT_EQ(failed(0, 9, 3).first_failure->rank, 2) << "killed after it";
}

TEST(MpiJobObservation, ADeadlineIsTheCauseWhateverItsRanksEndedBy) {
  const auto seen = observed(
      {job_status("Failed"),
       pod("-launcher", PodPhase::failed, {ended("base", false, 143, 0, 6)}, "DeadlineExceeded"),
       pod("-worker-0", PodPhase::succeeded,
           {ended("base", false, 0, 0, 6), ended("rank-0", true, 1, 0, 4)})});
  ASSERT_TRUE(seen.first_failure);
  EXPECT_EQ(seen.first_failure->code, "DeadlineExceeded");
  EXPECT_EQ(seen.reason, "DeadlineExceeded");
}

TEST(MpiJobObservation, ALostWorkerIsTheCauseAndNotItsRanks) {
  const auto seen = observed(
      {job_status("Failed"), pod("-launcher", PodPhase::failed, {ended("base", false, 137, 0, 6)}),
       pod("-worker-0", PodPhase::failed,
           {ended("base", false, 0, 15, 6), ended("rank-0", true, 0, 9, 6)}, "JobEnded"),
       pod("-worker-1", PodPhase::failed,
           {ended("base", false, 0, 9, 5), ended("rank-1", true, 0, 9, 5)}, "Killed(SIGKILL)")});
  ASSERT_TRUE(seen.first_failure);
  EXPECT_EQ(seen.first_failure->code, "NodeLost");
  EXPECT_EQ(seen.first_failure->part, name_of_job() + "-worker-1");
}

// Its pod has ended when its logs are on the disk; mpirun was quicker.
TEST(MpiJobObservation, AWorkerThatWasSlowToEndIsTheCauseAndNotTheRanksThatMpirunEnded) {
  auto lost =
      pod("-worker-1", PodPhase::failed,
          {ended("base", false, 0, 9, 4), ended("rank-1", true, 0, 9, 5)}, "Killed(SIGKILL)");
  auto status = pod_status_from_json(lost.status);
  status.finished = Time{std::chrono::seconds(7)};
  lost.status = to_json(status);
  const auto seen = observed(
      {job_status("Failed"), pod("-launcher", PodPhase::failed, {ended("base", false, 137, 0, 6)}),
       pod("-worker-0", PodPhase::failed,
           {ended("base", false, 0, 15, 6), ended("rank-0", true, 0, 15, 5)}, "JobEnded"),
       lost});
  ASSERT_TRUE(seen.first_failure);
  EXPECT_EQ(seen.first_failure->code, "NodeLost");
  EXPECT_EQ(seen.first_failure->part, name_of_job() + "-worker-1");
}

TEST(MpiJobObservation, ALauncherThatNobodyWatchesIsTheCauseAndNotItsRanks) {
  auto launcher = pod("-launcher", PodPhase::failed, {}, "ShimLost");
  auto status = pod_status_from_json(launcher.status);
  status.started = Time{std::chrono::seconds(1)};
  status.message = "its supervisor was lost";
  launcher.status = to_json(status);
  const auto seen =
      observed({job_status("Failed"), launcher,
                pod("-worker-0", PodPhase::succeeded,
                    {ended("base", false, 0, 0, 4), ended("rank-0", true, 0, 9, 3)})});
  ASSERT_TRUE(seen.first_failure);
  EXPECT_EQ(seen.first_failure->code, "ShimLost");
  EXPECT_EQ(seen.message,
            "the launcher pod " + name_of_job() + "-launcher was lost: its supervisor was lost");
}

TEST(MpiJobObservation, DoesNotEndBeforeTheJobDoes) {
  EXPECT_EQ(observed({job_status(""),
                      pod("-launcher", PodPhase::failed, {ended("base", false, 1, 0, 1)})})
                .state,
            RunState::running);
  EXPECT_EQ(observed({job_status("")}, "pending").state, RunState::pending);
  EXPECT_EQ(observed({}, "running").state, RunState::running);
  const auto lost = observed(
      {job_status("Failed"), pod("-launcher", PodPhase::failed, {ended("base", false, 0, 9, 1)})});
  ASSERT_TRUE(lost.first_failure);
  EXPECT_EQ(lost.message,
            "the launcher pod " + name_of_job() + "-launcher was lost: it was killed by SIGKILL");
}

}  // namespace
}  // namespace metier
