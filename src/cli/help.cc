// Help, version, completion.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "cli/document.h"
#include "cli/outcome.h"
#include "net/url.h"

namespace metier::cli {
namespace {

struct Topic {
  std::string_view code;
  std::string_view meaning;
  std::string_view fix;
  int exit_code;
};

// One row per reason code (docs/reference: reason codes).
constexpr std::array kTopics{
    Topic{"InsufficientCpu", "The run waits: the cores it asks for are in use by others.",
          "ask for less (--cpu), or abort what holds them: metier why RUN", 5},
    Topic{"InsufficientMemory", "The run waits: the memory it asks for is in use by others.",
          "ask for less (--mem), or abort what holds it: metier why RUN", 5},
    Topic{"InsufficientGpu", "The run waits: no GPU is free.", "ask for fewer (--gpus), or wait",
          5},
    Topic{"GangIncomplete",
          "The run's pods start together or not at all, and not all of them fit now.",
          "ask for fewer replicas, or wait", 5},
    Topic{"QueuePaused", "The queue is paused: metier queue says why.", "metier queue resume", 5},
    Topic{"NeverFits",
          "No node of this cluster could ever run a pod of this size; nothing was started.",
          "ask for at most what the message says", 5},
    Topic{"EnvironmentBuilding", "The packages that the run asks for are being installed, once.",
          "wait; the next run starts at once", 5},
    Topic{"EnvironmentFailed",
          "There is no such Python interpreter, or the packages that the run asks for could not be "
          "installed.",
          "metier why RUN names the interpreter or shows the builder's last lines", 5},
    Topic{"PackageMissing", "The code imports a package that its environment does not have.",
          "metier run FILE --requirements requirements.txt", 1},
    Topic{"SecretMissing", "A secret that the run names is not in the project.",
          "metier secret set NAME[:KEY]", 5},
    Topic{"ConfigMapMissing", "A config map that the run names is not in the project.",
          "metier apply -f FILE", 5},
    Topic{"ProgramMissing", "The program or file that the run should execute is not there.",
          "correct the command, or put the program where it was looked for: metier why RUN names "
          "both",
          3},
    Topic{"StartFailed", "The run's processes could not be started.", "the message says why", 5},
    Topic{"VolumeMissing", "A folder or claim that the run mounts is not there.",
          "create it, or correct -v", 5},
    Topic{"PortTaken", "A port is held by another process.",
          "choose another port, or end the process that is named", 5},
    Topic{"EngineMissing",
          "The kind needs a program that is not installed on this machine, or a package that the "
          "function's environment lacks.",
          "metier kinds --check", 5},
    Topic{"ServiceUnavailable",
          "Nobody answers at the address of the service that the run works with: of the Spark "
          "service that its session goes to, of a Dask scheduler.",
          "start the service, or correct its address (METIER_SPARK_SERVICE)", 5},
    Topic{"SchedulerLost",
          "The scheduler of the run's Dask cluster died; the message says how. What the run had "
          "logged is kept.",
          "run it again: that opens the cluster again", 5},
    Topic{"ClusterBusy",
          "Another run uses the Dask cluster with other code: of the same function, or of another "
          "one that names the same dask_cluster_uri. A worker has one module of a name.",
          "run it again when the other one has ended, or give the function another name", 5},
    Topic{"WorkerFailed",
          "The workers of the run's Dask cluster ended before they had joined it, several in a "
          "row; the message names the last one and how it ended.",
          "read that worker's log: metier logs RUN --part worker-N", 5},
    Topic{"ClusterClosed",
          "The run's Dask cluster was closed while it ran: by another client (fn.close(), "
          "Client.shutdown), or idle for scheduler_timeout.",
          "run it again: that opens the cluster again", 5},
    Topic{"NodeLost", "The node that ran the pod is gone.",
          "run it again; --retry does so by itself", 5},
    Topic{"OOMKilled", "The kernel killed the process: it used more memory than its limit.",
          "give it more: --mem", 1},
    Topic{"ProcessOOMKilled",
          "The kernel killed a process of the pod, not its main one: together they used more "
          "memory than the limit. What the main one failed with may be the consequence.",
          "give it more: --mem", 0},
    Topic{"DeadlineExceeded", "The job took longer than its activeDeadlineSeconds.",
          "give it more: --set spec.active_deadline_seconds=N, or runPolicy.activeDeadlineSeconds",
          1},
    Topic{"ThresholdExceeded", "The run stayed in one state longer than its threshold.",
          "raise spec.state_thresholds, or --timeout", 1},
    Topic{"ClientLost", "The program that held the run went away without ending it.",
          "run it again", 1},
    Topic{"ShimLost", "The process that watches the pod was killed; the pod's end is not known.",
          "run it again; --retry does so by itself", 5},
    Topic{"HostRebooted", "The machine was restarted while the run went on.",
          "run it again; --retry does so by itself", 5},
    Topic{"IterationsFailed", "Some iterations of a run with hyper-parameters failed.",
          "metier logs RUN shows their errors, metier describe RUN their states", 1},
    Topic{"RankFailed", "One rank failed first; the others were stopped.",
          "metier logs RUN shows that rank", 1},
    Topic{"ExecutorsFailed",
          "More Spark executors of the run failed than spark.executor.maxNumFailures: twice their "
          "number, at least 3.",
          "metier logs RUN --part executor-N shows why each ended", 1},
    Topic{"ServerLost",
          "The warm Spark that the run's session was in ended, and the run's code had begun.",
          "run it again: it starts another one", 1},
    Topic{"Silent",
          "A distributed run prints nothing and uses no processor; metier why RUN shows where each "
          "rank is.",
          "abort it: metier abort RUN", 0},
    Topic{"HandlerError", "The function raised an exception.", "metier logs RUN", 1},
    Topic{"HandlerMissing", "The file has no function of that name.",
          "metier run FILE:HANDLER with one of those listed", 2},
    Topic{"InvalidParameter", "A parameter does not fit what the function takes.",
          "the message names it", 2},
    Topic{"ProcessorFailed",
          "The function's processor ended: its code could not be loaded, or it crashed.",
          "metier logs FUNCTION; mend it and deploy it again", 1},
    Topic{"ReadinessTimeout", "The function was not ready within its readinessTimeoutSeconds.",
          "metier logs FUNCTION; give it more time, or do less in init_context", 1},
    Topic{"ScaledToZero",
          "No replica of the function runs: nobody called it for as long as it waits. Of kind "
          "dask: its "
          "cluster has closed, idle for scheduler_timeout, shut down, or for the room that others "
          "waited for.",
          "call it: the first call starts a replica and is answered by it; --min 1 keeps one. Of "
          "kind dask: "
          "run it, use fn.client, or deploy it again",
          0},
    Topic{"WorkerCrashed",
          "A worker of the function's processor ended by itself: its code, or a library, left the "
          "interpreter or crashed it. Another has its place; an event that had begun was answered "
          "502.",
          "metier logs FUNCTION; mend what ends it and deploy again", 0},
    Topic{"BrokerUnavailable",
          "A stream trigger of the function does not reach its broker. It tries on by itself; "
          "nothing that the broker holds is lost.",
          "start the broker, or correct the trigger's brokers, names and passwords", 0},
    Topic{"ListensOnAllInterfaces",
          "A server or a function listens on 0.0.0.0 or [::]: every network of this machine "
          "reaches it. A function's address asks nobody for a token.",
          "metier server --listen with one address, 127.0.0.1:8080 or that of the wanted network",
          0},
    Topic{"ExitCode", "The program ended with an exit code that is not zero.", "metier logs RUN",
          1},
    Topic{"Killed", "A signal ended the process (a crash, or somebody's kill).", "metier logs RUN",
          1},
    Topic{"Queued", "The run waits for its turn.", "metier why RUN", 0},
    Topic{"QueueOrder", "The run waits behind one that has waited longer.", "metier why RUN", 0},
    Topic{"Starting", "The run's pod is being started.", "wait a moment", 0},
    Topic{"AwaitingRetry", "An attempt failed; the next one starts after its delay.",
          "wait, or metier abort RUN", 0},
    Topic{"InsufficientPods", "The node runs as many pods as it may.", "wait, or end other runs",
          5},
    Topic{"ProcessStuck", "A process did not end after SIGKILL: it hangs in the kernel.",
          "see the machine's disks and mounts", 1},
    Topic{"NotReady", "No replica is ready.", "metier why FUNCTION", 5},
    Topic{"AbortedByUser", "Somebody aborted the run.", "run it again", 4},
    Topic{"NoSpace", "The disk of the data folder is full: nothing more can be recorded.",
          "free disk space; nothing needs a restart", 5},
    Topic{"Damaged", "A record of the data folder does not hold what was written.",
          "restore the data folder from a copy", 5},
    Topic{"KeyLost", "The key of the stored secrets is not the one they were written with.",
          "restore secret.key, or set the secrets again", 5},
    Topic{"ContextTooLarge", "The folder of the file is too large to be taken along.",
          "exclude files in .gitignore, or --no-context", 2},
    Topic{"NotRoot",
          "A pod asks for another user, and only a server that root started can change it.",
          "leave runAsUser out, or run the server as root", 5},
    Topic{"NotBuilt", "This version has no such feature.", "the message says what there is", 5},
    Topic{"UnknownKind", "There is no kind of that name.", "metier kinds", 2},
    Topic{"Running", "Nothing is wrong: the run goes on.", "metier logs -f RUN", 0},
    Topic{"Completed", "Nothing is wrong: the run has completed.", "metier describe RUN", 0},
    Topic{"StoreUnavailable", "The server cannot write its records (disk full, or a failed write).",
          "free disk space and restart the server", 5},
    Topic{"Internal", "A mistake of metier's own.", "report it with the server's log", 70},
    Topic{"SlowWorker", "The interpreter cannot load the fast worker; a slower one is used.",
          "use CPython 3.9 or newer", 0},
    Topic{"RunsAsRoot", "The pod's processes are root's.", "submit as an ordinary user", 0},
    Topic{"NoMountNamespace",
          "This machine gives pods no mount namespace: volumes at foreign paths are refused.",
          "allow user namespaces, or run the server as root", 0},
    Topic{"RuntimeSubstituted",
          "The image is not known here; the caller's or the server's interpreter was taken.",
          "--requirements names the packages", 0},
    Topic{"Unsupported", "This cluster cannot do what a field asks for; nothing was started.",
          "the message names the field and what can be used instead", 5},
    Topic{"FieldIgnored", "A field has no effect on this cluster.",
          "remove it, or use another cluster", 0},
};

constexpr std::string_view kExitCodes =
    "exit codes\n"
    "  0    completed\n"
    "  1    the user's code failed (also: killed for memory, threshold, lost client)\n"
    "  2    bad usage or invalid spec; port or data folder in use\n"
    "  3    not found\n"
    "  4    aborted\n"
    "  5    the cluster could not run it: resources, environment, engine missing\n"
    "  6    server not reachable\n"
    "  70   a mistake of metier's own\n"
    "  130  detached by the second Ctrl-C: the run goes on\n";

std::string flag_line(const Flag& flag) {
  std::string names = flag.letter != 0 ? fmt::format("-{}, {}", flag.letter, flag.name)
                                       : fmt::format("    {}", flag.name);
  if (!flag.value.empty()) { names += fmt::format(" {}", flag.value); }
  return fmt::format("  {:<32} {}{}\n", names, flag.help, flag.repeats ? " (repeats)" : "");
}

constexpr std::string_view kBash = R"(_metier() {
  local IFS=$'\n'
  COMPREPLY=($(metier __complete "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
  [ ${#COMPREPLY[@]} -eq 0 ] && COMPREPLY=($(compgen -f -- "${COMP_WORDS[COMP_CWORD]}"))
}
complete -o filenames -F _metier metier
)";
constexpr std::string_view kZsh = R"(#compdef metier
_metier() {
  local -a found
  found=("${(@f)$(metier __complete "${(@)words[2,CURRENT]}" 2>/dev/null)}")
  [[ -n "$found[1]" ]] && compadd -- $found || _files
}
compdef _metier metier
)";
constexpr std::string_view kFish =
    R"(complete -c metier -a '(metier __complete (commandline -opc)[2..-1] (commandline -ct) 2>/dev/null)'
)";

}  // namespace

std::string short_help(const Screen& screen) {
  const auto group = [&](std::string_view title) {
    std::string names;
    for (const auto& entry : all_verbs()) {
      if (entry.group == title) {
        names += (names.empty() ? "" : ", ") + std::string(entry.verb.name);
      }
    }
    const std::string space(9 - title.size(), ' ');
    return fmt::format("  {}{}{}\n", screen.paint_out(Role::name, title), space, names);
  };
  return fmt::format(
      "metier: a function is written once and runs as any kind, here or on a cluster\n\n"
      "{}{}{}  {}     help VERB, help exit-codes, help CODE, version\n\n"
      "  metier run hello.py\n"
      "  metier run train.py:train --kind job -p lr=0.1 --cpu 2 --mem 1G\n\n"
      "flags and examples of a verb: metier help run\n",
      group("run"), group("look"), group("set up"), screen.paint_out(Role::name, "help"));
}

std::string verb_help(const VerbEntry& entry, const Screen& screen) {
  const auto& verb = entry.verb;
  std::string out = fmt::format("metier {}: {}\n\n", verb.name, verb.summary);
  for (const auto example : verb.examples) { out += fmt::format("  {}\n", example); }
  out += fmt::format("\n{}\n  metier {} {}\n", screen.paint_out(Role::name, "usage"), verb.name,
                     verb.usage);
  if (!verb.flags.empty()) { out += "\n" + screen.paint_out(Role::name, "flags") + "\n"; }
  for (const auto& flag : verb.flags) { out += flag_line(flag); }
  return out;
}

std::string topic_help(std::string_view topic) {
  if (topic == "exit-codes") { return std::string(kExitCodes); }
  for (const auto& row : kTopics) {
    if (row.code == topic) {
      return fmt::format("{}\n  {}\n  {}\n  exit {}\n", row.code, row.meaning, row.fix,
                         row.exit_code);
    }
  }
  return {};
}

std::string_view topic_fix(std::string_view code) {
  const auto* row = std::ranges::find(kTopics, code, &Topic::code);
  return row == kTopics.end() ? std::string_view() : row->fix;
}

Result<int> help_main(Command& command) {
  if (command.arguments.words().empty()) {
    command.screen.out(short_help(command.screen));
    return 0;
  }
  const auto& word = command.arguments.words()[0];
  if (const auto* entry = find_verb(word)) {
    command.screen.out(verb_help(*entry, command.screen));
    return 0;
  }
  if (const auto text = topic_help(word); !text.empty()) {
    command.screen.out(text);
    return 0;
  }
  if (const auto text = absent_verb(word); !text.empty()) {
    return fail(invalid("help", std::string(text)));
  }
  std::vector<std::string> known{"exit-codes"};
  for (const auto& entry : all_verbs()) { known.emplace_back(entry.verb.name); }
  for (const auto& row : kTopics) { known.emplace_back(row.code); }
  const auto close = nearest(word, known);
  return fail(invalid("help",
                      quote(word) + " is neither a verb nor a code" +
                          (close ? ", did you mean " + *close + "?" : ""),
                      "metier help"));
}

Result<int> version_main(Command& command) {
  std::string server;
  auto places = find_places(command.environment(), ::geteuid() == 0);
  auto endpoint = places ? find_endpoint(command.environment(), *places)
                         : Result<Endpoint>(fail(ErrorKind::unavailable, ""));
  if (endpoint) {  // told when it answers at once; nothing is started
    auto client = net::make_blocking_client();
    auto answer = client->send(
        {.url = endpoint->url + "/api/v1/healthz", .timeout = std::chrono::milliseconds(200)});
    if (answer && answer->status == 200) {
      if (auto body = parse_json(answer->body); body && body->is_object()) {
        server = string_in(body->as_object(), "version", "unknown");
      }
    }
  }
  if (command.output == "json") {
    JsonObject document{{"client", command.program.version}};
    if (!server.empty()) { document["server"] = server; }
    command.screen.json(Json(std::move(document)));
    return 0;
  }
  command.screen.out("metier " + command.program.version + "\n");
  if (!server.empty()) { command.screen.out(fmt::format("server {}\n", printable(server))); }
  return 0;
}

Result<int> completion_main(Command& command) {
  const auto& shell = command.arguments.words()[0];
  if (shell != "bash" && shell != "zsh" && shell != "fish") {
    return fail(invalid("completion", quote(shell) + " is unknown", "bash, zsh or fish"));
  }
  command.screen.out(shell == "bash" ? kBash : shell == "zsh" ? kZsh : kFish);
  return 0;
}

}  // namespace metier::cli
