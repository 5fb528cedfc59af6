#include "cli/verbs.h"

#include <array>

namespace metier::cli {
namespace {

using Words = std::string_view;

constexpr Flag kProject{"--project", 'P', "PROJECT", "project (METIER_PROJECT, else default)"};
constexpr Flag kOutput{"--output", 'o', "FORM", "table, wide, json, yaml or name"};
constexpr Flag kQuiet{"--quiet", 'q', "", "results only"};
constexpr Flag kColor{"--color", 0, "WHEN", "auto, always or never"};
constexpr Flag kNoHeaders{"--no-headers", 0, "", "tables without their first line"};
constexpr Flag kYes{"--yes", 'y', "", "do not ask"};
constexpr Flag kFile{"--file", 'f', "FILE", "a function.yaml, or an MPIJob for mpi-operator"};

constexpr std::array kRunFlags{
    Flag{"--kind", 'k', "KIND", "handler, local (the default), job, …: metier kinds"},
    Flag{"--param", 'p', "NAME=VALUE", "a parameter; JSON values keep their type", true},
    Flag{"--input", 'i', "NAME=URL", "an input: a file, or any URL that the function can read",
         true},
    Flag{"--name", 'n', "NAME", "name of the run (file and handler)"},
    kProject,
    kOutput,
    Flag{"--detach", 0, "", "do not wait for the end"},
    Flag{"--dry-run", 0, "", "say what would run and whether it fits; nothing is started"},
    Flag{"--cpu", 0, "CORES", "2, 0.5, 500m"},
    Flag{"--mem", 0, "BYTES", "2G (10^9) or 2Gi (2^30)"},
    Flag{"--gpus", 0, "N", "whole GPUs"},
    Flag{"--replicas", 0, "N", "workers, ranks or executors"},
    Flag{"--min", 0, "N", "at least so many replicas"},
    Flag{"--max", 0, "N", "at most so many replicas"},
    Flag{"--env", 'e', "NAME=VALUE", "a variable of the environment", true},
    Flag{"--secret", 0, "NAME[:KEY]", "a secret as a variable of the environment", true},
    Flag{"--volume", 'v', "HOST:PATH[:ro]", "a folder of this machine in the pod", true},
    Flag{"--requirements", 0, "FILE", "packages to install, once, into a cached environment"},
    Flag{"--python", 0, "X.Y", "version of the interpreter"},
    Flag{"--image", 0, "IMAGE", "image, or the environment of that name"},
    Flag{"--no-context", 0, "", "do not take the folder of the file along"},
    Flag{"--hyper", 'x', "NAME=LIST", "a hyper-parameter: a JSON list of values", true},
    Flag{"--strategy", 0, "HOW", "grid (the default), list or random"},
    Flag{"--selector", 0, "max.RESULT", "which iteration is the best"},
    Flag{"--stop", 0, "CONDITION", "stop when it holds: 'accuracy>=0.9'"},
    Flag{"--timeout", 0, "DURATION", "end it after 90s, 10m, 2h (at least 1m)"},
    Flag{"--retry", 0, "N", "try again so often after a failure"},
    Flag{"--set", 0, "spec.PATH=JSON", "any other field of the function", true},
    kFile,
    Flag{"--handler", 0, "NAME", "function to call, with -f"},
    kQuiet,
    kColor,
};
constexpr std::array kRenderExtra{Flag{"--api", 0, "VERSION", "v1 or v2beta1 of MPIJob"}};
constexpr std::array<Flag, kRunFlags.size() + kRenderExtra.size()> join_render() {
  std::array<Flag, kRunFlags.size() + kRenderExtra.size()> out{};
  for (std::size_t i = 0; i < kRunFlags.size(); ++i) { out[i] = kRunFlags[i]; }
  out[kRunFlags.size()] = kRenderExtra[0];
  return out;
}
constexpr auto kRenderFlags = join_render();

constexpr std::array kDeployFlags{
    Flag{"--kind", 'k', "KIND", "nuclio (the default), serving, dask"},
    Flag{"--name", 'n', "NAME", "name of the function (the file's)"},
    Flag{"--tag", 't', "TAG", "a version beside the latest, with an address of its own"},
    kProject,
    kOutput,
    Flag{"--detach", 0, "", "do not wait until it is ready"},
    Flag{"--watch", 'w', "", "deploy again when its files change, and show what it prints"},
    Flag{"--cpu", 0, "CORES", "of one replica: 2, 0.5, 500m"},
    Flag{"--mem", 0, "BYTES", "of one replica: 2G (10^9) or 2Gi (2^30)"},
    Flag{"--gpus", 0, "N", "whole GPUs"},
    Flag{"--replicas", 0, "N", "always so many"},
    Flag{"--min", 0, "N", "at least so many replicas; 0: none while nobody calls"},
    Flag{"--max", 0, "N", "at most so many replicas"},
    Flag{"--env", 'e', "NAME=VALUE", "a variable of the environment", true},
    Flag{"--secret", 0, "NAME[:KEY]", "a secret as a variable of the environment", true},
    Flag{"--volume", 'v', "HOST:PATH[:ro]", "a folder of this machine in the pod", true},
    Flag{"--requirements", 0, "FILE", "packages to install, once, into a cached environment"},
    Flag{"--python", 0, "X.Y", "version of the interpreter"},
    Flag{"--image", 0, "IMAGE", "image, or the environment of that name"},
    Flag{"--no-context", 0, "", "do not take the folder of the file along"},
    Flag{"--param", 'p', "NAME=VALUE", "a parameter; JSON values keep their type", true},
    Flag{"--set", 0, "spec.PATH=JSON", "any other field of the function", true},
    kFile,
    Flag{"--handler", 0, "NAME", "function to call, with -f"},
    kQuiet,
    kColor,
};
constexpr std::array kInvokeFlags{
    kProject,
    Flag{"--data", 'd', "BODY|@FILE", "body of the request; @- reads it from the terminal"},
    Flag{"--method", 'X', "METHOD", "GET, or POST with a body"},
    Flag{"--path", 0, "PATH", "path and query (/)"},
    Flag{"--header", 'H', "'NAME: VALUE'", "a header of the request", true},
    kQuiet,
    kColor,
};
constexpr std::array kGetFlags{
    kProject,
    kOutput,
    kNoHeaders,
    kColor,
    kQuiet,
    Flag{"--state", 0, "STATE", "only runs in this state", true},
    Flag{"--kind", 'k', "KIND", "only this kind"},
    Flag{"--name", 'n', "NAME", "only this name; ~PART for a part of it"},
    Flag{"--label", 'l', "NAME[=VALUE]", "only with this label", true},
    Flag{"--since", 0, "DURATION", "only younger than 30m, 1d"},
    Flag{"--limit", 0, "N", "at most so many rows (20)"},
    Flag{"--watch", 'w', "", "runs: go on with every change, until Ctrl-C"},
};
constexpr std::array kDescribeFlags{kProject, kOutput, kColor, kQuiet};
constexpr std::array kLogsFlags{
    kProject,
    kColor,
    kQuiet,
    Flag{"--follow", 'f', "", "go on until the run has ended"},
    Flag{"--tail", 0, "N", "only the last N lines"},
    Flag{"--since", 0, "DURATION|TIME", "only lines of the last 30s, 5m, 1h, or since that time"},
    Flag{"--timestamps", 0, "", "when each line was written, in front of it"},
    Flag{"--part", 0, "PART", "one pod or rank of it (worker-1, rank-3), or all"},
    Flag{"--previous", 0, "", "the attempt before the newest one, of a run that was tried again"},
};
constexpr std::array kWaitFlags{
    kProject,
    kColor,
    kQuiet,
    Flag{"--for", 0, "STATE", "ended (the default), completed or running"},
    Flag{"--timeout", 0, "DURATION", "give up after 30s, 5m, 1h (exit 1)"},
};
constexpr std::array kUiFlags{
    kProject,
    kColor,
    kQuiet,
    Flag{"--port", 0, "PORT", "listen there (any free one)"},
};
constexpr std::array kDoctorFlags{kOutput, kColor, kQuiet, kProject};
constexpr std::array kAbortFlags{kProject, kOutput, kColor, kQuiet};
constexpr std::array kDeleteFlags{kProject, kYes, kColor, kQuiet};
constexpr std::array kApplyFlags{kProject, kFile, kOutput, kColor, kQuiet};
constexpr std::array kKindsFlags{
    kOutput, kNoHeaders, kColor,
    kQuiet,  kProject,   Flag{"--check", 0, "", "is each usable here? if not, why"}};
constexpr std::array kBuildFlags{
    Flag{"--output", 'o', "FILE", "the library to write (FILE.so), or the program (FILE)"},
    Flag{"--program", 0, "", "a program that tests a graph (metier/mock_server.h)"},
    Flag{"--debug", 'g', "", "with debug information, without optimisation"},
    kColor,
    kQuiet,
};
constexpr std::array kServerFlags{
    Flag{"--listen", 0, "ADDR:PORT", "listen on TCP too (a token is made at first start)"},
    Flag{"--data", 0, "FOLDER", "records (METIER_DATA)"},
    Flag{"--db", 0, "WHERE", "sqlite, or postgresql://…"},
    Flag{"--cluster", 0, "WHICH", "embedded or kubernetes"},
    Flag{"--kubeconfig", 0, "FILE", "of the Kubernetes cluster"},
    Flag{"--tls-cert", 0, "FILE", "certificate (PEM)"},
    Flag{"--tls-key", 0, "FILE", "its key (PEM)"},
    Flag{"--auth", 0, "HOW", "token (the default) or none"},
    Flag{"--insecure-no-auth", 0, "", "allow --auth none on another address than loopback"},
    Flag{"--allowed-host", 0, "NAME", "a name this server is called by", true},
    Flag{"--python", 0, "INTERPRETER", "of the default environment (METIER_PYTHON)"},
    Flag{"--private", 0, "", "end when idle (used by commands that start a server)"},
    kColor,
    kQuiet,
};
constexpr std::array kEnvFlags{kOutput, kColor, kQuiet, kProject};
constexpr std::array kSecretFlags{
    kProject, kOutput,
    kYes,     kColor,
    kQuiet,   Flag{"--from-file", 0, "FILE", "the value is this file ('-': standard input)"},
};
constexpr std::array kConfigFlags{
    Flag{"--local", 0, "", "set, unset: metier.toml of this folder, not yours"},
    Flag{"--show-origin", 0, "", "get: where the value comes from, in front of it"},
    Flag{"--from-file", 0, "FILE", "set token: the value is this file ('-': standard input)"},
    kProject,
    kOutput,
    kNoHeaders,
    kColor,
    kQuiet,
};
constexpr std::array kPlainFlags{kOutput, kColor, kQuiet, kProject};

constexpr std::array<Words, 4> kRunExamples{
    "metier run train.py:train -p lr=0.1",
    "metier run train.py:train --kind job --cpu 2 --mem 1G -i data=iris.csv",
    "metier run train.py:train --kind job -x lr=[0.1,0.2] --selector max.accuracy",
    "metier run report.sh --kind local -- today"};
constexpr std::array<Words, 5> kDeployExamples{
    "metier deploy hello.py", "metier deploy hello.py --watch",
    "metier deploy hello.py:greet --min 0 --max 4", "metier deploy -f function.yaml",
    "metier deploy handler.so"};
constexpr std::array<Words, 3> kInvokeExamples{
    "metier invoke hello", "metier invoke hello -d '{\"name\": \"Ada\"}'",
    "metier invoke hello -X PUT --path /things/1 -H 'X-Kind: test' -d @thing.json"};
constexpr std::array<Words, 2> kRenderExamples{"metier render train.py:train --kind job --mem 1G",
                                               "metier render -f function.yaml -o json"};
constexpr std::array<Words, 2> kWaitExamples{"metier wait train --for completed --timeout 5m",
                                             "metier wait @-1 && metier logs @-1"};
constexpr std::array<Words, 2> kUiExamples{"metier ui @-1", "metier ui squares --port 8787"};
constexpr std::array<Words, 2> kDoctorExamples{"metier doctor", "metier doctor -o json"};
constexpr std::array<Words, 4> kGetExamples{"metier get runs --state error --since 1d",
                                            "metier get runs -w", "metier get artifacts -o wide",
                                            "metier get runs -o json"};
constexpr std::array<Words, 2> kDescribeExamples{"metier describe train", "metier describe @-1"};
constexpr std::array<Words, 3> kLogsExamples{"metier logs -f train",
                                             "metier logs 4f9a12c7 --tail 20",
                                             "metier logs train --since 5m --timestamps"};
constexpr std::array<Words, 1> kWhyExamples{"metier why train-big"};
constexpr std::array<Words, 1> kAbortExamples{"metier abort train-big"};
constexpr std::array<Words, 1> kDeleteExamples{"metier delete 4f9a12c7"};
constexpr std::array<Words, 1> kApplyExamples{"metier apply -f secret.yaml"};
constexpr std::array<Words, 2> kKindsExamples{"metier kinds", "metier kinds --check"};
constexpr std::array<Words, 2> kBuildExamples{"metier build by_carrier.cc",
                                              "metier build --program graph_test.cc"};
constexpr std::array<Words, 2> kServerExamples{"metier server --listen 127.0.0.1:8080",
                                               "metier server --data /srv/metier"};
constexpr std::array<Words, 1> kEnvExamples{"eval \"$(metier env)\""};
constexpr std::array<Words, 3> kSecretExamples{"metier secret set db:password",
                                               "metier secret set db:password --from-file -",
                                               "metier secret list"};
constexpr std::array<Words, 4> kConfigExamples{
    "metier config", "metier config set server http://127.0.0.1:8080",
    "metier config set project flights --local", "metier config unset server"};
constexpr std::array<Words, 3> kQueueExamples{"metier queue", "metier queue pause 'new disks at 5'",
                                              "metier queue resume"};
constexpr std::array<Words, 1> kVersionExamples{"metier version"};
constexpr std::array<Words, 1> kCompletionExamples{
    "metier completion bash > ~/.local/share/bash-completion/completions/metier"};
constexpr std::array<Words, 3> kHelpExamples{"metier help run", "metier help exit-codes",
                                             "metier help InsufficientMemory"};

constexpr std::array kVerbs{
    VerbEntry{{"run", "FILE[:HANDLER] [-p NAME=VALUE]... [-- ARGS]", "run a function", kRunFlags,
               kRunExamples, 0, 1, true},
              &run_main,
              "run"},
    VerbEntry{
        {"deploy", "FILE[:HANDLER]|-f FILE [--min N] [--max N]",
         "deploy a function that stays: real time, Dask", kDeployFlags, kDeployExamples, 0, 1},
        &deploy_main,
        "run"},
    VerbEntry{{"invoke", "NAME [-d BODY]", "call a deployed function", kInvokeFlags,
               kInvokeExamples, 1, 1},
              &invoke_main,
              "run"},
    VerbEntry{{"get", "runs|functions|artifacts|pods|projects|environments", "list things",
               kGetFlags, kGetExamples, 1, 1},
              &get_main,
              "look"},
    VerbEntry{{"describe", "NAME-OR-UID", "everything about a run or function", kDescribeFlags,
               kDescribeExamples, 1, 1},
              &describe_main,
              "look"},
    VerbEntry{{"logs", "NAME-OR-UID [-f] [--tail N] [--since 5m] [--part PART]",
               "what a run or a deployed function printed", kLogsFlags, kLogsExamples, 1, 1},
              &logs_main,
              "look"},
    VerbEntry{{"why", "NAME-OR-UID", "why it waits, or why it failed", kDescribeFlags, kWhyExamples,
               1, 1},
              &why_main,
              "look"},
    VerbEntry{{"wait", "NAME-OR-UID [--for STATE] [--timeout DURATION]",
               "block until a run has ended, or begun", kWaitFlags, kWaitExamples, 1, 1},
              &wait_main,
              "look"},
    VerbEntry{{"ui", "NAME-OR-UID|FUNCTION [--port PORT]",
               "the pages of Dask and Spark, for a browser", kUiFlags, kUiExamples, 1, 1},
              &ui_main,
              "look"},
    VerbEntry{{"abort", "NAME-OR-UID", "end a run", kAbortFlags, kAbortExamples, 1, 1},
              &abort_main,
              "run"},
    VerbEntry{{"delete", "NAME-OR-UID", "remove a run that has ended, or a function", kDeleteFlags,
               kDeleteExamples, 1, 1},
              &delete_main,
              "run"},
    VerbEntry{{"render", "FILE[:HANDLER]|-f FILE --kind KIND",
               "the Kubernetes objects as YAML, nothing applied", kRenderFlags, kRenderExamples, 0,
               1, true},
              &render_main,
              "look"},
    VerbEntry{{"apply", "-f FILE", "store a Secret, ConfigMap or PersistentVolumeClaim",
               kApplyFlags, kApplyExamples, 0, 0},
              &apply_main,
              "set up"},
    VerbEntry{{"kinds", "[KIND] [--check]", "every kind: what it is for, usable here?", kKindsFlags,
               kKindsExamples, 0, 1},
              &kinds_main,
              "look"},
    VerbEntry{{"build", "FILE.cc [-o FILE.so] [-- COMPILER-ARGS]",
               "compile a native handler, step or graph", kBuildFlags, kBuildExamples, 1, 1, true},
              &build_main,
              "set up"},
    VerbEntry{{"server", "[--listen ADDR:PORT]", "the server, in the foreground", kServerFlags,
               kServerExamples, 0, 0},
              &server_main,
              "set up"},
    VerbEntry{
        {"env", "", "shell lines for other tools (MLRUN_DBPATH, …)", kEnvFlags, kEnvExamples, 0, 0},
        &env_main,
        "set up"},
    VerbEntry{{"config", "[view|get NAME|set NAME VALUE|unset NAME]",
               "settings, and where each comes from", kConfigFlags, kConfigExamples, 0, 3},
              &config_main,
              "set up"},
    VerbEntry{{"secret", "set|list|delete [NAME[:KEY]]", "secrets of a project", kSecretFlags,
               kSecretExamples, 1, 3},
              &secret_main,
              "set up"},
    VerbEntry{{"queue", "[pause [REASON]|resume]", "keep new pods from starting, or let them",
               kDoctorFlags, kQueueExamples, 0, 2},
              &queue_main,
              "set up"},
    VerbEntry{{"doctor", "", "is everything here as it should be? if not, how to mend it",
               kDoctorFlags, kDoctorExamples, 0, 0},
              &doctor_main,
              "set up"},
    VerbEntry{{"version", "", "version of this program and its server", kPlainFlags,
               kVersionExamples, 0, 0},
              &version_main,
              "help"},
    VerbEntry{{"completion", "bash|zsh|fish", "completion for a shell", kPlainFlags,
               kCompletionExamples, 1, 1},
              &completion_main,
              "set up"},
    VerbEntry{{"help", "[VERB|CODE|exit-codes]", "help on a verb, a reason code or the exit codes",
               kPlainFlags, kHelpExamples, 0, 1},
              &help_main,
              "help"},
};

}  // namespace

std::span<const VerbEntry> all_verbs() { return kVerbs; }

const VerbEntry* find_verb(std::string_view name) {
  for (const auto& entry : kVerbs) {
    if (entry.verb.name == name) { return &entry; }
  }
  return nullptr;
}

std::string_view absent_verb(std::string_view name) {
  if (name == "schedule") {
    return "schedules are not in this version; call metier run from cron or a systemd timer";
  }
  if (name == "shell") {
    return "a shell inside a run is not in this version; a script (metier run FILE.sh --kind job) "
           "sees the same environment, volumes and variables";
  }
  if (name == "workflow") {
    return "workflows are not in this version; call metier run for each step";
  }
  return {};
}

}  // namespace metier::cli
