#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "store/testing/store_fixture.h"

namespace metier {
namespace {

using RecordsTest = StoreFixture;

RunRow make_run(const std::string& uid, const std::string& name, std::int64_t start,
                std::int64_t updated, const std::string& state = "completed") {
  RunRow row;
  row.project = "p";
  row.uid = uid;
  row.name = name;
  row.state = state;
  row.kind = "job";
  row.start = Time{Duration(start)};
  row.updated = Time{Duration(updated)};
  row.labels = {{"kind", "job"}, {"owner", uid.substr(0, 1)}};
  row.body = "{\"uid\":\"" + uid + "\"}";
  return row;
}

std::vector<std::string> uids(const Result<std::vector<RunRow>>& rows) {
  std::vector<std::string> out;
  for (const auto& row : *rows) { out.push_back(row.uid); }
  return out;
}

// What a list must give, computed the slow way from plain vectors.
std::vector<std::string> naive(std::vector<RunRow> rows, const RunFilter& f) {
  std::erase_if(rows, [&](const RunRow& r) {
    const bool named =
        f.name.empty() ||
        (f.name[0] == '~' ? r.name.find(f.name.substr(1)) != std::string::npos : r.name == f.name);
    const bool stated = f.states.empty() || std::ranges::find(f.states, r.state) != f.states.end();
    const bool labelled = std::ranges::all_of(f.labels, [&](const std::string& l) {
      const auto at = l.find('=');
      const auto found = r.labels.find(l.substr(0, at));
      return found != r.labels.end() &&
             (at == std::string::npos || found->second == l.substr(at + 1));
    });
    const bool asked = f.uids.empty() || std::ranges::find(f.uids, r.uid) != f.uids.end();
    return !named || !asked || !stated || !labelled || (f.start_from && r.start < *f.start_from) ||
           (f.only_parents && r.iteration != 0);
  });
  if (f.partition) {
    std::ranges::sort(rows, [&](const RunRow& a, const RunRow& b) {
      return f.partition_sort == "created" ? a.start > b.start : a.updated > b.updated;
    });
    std::vector<RunRow> kept;
    for (const auto& row : rows) {
      const auto same =
          std::ranges::count_if(kept, [&](const RunRow& k) { return k.name == row.name; });
      if (same < f.rows_per_partition) { kept.push_back(row); }
    }
    rows = kept;
  }
  std::ranges::sort(rows, [](const RunRow& a, const RunRow& b) { return a.start > b.start; });
  std::vector<std::string> out;
  for (const auto& row : rows) { out.push_back(row.uid); }
  return out;
}

TEST_F(RecordsTest, ListsAgreeWithANaiveModel) {
  open();
  const unsigned seed = 20261125;
  std::cout << "seed " << seed << "\n";
  std::mt19937 random(seed);
  std::map<std::string, RunRow> model;
  std::vector<std::int64_t> starts(200);
  for (std::size_t i = 0; i < starts.size(); ++i) {
    starts[i] = static_cast<std::int64_t>(i) * 10 + 1;
  }
  std::ranges::shuffle(starts, random);
  const std::vector<std::string> states{"completed", "error", "running"};
  std::int64_t now = 100'000;
  for (int i = 0; i < 400; ++i) {
    const auto uid =
        std::string(1, static_cast<char>('a' + random() % 5)) + std::to_string(random() % 150);
    if (model.contains(uid) && random() % 8 == 0) {
      ASSERT_TRUE(write([&](Records& tx) { return tx.delete_run("p", uid); }));
      model.erase(uid);
      continue;
    }
    auto row = make_run(uid, "n" + std::to_string(random() % 12),
                        starts[static_cast<std::size_t>(i) % starts.size()] + i * 5000, ++now,
                        states[random() % 3]);
    if (model.contains(uid)) {
      row.name = model[uid].name;                               // a run keeps its name
      if (random() % 4 != 0) { row.start = model[uid].start; }  // it may learn when it really began
    }
    model[uid] = row;
    ASSERT_TRUE(write([&](Records& tx) { return tx.put_run(row); }));
  }
  std::vector<RunRow> rows;
  for (const auto& [uid, row] : model) { rows.push_back(row); }
  ASSERT_TRUE(write([](Records& tx) { return tx.put_project("p", "{}"); }));
  ASSERT_TRUE(write([](Records& tx) { return tx.put_project("other", "{}"); }));
  std::vector<RunFilter> filters(16);
  filters[1].name = "n3";
  filters[2].name = "~1";
  filters[3].states = {"error", "running"};
  filters[4].labels = {"kind=job", "owner=b"};
  filters[5].partition = true;
  filters[5].partition_sort = "updated";
  filters[5].only_parents = true;
  filters[5].start_from = Time{Duration(900'000)};
  filters[6].partition = true;
  filters[6].rows_per_partition = 2;
  filters[6].partition_sort = "created";
  filters[7].labels = {"kind=job"};
  filters[7].start_from = Time{Duration(1'000'000)};
  filters[8].labels = {"owner=c"};
  filters[8].states = {"running"};
  filters[8].only_parents = true;
  filters[9].labels = {"owner"};
  filters[9].states = {"completed"};
  filters[10].states = {"completed", "error", "running"};
  filters[10].labels = {"nobody=1"};
  filters[11].name = "n5";
  filters[11].states = {"error"};
  filters[12].name = "n5";
  filters[12].labels = {"owner=a"};
  filters[13].uids = {rows[0].uid, rows[5].uid, "zz"};
  filters[14].partition = true;
  filters[14].partition_sort = "created";
  filters[14].only_parents = true;
  filters[15].partition = true;
  filters[15].partition_sort = "updated";
  filters[15].only_parents = true;
  for (auto& filter : filters) {
    // Everywhere is the same as in the only project that has runs.
    if (!filter.partition) { EXPECT_EQ(uids(store_->records().runs(filter)), naive(rows, filter)); }
    filter.project = "p";
    const auto got = store_->records().runs(filter);
    ASSERT_TRUE(got) << got.error().text();
    EXPECT_EQ(uids(got), naive(rows, filter));
    auto page = filter;
    page.offset = 3;
    page.limit = 5;
    auto all = naive(rows, filter);
    const auto first = std::min<std::size_t>(3, all.size());
    const std::vector<std::string> slice(
        all.begin() + static_cast<std::ptrdiff_t>(first),
        all.begin() + static_cast<std::ptrdiff_t>(std::min(all.size(), first + 5)));
    EXPECT_EQ(uids(store_->records().runs(page)), slice);
  }
}

TEST_F(RecordsTest, RunsOfStatesComeAsTheyWereStored) {
  open();
  ASSERT_TRUE(write([](Records& tx) { return tx.put_project("p", "{}"); }));
  const std::vector<std::string> states{"running", "completed", "pending"};
  for (int i = 0; i < 30; ++i) {
    ASSERT_TRUE(write([&](Records& tx) {
      return tx.put_run(make_run("a" + std::to_string(i), "n", (i * 7) % 30 + 1, i,
                                 states[static_cast<std::size_t>(i) % 3]));
    }));
  }
  RunFilter filter{.states = {"pending", "running"}};
  filter.sort = false;
  std::vector<std::string> wanted;
  for (int i = 0; i < 30; ++i) {
    if (i % 3 != 1) { wanted.push_back("a" + std::to_string(i)); }
  }
  EXPECT_EQ(uids(store_->records().runs(filter)), wanted);
  filter.offset = 2;
  filter.limit = 3;
  EXPECT_EQ(uids(store_->records().runs(filter)),
            std::vector<std::string>(wanted.begin() + 2, wanted.begin() + 5));
}

TEST_F(RecordsTest, TextsInFiltersAreNeverSql) {
  open();
  ASSERT_TRUE(write([](Records& tx) { return tx.put_run(make_run("a1", "it's 100%", 1, 1)); }));
  RunFilter filter{.project = "p"};
  filter.name = "~100%";
  EXPECT_EQ(store_->records().runs(filter)->size(), 1U);
  filter.name = "~1_0";
  EXPECT_TRUE(store_->records().runs(filter)->empty());
  filter.name = "' OR 1=1 --";
  EXPECT_TRUE(store_->records().runs(filter)->empty());
  filter.name.clear();
  filter.labels = {"~ow=~A"};
  EXPECT_EQ(store_->records().runs(filter)->size(), 1U);
}

TEST_F(RecordsTest, RunsKeepLabelsIterationsAndTheirVersion) {
  open();
  ASSERT_TRUE(write([](Records& tx) -> Result<void> {
    METIER_CHECK(tx.put_run(make_run("abcd1", "x", 1, 1)));
    auto child = make_run("abcd1", "x", 2, 2);
    child.iteration = 1;
    METIER_CHECK(tx.put_run(child));
    return tx.put_run(make_run("abcd1", "x", 1, 3));
  }));
  const auto row = store_->records().run("p", "abcd1", 0);
  ASSERT_TRUE(row && *row);
  EXPECT_EQ((*row)->version, 2U);
  EXPECT_EQ((*row)->labels.at("owner"), "a");
  EXPECT_EQ(store_->records().uids_with_prefix("p", "abc")->size(), 1U);
  ASSERT_TRUE(write([](Records& tx) { return tx.delete_run("p", "abcd1"); }));
  EXPECT_FALSE(*store_->records().run("p", "abcd1", 1));
}

TEST_F(RecordsTest, ATagMovesToTheNewestProducerAndIterationsShareIt) {
  open();
  ArtifactRow row{.project = "p",
                  .key = "k",
                  .uid = "u",
                  .tree = "t1",
                  .kind = "model",
                  .name = "k",
                  .best_iteration = true,
                  .body = "{}"};
  auto put = [&](ArtifactRow r) {
    return write([&](Records& tx) -> Result<void> {
      METIER_CHECK(tx.put_artifact(r));
      return tx.tag_artifact(r, "latest");
    });
  };
  ASSERT_TRUE(put(row));
  row.iteration = 1;
  row.uid = "u1";
  ASSERT_TRUE(put(row));
  EXPECT_EQ(store_->records().artifacts({.project = "p", .tag = "latest"})->size(), 2U);
  row.tree = "t2";
  row.iteration = 0;
  row.uid = "u2";
  ASSERT_TRUE(put(row));
  const auto latest = store_->records().artifacts({.project = "p", .tag = "latest"});
  ASSERT_EQ(latest->size(), 1U);
  EXPECT_EQ(latest->front().tree, "t2");
  EXPECT_EQ(store_->records().artifacts({.project = "p"})->size(), 3U);
  EXPECT_EQ(*store_->records().artifact_tags("p", "model"), std::vector<std::string>{"latest"});
  ASSERT_TRUE(write([&](Records& tx) { return tx.mark_best("p", "k", "t1", 1); }));
  EXPECT_EQ(
      store_->records().artifacts({.project = "p", .tree = "t1", .best_iteration = true})->size(),
      1U);
}

TEST_F(RecordsTest, FunctionsAreFoundByTagAndHash) {
  open();
  FunctionRow row{.project = "p",
                  .name = "f",
                  .uid = "h1",
                  .kind = "job",
                  .body = R"({"metadata":{"labels":{"a":"b"}}})"};
  ASSERT_TRUE(write([&](Records& tx) { return tx.put_function(row, "latest"); }));
  row.uid = "h2";
  ASSERT_TRUE(write([&](Records& tx) { return tx.put_function(row, "latest"); }));
  EXPECT_EQ((*store_->records().function("p", "f", "", ""))->uid, "h2");
  EXPECT_EQ((*store_->records().function("p", "f", "", "h1"))->uid, "h1");
  EXPECT_FALSE(*store_->records().function("p", "f", "v9", "h1"));
  EXPECT_EQ(store_->records().functions({.project = "p", .labels = {"a=b"}})->size(), 2U);
  EXPECT_TRUE(store_->records().functions({.project = "p", .labels = {"a=c"}})->empty());
  EXPECT_EQ(store_->records().functions({.project = "p", .tag = "*"})->size(), 1U);
}

TEST_F(RecordsTest, ProjectsGoWithEverythingInThem) {
  open();
  ASSERT_TRUE(write([&](Records& tx) -> Result<void> {
    METIER_CHECK(tx.put_project("p", "{}"));
    METIER_CHECK(tx.put_run(make_run("a1", "x", 1, 1)));
    METIER_CHECK(tx.put_secret("p", "s", "k", "v"));
    return tx.put_setting("page", "t", "x", Time{Duration(1)});
  }));
  EXPECT_FALSE(*store_->records().project_is_empty("p"));
  EXPECT_FALSE(*store_->records().setting("page", "t"));  // its time is over
  ASSERT_TRUE(write([](Records& tx) { return tx.delete_project("p"); }));
  EXPECT_TRUE(*store_->records().project_is_empty("p"));
  EXPECT_TRUE(store_->records().secret_keys("p", "s")->empty());
}

}  // namespace
}  // namespace metier
