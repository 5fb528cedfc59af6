#include "engine/records/records.h"

#include <gtest/gtest.h>

#include "store/testing/store_fixture.h"

namespace metier::records {
namespace {

const Time kNow{std::chrono::seconds(1'764'000'000)};

class RulesTest : public StoreFixture {
 protected:
  void SetUp() override {
    StoreFixture::SetUp();
    open();
    ASSERT_TRUE(write([](Records& tx) {
      return create_project(tx, json(R"({"metadata":{"name":"p"}})"), kNow);
    }));
  }
  static JsonObject json(std::string_view text) { return parse_json(text)->get_object(); }
  Result<RunWritten> post(std::string_view body, bool held = false, std::string uid = "u1") {
    return write([&](Records& tx) {
      return store_run(tx, {.project = "p", .uid = uid, .held = held}, json(body), kNow);
    });
  }
  Result<RunWritten> patch(std::string_view body, bool held = false) {
    return write([&](Records& tx) {
      return patch_run(tx, {.project = "p", .uid = "u1", .held = held}, json(body), kNow);
    });
  }
  Json get(bool full = false) { return *read_run(store_->records(), "p", "u1", 0, full); }
  Result<Json> put(std::string key, std::string_view body, std::string tag = "",
                   std::string tree = "") {
    return write([&](Records& tx) {
      return store_artifact(tx, {.project = "p", .key = key, .tag = tag, .tree = tree}, json(body),
                            kNow);
    });
  }
};

TEST_F(RulesTest, ProjectsAreNeverMadeImplicitly) {
  EXPECT_EQ(read_project(store_->records(), "q").error().kind, ErrorKind::not_found);
  auto stored = write([](Records& tx) {
    return store_run(tx, {.project = "q", .uid = "u"}, json(R"({"metadata":{"name":"n"}})"), kNow);
  });
  EXPECT_EQ(stored.error().kind, ErrorKind::not_found);
  for (const auto* bad : {"Upper", "-a", "a_b", ""}) {
    auto made = write([&](Records& tx) { return put_project(tx, bad, {}, kNow); });
    EXPECT_FALSE(made) << bad;
  }
  EXPECT_EQ(write([](Records& tx) {
              return create_project(tx, json(R"({"metadata":{"name":"p"}})"), kNow);
            })
                .error()
                .kind,
            ErrorKind::conflict);
}

TEST_F(RulesTest, ProjectPatchMergesDeepAndAdds) {
  ASSERT_TRUE(write([](Records& tx) {
    return patch_project(tx, "p", json(R"({"spec":{"params":{"a":1},"goals":["x"]}})"), false,
                         kNow);
  }));
  auto out = write([](Records& tx) {
    return patch_project(tx, "p", json(R"({"spec":{"params":{"b":2},"goals":["y"]}})"), true, kNow);
  });
  ASSERT_TRUE(out);
  EXPECT_EQ(dump_json(*find_path(*out, "spec.params")), R"({"a":1,"b":2})");
  EXPECT_EQ(dump_json(*find_path(*out, "spec.goals")), R"(["x","y"])");
}

TEST_F(RulesTest, PostFillsStateAndTimesAndKeepsUnknownFields) {
  ASSERT_TRUE(post(R"({"metadata":{"name":"n","x":1},"spec":{"unknown":{"a":[1]}}})"));
  const auto run = get();
  EXPECT_EQ(string_at(run, "status.state"), "created");
  EXPECT_EQ(string_at(run, "status.start_time"), to_iso(kNow));
  EXPECT_EQ(dump_json(*find_path(run, "spec.unknown")), R"({"a":[1]})");
  EXPECT_EQ(post(R"({"metadata":{"name":"other"}})").error().field, "metadata.name");
  EXPECT_EQ(post(R"({"metadata":{}})").error().field, "metadata.name");
}

TEST_F(RulesTest, AStateAfterATerminalOneIsDroppedAndTheRestKept) {
  ASSERT_TRUE(post(R"({"metadata":{"name":"n"},"status":{"state":"completed"}})"));
  auto done = patch(R"({"status.state":"running","status.results":{"a":1}})");
  ASSERT_TRUE(done);
  EXPECT_EQ(done->state, "completed");
  EXPECT_EQ(dump_json(*find_path(get(), "status.results")), R"({"a":1})");
  ASSERT_TRUE(post(R"({"metadata":{"name":"n"},"status":{"state":"running"}})"));
  EXPECT_EQ(string_at(get(), "status.state"), "completed");
}

TEST_F(RulesTest, ClientsDoNotDecideTheStateOfARunThatTheEngineHolds) {
  ASSERT_TRUE(post(R"({"metadata":{"name":"n"},"status":{"state":"running"}})"));
  ASSERT_TRUE(patch(R"({"status.state":"completed","status.commit":"abc"})", true));
  EXPECT_EQ(string_at(get(), "status.state"), "running");
  EXPECT_EQ(string_at(get(), "status.commit"), "abc");
}

TEST_F(RulesTest, PatchUsesDottedPathsWithLiteralMode) {
  ASSERT_TRUE(post(R"({"metadata":{"name":"n"}})"));
  ASSERT_TRUE(patch(R"({"status.results.\\a.b\\":7,"metadata.labels":{"k":"v"}})"));
  EXPECT_EQ(dump_json(*find_path(get(), "status.results")), R"({"a.b":7})");
  EXPECT_EQ((*store_->records().run("p", "u1", 0))->labels.at("k"), "v");
  EXPECT_EQ(patch(R"({"status":{}})").error().kind, ErrorKind::invalid);
}

TEST_F(RulesTest, ArtifactsOfARunBecomeUrisAndComeBackWithFull) {
  ASSERT_TRUE(post(R"({"metadata":{"name":"n"}})"));
  ASSERT_TRUE(put(
      "n_model",
      R"({"kind":"model","metadata":{"key":"model","tree":"u1"},"spec":{"target_path":"/x","db_key":"n_model"}})"));
  ASSERT_TRUE(patch(
      R"({"status.artifacts":[{"kind":"model","metadata":{"key":"model","project":"p","tree":"u1","iter":0},"spec":{"db_key":"n_model"}}]})"));
  EXPECT_EQ(string_at(get(), "status.artifact_uris.model"), "store://models/p/n_model#0@u1");
  EXPECT_EQ(find_path(get(), "status.artifacts"), nullptr);
  const auto full = get(true);
  ASSERT_EQ(find_path(full, "status.artifacts")->as_array().size(), 1U);
  EXPECT_EQ(string_at(find_path(full, "status.artifacts")->as_array()[0], "metadata.key"), "model");
}

TEST_F(RulesTest, ArtifactsAreCheckedByField) {
  EXPECT_EQ(put("k", R"({"kind":"artifact","metadata":{"key":"k"}})").error().field, "spec");
  EXPECT_EQ(put("k", R"({"kind":"artifact","metadata":{"key":"../k"},"spec":{}})").error().field,
            "metadata.key");
  EXPECT_EQ(put("../k", R"({"kind":"artifact","metadata":{"key":"k"},"spec":{}})").error().field,
            "key");
  EXPECT_EQ(put("k", R"({"kind":1,"metadata":{"key":"k"},"spec":{}})").error().field, "kind");
  EXPECT_EQ(
      put("k", R"({"kind":"artifact","metadata":{"key":"k"},"spec":{"size":"big"}})").error().field,
      "spec.size");
}

TEST_F(RulesTest, LatestMovesToTheNewestProducer) {
  const auto* body = R"({"kind":"artifact","metadata":{"key":"k"},"spec":{"target_path":"/x"}})";
  ASSERT_TRUE(put("k", body, "", "t1"));
  ASSERT_TRUE(put("k", body, "v1", "t2"));
  const auto latest =
      read_artifact(store_->records(), {.project = "p", .key = "k", .tag = "latest"});
  ASSERT_TRUE(latest);
  EXPECT_EQ(string_at(*latest, "metadata.tree"), "t2");
  // The SDK always sends a tag: with the tree of an old run it must still be found.
  EXPECT_TRUE(read_artifact(store_->records(),
                            {.project = "p", .key = "k", .tag = "latest", .tree = "t1"}));
  EXPECT_EQ(
      read_artifact(store_->records(), {.project = "p", .key = "k", .tag = "v9"}).error().kind,
      ErrorKind::not_found);
}

TEST_F(RulesTest, ALinkMarksTheBestIteration) {
  auto put_iteration = [&](std::int64_t iteration) {
    return write([&](Records& tx) {
      return store_artifact(
          tx, {.project = "p", .key = "n_m", .tree = "u1", .iteration = iteration},
          json(R"({"kind":"model","metadata":{"key":"m"},"spec":{"target_path":"/x"}})"), kNow);
    });
  };
  ASSERT_TRUE(put_iteration(1));
  ASSERT_TRUE(put_iteration(2));
  auto link = put(
      "n_m",
      R"({"kind":"link","metadata":{"key":"m","tree":"u1"},"spec":{"link_iteration":2,"link_tree":"u1"}})",
      "", "u1");
  ASSERT_TRUE(link) << link.error().text();
  const auto best = read_artifact(store_->records(),
                                  {.project = "p", .key = "n_m", .tree = "u1", .iteration = 0});
  ASSERT_TRUE(best);
  EXPECT_EQ(find_path(*best, "metadata.iter")->as_int64(), 2);
  EXPECT_FALSE(put("n_m", R"({"kind":"link","metadata":{"key":"m"},"spec":{"link_iteration":9}})",
                   "", "u1"));
}

TEST_F(RulesTest, FunctionsAreVersionedByHashAndNormalised) {
  auto store = [&](std::string_view body, bool versioned, std::string name = "my_fn") {
    return write([&](Records& tx) {
      return store_function(tx, "p", name, "", versioned, Json(json(body)), kNow);
    });
  };
  auto first = store(R"({"kind":"job","metadata":{"name":"my-fn"},"spec":{"image":"a"}})", true);
  ASSERT_TRUE(first) << first.error().text();
  auto second = store(R"({"kind":"job","metadata":{"name":"my_fn"},"spec":{"image":"b"}})", true);
  ASSERT_TRUE(second);
  EXPECT_NE(*first, *second);
  EXPECT_EQ(string_at(*read_function(store_->records(), "p", "my_fn", "", ""), "spec.image"), "b");
  EXPECT_EQ(string_at(*read_function(store_->records(), "p", "my-fn", "", *first), "spec.image"),
            "a");
  EXPECT_FALSE(store(R"({"kind":"job","metadata":{"name":"other"}})", true));
  ASSERT_TRUE(store(R"({"kind":"job","metadata":{"name":"my-fn"},"spec":{"image":"c"}})", false));
  EXPECT_EQ(string_at(*read_function(store_->records(), "p", "my-fn", "latest", ""), "spec.image"),
            "c");
}

}  // namespace
}  // namespace metier::records
