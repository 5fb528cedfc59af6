// The engine's plain parts: masks, phases, deadlines, ignore rules, snapshots, journal files, merging, why.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>

#include "base/files.h"
#include "engine/deadlines.h"
#include "engine/journal.h"
#include "engine/mask.h"
#include "engine/merge.h"
#include "engine/phases.h"
#include "engine/plan.h"
#include "engine/run_parts.h"
#include "engine/snapshot.h"
#include "engine/tokens.h"
#include "engine/why.h"
#include "resource/labels.h"

namespace metier {
namespace {

class Folder final {
 public:
  Folder() {
    std::string name = (std::filesystem::temp_directory_path() / "metier-engine-XXXXXX").string();
    path_ = ::mkdtemp(name.data());
  }
  ~Folder() {
    std::error_code error;
    std::filesystem::remove_all(path_, error);
  }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }
  const std::string& path() const { return path_; }
  void write(const std::string& name, std::string_view text) const {
    std::filesystem::create_directories(std::filesystem::path(path_ + "/" + name).parent_path());
    EXPECT_TRUE(write_file(path_ + "/" + name, text, 0644));
  }

 private:
  std::string path_;
};

TEST(Masker, MasksWithAsManyStarsAndKeepsLengths) {
  const Masker masker({"s3cret", "s3cret-long", "abc"});
  std::string text = "x s3cret y s3cret-long z abc";
  masker.mask(text);
  EXPECT_EQ(text, "x ****** y *********** z abc")
      << "values of less than four bytes are left alone";
}

TEST(Masker, MasksOverlappingMatches) {
  const Masker masker({"aaaa"});
  std::string text = "aaaaaa";
  masker.mask(text);
  EXPECT_EQ(text, "******");
}

TEST(Masker, MasksEveryLineOfAKey) {
  const Masker masker({"-----BEGIN\nline-one\nend"});
  std::string text = "the log prints line-one alone";
  masker.mask(text);
  EXPECT_EQ(text, "the log prints ******** alone");
}

TEST(Masker, HoldsBackWhatMayBecomeASecret) {
  const Masker masker({"s3cret"});
  EXPECT_EQ(masker.undecided("hello s3c"), 3U);
  EXPECT_EQ(masker.undecided("hello"), 0U);
  EXPECT_EQ(masker.undecided("s3cret"), 0U);
}

TEST(Deadlines, MovesAndShifts) {
  Deadlines deadlines;
  const Deadlines::Point start{std::chrono::hours(1)};
  deadlines.set(Due::lease, "a", start + std::chrono::seconds(5));
  deadlines.set(Due::retry, "a", start + std::chrono::seconds(1));
  deadlines.set(Due::lease, "a", start + std::chrono::seconds(8));
  EXPECT_EQ(deadlines.next(), start + std::chrono::seconds(1));
  EXPECT_EQ(deadlines.take(start + std::chrono::seconds(2)).size(), 1U);
  deadlines.shift(Due::lease, std::chrono::seconds(60));
  EXPECT_TRUE(deadlines.take(start + std::chrono::seconds(30)).empty());
  EXPECT_EQ(deadlines.take(start + std::chrono::seconds(70)).size(), 1U);
  EXPECT_FALSE(deadlines.next());
}

TEST(IgnoreRules, FollowGit) {
  const IgnoreRules rules(
      "*.log\n!keep.log\n/build/\ndocs/*.txt\n**/cache\n# note\n\\#odd\nsrc/**/gen\n");
  using Says = IgnoreRules::Says;
  EXPECT_EQ(rules.says("a/b.log", false), Says::ignored);
  EXPECT_EQ(rules.says("a/keep.log", false), Says::kept);
  EXPECT_EQ(rules.says("build", true), Says::ignored);
  EXPECT_EQ(rules.says("build", false), Says::nothing) << "only folders";
  EXPECT_EQ(rules.says("a/build", true), Says::nothing) << "anchored";
  EXPECT_EQ(rules.says("docs/a.txt", false), Says::ignored);
  EXPECT_EQ(rules.says("docs/x/a.txt", false), Says::nothing);
  EXPECT_EQ(rules.says("x/y/cache", true), Says::ignored);
  EXPECT_EQ(rules.says("#odd", false), Says::ignored);
  EXPECT_EQ(rules.says("src/a/b/gen", true), Says::ignored);
}

TEST(Glob, MatchesClassesAndBoundsStars) {
  EXPECT_TRUE(glob_matches("a[0-9]?.py", "a7x.py"));
  EXPECT_FALSE(glob_matches("a[!0-9]", "a7"));
  EXPECT_FALSE(glob_matches("*.py", "a/b.py"));
  EXPECT_TRUE(glob_matches("**.py", "a/b.py"));
  EXPECT_FALSE(glob_matches("[", "["));
}

TEST(Snapshots, CopyOnceAndLeaveOutWhatIsIgnored) {
  const Folder folder;
  folder.write("code/train.py", "print(1)\n");
  folder.write("code/.gitignore", "data/\n");
  folder.write("code/data/big.bin", std::string(2000, 'x'));
  folder.write("code/venv/pyvenv.cfg", "");
  folder.write("code/venv/lib.py", "x");
  folder.write("code/pkg/__init__.py", "");
  ASSERT_EQ(::symlink("/etc/passwd", (folder / "code/link").c_str()), 0);
  Snapshots snapshots(folder / "data", 1000);
  auto first = snapshots.take(folder / "code", -1);
  ASSERT_TRUE(first) << first.error().text();
  EXPECT_TRUE(std::filesystem::exists(*first + "/train.py"));
  EXPECT_TRUE(std::filesystem::exists(*first + "/pkg/__init__.py"));
  EXPECT_FALSE(std::filesystem::exists(*first + "/data"));
  EXPECT_FALSE(std::filesystem::exists(*first + "/venv"));
  EXPECT_FALSE(std::filesystem::exists(*first + "/link"));
  auto second = snapshots.take(folder / "code", -1);
  EXPECT_EQ(*first, *second);
  folder.write("code/train.py", "print(22)\n");
  auto third = snapshots.take(folder / "code", -1);
  EXPECT_NE(*first, *third);
}

TEST(Snapshots, SayWhatIsTooLarge) {
  const Folder folder;
  folder.write("code/data/big.bin", std::string(5000, 'x'));
  Snapshots snapshots(folder / "data", 1000);
  auto taken = snapshots.take(folder / "code", -1);
  ASSERT_FALSE(taken);
  EXPECT_EQ(taken.error().code, "ContextTooLarge");
  EXPECT_NE(taken.error().message.find("data alone"), std::string::npos);
  EXPECT_EQ(without_context(taken.error()).reason, "ContextTooLarge");
}

// Secrets, databases and the snapshots themselves: a server that is started below the code's folder keeps them there.
TEST(Snapshots, LeaveOutTheServersOwnFolder) {
  const Folder folder;
  folder.write("code/train.py", "print(1)\n");
  folder.write("code/data/secret.key", std::string(5000, 'x'));
  Snapshots snapshots(folder / "code/data", 1000);
  auto taken = snapshots.take(folder / "code", -1);
  ASSERT_TRUE(taken) << taken.error().text();
  EXPECT_TRUE(std::filesystem::exists(*taken + "/train.py"));
  EXPECT_FALSE(std::filesystem::exists(*taken + "/data"));
  taken = snapshots.take(folder / "code/data", -1);
  ASSERT_FALSE(taken);
  EXPECT_NE(taken.error().message.find("is the server's data folder"), std::string::npos);
  EXPECT_EQ(without_context(taken.error()).type, "FieldIgnored");
}

TEST(Snapshots, AreForgottenWhenNobodyUsesThem) {
  const Folder folder;
  folder.write("code/train.py", "print(1)\n");
  Snapshots snapshots(folder / "data", 1000);
  const auto take = [&] { return snapshots.take(folder / "code", -1).value(); };
  const std::string used = take();
  folder.write("code/train.py", "print(2)\n");
  const std::string unused = take();
  folder.write("data/snapshots/0.tmp.1/train.py", "");  // of a server that died
  const auto forget = [&](std::chrono::seconds age) {
    std::set<std::string> names;
    find_snapshots("{\"metier.dev/context\":\"" + used + "\"}", names);
    return snapshots.forget(names, age);
  };
  EXPECT_EQ(forget(std::chrono::hours(1)), 0U);
  EXPECT_EQ(forget(std::chrono::seconds(0)), 2U);
  EXPECT_TRUE(std::filesystem::exists(used + "/train.py"));
  EXPECT_FALSE(std::filesystem::exists(unused));
  EXPECT_EQ(take(), unused) << "it is made again, though it was known";
  EXPECT_TRUE(std::filesystem::exists(unused + "/train.py"));
  // One that is taken again is as new.
  const std::array<timespec, 2> long_ago{};
  ASSERT_EQ(::utimensat(AT_FDCWD, unused.c_str(), long_ago.data(), 0), 0);
  EXPECT_EQ(take(), unused);
  EXPECT_EQ(forget(std::chrono::hours(1)), 0U);
}

TEST(Journal, ReadsWholeLinesOnlyAndGoesOnFromAnOffset) {
  const Folder folder;
  folder.write(
      "journal",
      "{\"v\":1,\"op\":\"phase\",\"name\":\"start\",\"at\":1.5}\nnonsense\n{\"v\":1,\"op\":\"pha");
  auto batch = read_journal(folder.path(), 0);
  ASSERT_TRUE(batch);
  EXPECT_EQ(batch->records.size(), 1U);
  EXPECT_EQ(batch->odd.size(), 1U);
  EXPECT_FALSE(batch->more && batch->next == 0);
  const std::uint64_t next = batch->next;
  folder.write("journal",
               "{\"v\":1,\"op\":\"phase\",\"name\":\"start\",\"at\":1.5}\nnonsense\n{\"v\":1,"
               "\"op\":\"phase\"}\n");
  auto rest = read_journal(folder.path(), next);
  ASSERT_TRUE(rest);
  EXPECT_EQ(rest->records.size(), 1U);
}

TEST(Journal, IsNotFollowedThroughALink) {
  const Folder folder;
  folder.write("secret", "{\"op\":\"failure\"}\n");
  std::filesystem::create_directories(folder / "work");
  ASSERT_EQ(::symlink((folder / "secret").c_str(), (folder / "work/journal").c_str()), 0);
  auto batch = read_journal(folder / "work", 0);
  ASSERT_FALSE(batch);
  EXPECT_EQ(batch.error().kind, ErrorKind::invalid);
  EXPECT_TRUE(read_journal(folder / "none", 0)->records.empty());
}

TEST(Journal, PassesOverARecordThatIsTooLarge) {
  const Folder folder;
  folder.write("journal", std::string(kJournalRecord + 70'000, 'x') + "\n{\"op\":\"phase\"}\n");
  std::uint64_t offset = 0;
  std::size_t records = 0;
  std::size_t odd = 0;
  for (int i = 0; i < 5; ++i) {
    auto batch = read_journal(folder.path(), offset);
    ASSERT_TRUE(batch);
    records += batch->records.size();
    odd += batch->odd.size();
    offset = batch->next;
  }
  EXPECT_EQ(records, 1U);
  EXPECT_GE(odd, 1U);
}

TimelineRow row(std::string what, Time at, JsonObject detail) {
  TimelineRow out;
  out.at = at;
  out.what = std::move(what);
  out.detail = dump_json(detail);
  return out;
}

TEST(Phases, AddUpToTheWallTime) {
  const Time start{std::chrono::seconds(1000)};
  const auto at = [&](int ms) { return start + std::chrono::milliseconds(ms); };
  const auto mark = [&](const char* name, int ms) {
    return row("phase", at(ms), {{"name", name}, {"at", to_iso(at(ms))}});
  };
  const std::vector<TimelineRow> rows{
      row("accepted", start, {}),
      mark("scheduled", 2),
      mark("started", 9),
      mark("start", 12),
      mark("import", 15),
      mark("user", 300),
      mark("upload", 900),
      mark("finished", 950),
      row("state", at(955), {{"to", "completed"}, {"finished", to_iso(at(950))}})};
  const std::vector<Phase> phases = phases_of(rows, 1, at(5000));
  ASSERT_EQ(phases.size(), 7U);
  Duration sum{};
  for (const Phase& phase : phases) { sum += phase.to - phase.from; }
  EXPECT_EQ(sum, Duration(std::chrono::milliseconds(950)));
  EXPECT_EQ(phases[0].to - phases[0].from, Duration(std::chrono::milliseconds(2)));
  EXPECT_EQ(phases[3].name, "start");
  EXPECT_EQ(phases[3].to - phases[3].from, Duration(std::chrono::milliseconds(6)));
  EXPECT_EQ(phases[5].to - phases[5].from, Duration(std::chrono::milliseconds(600)));
}

TEST(Phases, OfAProgramWithoutMarksAreQueueAndUser) {
  const Time start{std::chrono::seconds(1000)};
  const auto at = [&](int ms) { return start + std::chrono::milliseconds(ms); };
  const std::vector<TimelineRow> rows{
      row("accepted", start, {}), row("phase", at(3), {{"name", "started"}, {"at", to_iso(at(3))}}),
      row("state", at(9), {{"to", "error"}, {"finished", to_iso(at(8))}})};
  const std::vector<Phase> phases = phases_of(rows, 1, at(5000));
  ASSERT_EQ(phases.size(), 7U);
  EXPECT_EQ(phases.back().to, at(8));
  EXPECT_EQ(phases[5].to - phases[5].from, Duration(std::chrono::milliseconds(5)));
}

TEST(RunTokens, HoldForTheirRunOnly) {
  const RunTokens tokens("key");
  const std::string token = tokens.token("proj", "uid.1");
  const auto run = tokens.check(token);
  ASSERT_TRUE(run);
  EXPECT_EQ(run->project, "proj");
  EXPECT_EQ(run->uid, "uid.1");
  std::string other = token;
  other[5] = other[5] == 'x' ? 'y' : 'x';
  EXPECT_FALSE(tokens.check(other));
  EXPECT_FALSE(RunTokens("other").check(token));
  EXPECT_FALSE(tokens.check("mrt_a.b"));
}

TEST(Plan, SurvivesItsText) {
  Plan plan;
  plan.project = "p";
  plan.uid = "u";
  plan.kind = "job";
  plan.names = {"n-1", "n-2"};
  plan.attempt = 2;
  plan.objects = {{"p", "Pod", "n-2"}};
  plan.stop_reason = "AbortedByUser";
  plan.pods_stay = true;
  auto again = plan_from_json(dump_json(to_json(plan)));
  ASSERT_TRUE(again);
  EXPECT_EQ(again->name(), "n-2");
  EXPECT_EQ(again->objects, plan.objects);
  EXPECT_EQ(again->stop_reason, "AbortedByUser");
  EXPECT_TRUE(again->pods_stay);
}

TEST(Merge, ExpandsPaths) {
  EXPECT_EQ(expand_path("/d/{{project}}/{{ run.uid }}/{{other}}/{{run.user}}", "p", "u", "me"),
            "/d/p/u/{{other}}/me");
  EXPECT_EQ(expand_path("/d/{{project", "p", "u", ""), "/d/{{project");
}

TEST(Merge, OverlaysByNameAndKeepsTheRest) {
  auto function = Function::from_json(*parse_json(
      R"({"kind":"job","metadata":{"name":"f"},"spec":{"image":"a","env":[{"name":"A","value":"1"},{"name":"B","value":"2"}],"resources":{"limits":{"cpu":"1"}}}})"));
  ASSERT_TRUE(function);
  const Json over = *parse_json(
      R"({"spec":{"image":"","env":[{"name":"B","value":"3"},{"name":"C","value":"4"}],"resources":{},"replicas":3}})");
  ASSERT_TRUE(overlay_function(*function, over.get_object()));
  EXPECT_EQ(string_in(function->spec(), "image"), "a");
  EXPECT_EQ(dump_json(*function->spec().if_contains("env")),
            R"([{"name":"A","value":"1"},{"name":"B","value":"3"},{"name":"C","value":"4"}])");
  EXPECT_EQ(int_in(function->spec(), "replicas"), 3);
  EXPECT_NE(function->spec().if_contains("resources"), nullptr);
}

metier::Run run_in(std::string_view state, JsonObject status = {}) {
  metier::Run run;
  run.set_uid("0123456789abcdef");
  run.set_name("train");
  run.set_project("default");
  run.set_label("kind", "job");
  for (const auto& [key, value] : status) { run.status()[key] = value; }
  run.status()["state"] = state;
  return run;
}

TEST(Why, SaysWhatAPendingRunWaitsFor) {
  const metier::Run run = run_in("pending", {{"start_time", "2026-01-01T00:00:00+00:00"}});
  WhyFacts facts;
  facts.run = &run;
  facts.now = *from_iso("2026-01-01T00:04:12+00:00");
  facts.queue = QueuePosition{.position = 1,
                              .length = 3,
                              .code = "InsufficientMemory",
                              .reason = "asks for 24Gi",
                              .held_by = {{"etl-1", "12Gi"}}};
  facts.asked["memory"] = *Quantity::parse("24Gi");
  facts.health.free["memory"] = *Quantity::parse("9.5Gi");
  facts.health.allocatable["memory"] = *Quantity::parse("32Gi");
  const Why out = why(facts);
  EXPECT_EQ(out.code, "InsufficientMemory");
  EXPECT_NE(out.sentence.find("4 min 12 s"), std::string::npos) << out.sentence;
  EXPECT_NE(out.sentence.find("waits for memory"), std::string::npos);
  ASSERT_FALSE(out.fixes.empty());
  EXPECT_EQ(out.fixes.front().command, "--mem 9728Mi");
}

TEST(Why, NamesTheCauseOfEveryEnd) {
  for (const char* code :
       {"OOMKilled",        "HandlerError",     "HandlerMissing",    "PackageMissing",
        "DeadlineExceeded", "ClientLost",       "ShimLost",          "HostRebooted",
        "NodeLost",         "InvalidParameter", "EnvironmentFailed", "RankFailed",
        "PortTaken",        "ExitCode",         "IterationsFailed",  "Internal",
        "GangIncomplete",   "ExecutorsFailed",  "ServerLost",        "SchedulerLost",
        "WorkerFailed",     "ClusterClosed",    "ClusterBusy"}) {
    const metier::Run run = run_in("error", {{"reason", code}, {"error", "x"}});
    WhyFacts facts;
    facts.run = &run;
    const Why out = why(facts);
    EXPECT_EQ(out.code, code);
    ASSERT_NE(find_cause(code), nullptr) << code;
    EXPECT_NE(out.sentence.find(find_cause(code)->sentence), std::string::npos);
    EXPECT_FALSE(out.fixes.empty());
  }
  const metier::Run killed = run_in("error", {{"reason", "Killed(SIGSEGV)"}});
  WhyFacts facts;
  facts.run = &killed;
  EXPECT_EQ(why(facts).code, "Killed");
  EXPECT_NE(why(facts).sentence.find("SIGSEGV"), std::string::npos);
}

TEST(Why, WhatPodsOfARunHaveInCommonIsToldOnce) {
  const metier::Run run = run_in("running");
  WhyFacts facts;
  facts.run = &run;
  PodStatus pod{.phase = PodPhase::running};
  pod.conditions = {{.type = "RunsAsRoot", .status = true, .message = "as root"}};
  facts.pods = {{"a-driver", pod}, {"a-exec-1", pod}};
  facts.pods[1].second.conditions.push_back(
      {.type = "FieldIgnored", .status = true, .message = "of one"});
  using Pair = std::pair<std::string, std::string>;
  const std::vector<Pair> expected{{"RunsAsRoot", "as root"}, {"FieldIgnored", "of one"}};
  EXPECT_EQ(why(facts).facts, expected);
}

TEST(Why, ASilentRunTellsWhereItsRanksAre) {
  const metier::Run run = run_in("running");
  WhyFacts facts;
  facts.run = &run;
  facts.silent = std::chrono::seconds(95);
  facts.ranks = {{"rank 0", "work.py:12 in train"}};
  const Why out = why(facts);
  EXPECT_EQ(out.code, "Silent");
  EXPECT_NE(out.sentence.find("1 min 35 s"), std::string::npos) << out.sentence;
  ASSERT_EQ(out.facts.size(), 1U);
  EXPECT_EQ(out.facts.front().second, "work.py:12 in train");
}

TEST(RunParts, AnExecutorThatIsEndedWithItsRunHasNotFailed) {
  const std::vector<Part> parts{{.role = "executor", .index = 1, .pod = "a-exec-1"},
                                {.role = "executor", .index = 2, .pod = "a-exec-2"}};
  std::map<ResourceKey, ResourceStatus> resources;
  for (const auto& [name, reason] :
       {std::pair("a-exec-1", "RunEnded"), std::pair("a-exec-2", "OOMKilled")}) {
    ResourceStatus one;
    one.key = {.name_space = "p", .kind = "Pod", .name = name};
    one.status = to_json(PodStatus{.phase = PodPhase::failed, .reason = reason});
    resources[one.key] = one;
  }
  const JsonArray told = parts_json(parts, resources, {});
  EXPECT_EQ(string_at(told[0], "state"), "removed");
  EXPECT_EQ(string_at(told[1], "state"), "error");
}

// The launcher or the driver tells the workers to leave and ends; whoever sees that end may stop them first.
TEST(RunParts, AWorkerThatIsEndedWithItsJobOrItsRunHasNotFailed) {
  for (const std::string_view reason : {kJobEnded, kRunEnded}) {
    std::vector<Part> parts;
    std::map<ResourceKey, ResourceStatus> resources;
    for (const int code : {0, 143}) {
      ContainerStatus base{.name = "base", .state = ContainerStatus::State::terminated};
      base.exit_code = code;
      parts.push_back({.role = "worker", .index = code, .pod = "j-worker-" + std::to_string(code)});
      ResourceStatus one;
      one.key = {.name_space = "p", .kind = "Pod", .name = parts.back().pod};
      one.status = to_json(PodStatus{
          .phase = PodPhase::failed, .reason = std::string(reason), .containers = {base}});
      resources[one.key] = one;
    }
    const JsonArray told = parts_json(parts, resources, {});
    EXPECT_EQ(string_at(told[0], "state"), "completed");
    EXPECT_EQ(find_path(told[0], "reason"), nullptr);
    EXPECT_EQ(string_at(told[1], "state"), "removed");
    EXPECT_EQ(string_at(told[1], "reason"), reason);
  }
}

TEST(RunParts, TellPodsAndRanks) {
  const std::vector<Part> parts{
      {.role = "launcher", .index = 0, .pod = "j-launcher"},
      {.role = "worker", .index = 0, .pod = "j-worker-0"},
      {.role = "rank", .index = 0, .pod = "j-worker-0", .container = "rank-0"}};
  ContainerStatus base{.name = "base", .state = ContainerStatus::State::running};
  base.started = *from_iso("2026-01-01T00:00:00+00:00");
  ContainerStatus rank{.name = "rank-0", .rank = true, .state = ContainerStatus::State::terminated};
  rank.exit_code = 137;
  rank.signal = 9;
  rank.reason = "Killed(SIGKILL)";
  rank.cpu_us = 1'500'000;
  rank.peak_memory = 4096;
  ResourceStatus pod;
  pod.key = {.name_space = "p", .kind = "Pod", .name = "j-worker-0"};
  pod.status = to_json(PodStatus{.phase = PodPhase::running, .containers = {base, rank}});
  const UsageByPod usage{
      {"j-worker-0",
       {{.at = base.started + std::chrono::seconds(2), .cpu_us = 1'800'000, .memory = 8192}}}};
  const JsonArray out = parts_json(parts, {{pod.key, pod}}, usage);
  ASSERT_EQ(out.size(), 3U);
  EXPECT_EQ(
      dump_json(out[0]),
      R"({"name":"launcher","role":"launcher","index":0,"pod":"j-launcher","state":"pending"})");
  const JsonObject* worker = find_part(out, "worker-0");
  ASSERT_NE(worker, nullptr);
  EXPECT_EQ(string_in(*worker, "state"), "running");
  EXPECT_DOUBLE_EQ(worker->at("cpu_seconds").as_double(), 1.8);
  EXPECT_EQ(int_in(*worker, "peak_memory"), 8192);
  EXPECT_EQ(worker->at("samples").as_array().size(), 1U);
  const JsonObject* first = find_part(out, "rank-0");
  ASSERT_NE(first, nullptr);
  EXPECT_EQ(string_in(*first, "state"), "error");
  EXPECT_EQ(int_in(*first, "signal"), 9);
  EXPECT_EQ(find_part(out, "rank-1"), nullptr);
}

TEST(RunParts, ASharedPodUsedWhatItUsedSinceTheFirstLook) {
  ResourceStatus pod;
  pod.key = {.name_space = "p", .kind = "Pod", .name = "c-worker-0"};
  pod.labels = {{std::string(kSharedLabel), "c"}};
  pod.status = to_json(PodStatus{.phase = PodPhase::running});
  const std::vector<Part> parts{{.role = "worker", .index = 0, .pod = "c-worker-0"}};
  UsageByPod usage{{"c-worker-0", {{.at = {}, .cpu_us = 40'000'000, .memory = 4096}}}};
  EXPECT_FALSE(parts_json(parts, {{pod.key, pod}}, usage)[0].get_object().contains("cpu_seconds"));
  usage["c-worker-0"].push_back({.at = {}, .cpu_us = 41'500'000, .memory = 8192});
  const JsonArray out = parts_json(parts, {{pod.key, pod}}, usage);
  EXPECT_DOUBLE_EQ(out[0].at("cpu_seconds").as_double(), 1.5);
  EXPECT_EQ(int_in(out[0].as_object(), "peak_memory"), 8192);
}

TEST(RunParts, OfAServiceThatGoesOnAreReleased) {
  const Time end = *from_iso("2026-01-01T00:00:09+00:00");
  std::map<ResourceKey, ResourceStatus> resources;
  std::vector<Part> parts;
  for (const auto& [role, phase, shared] : {std::tuple{"main", PodPhase::running, false},
                                            {"scheduler", PodPhase::running, true},
                                            {"worker", PodPhase::failed, true}}) {
    ResourceStatus pod;
    pod.key = {.name_space = "p", .kind = "Pod", .name = role};
    if (shared) { pod.labels[std::string(kSharedLabel)] = "c"; }
    pod.status = to_json(PodStatus{.phase = phase});
    resources[pod.key] = pod;
    parts.push_back({.role = role, .pod = role});
  }
  parts.push_back({.role = "retired", .pod = "nobody"});
  JsonArray out = parts_json(parts, resources, {});
  release_parts(out, resources, end);
  EXPECT_EQ(string_at(out[0], "state"), "running");
  EXPECT_EQ(string_at(out[1], "state"), "released");
  EXPECT_EQ(string_at(out[1], "end_time"), to_iso(end));
  EXPECT_EQ(string_at(out[2], "state"), "error");
  EXPECT_EQ(string_at(out[3], "state"), "removed");
}

TEST(RunParts, KeepABoundedNumberOfSamples) {
  std::vector<UsageSample> samples;
  for (int i = 0; i < 10'000; ++i) {
    add_sample(samples, {.at = Time{std::chrono::seconds(i)}, .cpu_us = i});
  }
  EXPECT_LE(samples.size(), kMostSamples);
  EXPECT_EQ(samples.front().cpu_us, 0);
  EXPECT_EQ(samples.back().cpu_us, 9'999);
}

TEST(Why, ReadsTheCauseFromThePods) {
  const metier::Run run = run_in("pending");
  WhyFacts nothing;
  nothing.run = &run;
  EXPECT_EQ(why(nothing).code, "Queued");
  for (const auto& [reason, code] : {std::pair{"SecretMissing", "SecretMissing"},
                                     {"VolumeMissing", "VolumeMissing"},
                                     {"EnvironmentBuilding", "EnvironmentBuilding"},
                                     {"", "Starting"}}) {
    PodStatus pod;
    pod.conditions.push_back({.type = "PodScheduled", .status = true});
    pod.reason = reason;
    WhyFacts facts;
    facts.run = &run;
    facts.pods.emplace_back("p", pod);
    EXPECT_EQ(why(facts).code, code);
  }
}

}  // namespace
}  // namespace metier
