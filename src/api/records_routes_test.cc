// The recorded calls of MLRun's SDK, through the route table without a socket.
#include <gtest/gtest.h>

#include "api/testing/routes_fixture.h"

namespace metier::api {
namespace {

TEST_F(RoutesTest, ClientSpecEchoesTheVersionAndKeepsRunsRemote) {
  const auto spec =
      json(ask("GET", "/api/v1/client-spec", "", {{"x-mlrun-client-version", "1.12.1"}}));
  EXPECT_EQ(string_at(spec, "version"), "1.12.1");
  EXPECT_FALSE(string_at(spec, "namespace").empty());
  EXPECT_FALSE(string_at(spec, "kfp_url").empty());
  EXPECT_TRUE(find_path(spec, "force_run_local")->is_null());
  EXPECT_EQ(string_at(spec, "valid_function_priority_class_names"),
            "igz-workload-low,igz-workload-medium,igz-workload-high");
}

TEST_F(RoutesTest, GetOrCreateProjectOfBothSdks) {
  EXPECT_EQ(ask("GET", "/api/v1/projects/new").status, 404);
  EXPECT_EQ(ask("POST", "/api/v1/projects?wait-for-completion=false",
                R"({"metadata":{"name":"new"},"spec":{}})")
                .status,
            201);
  EXPECT_EQ(ask("POST", "/api/v1/projects", R"({"metadata":{"name":"new"}})").status, 409);
  EXPECT_EQ(
      ask("PUT", "/api/v1/projects/newer", R"({"metadata":{"name":"newer"},"spec":{"params":{}}})")
          .status,
      200);
  EXPECT_EQ(string_at(json(ask("GET", "/api/v1/projects/newer")), "status.state"), "online");
  EXPECT_EQ(ask("GET", "/api/v1/projects?format=name_only").body,
            R"({"projects":["new","newer","p"]})");
  EXPECT_EQ(ask("DELETE", "/api/v2/projects/newer").status, 202);
  EXPECT_EQ(ask("DELETE", "/api/v2/projects/newer").status, 204);
}

TEST_F(RoutesTest, LocalRunOfTheSdk) {
  EXPECT_EQ(ask("POST", "/api/v1/projects/p/functions/f?tag=&versioned=True",
                R"({"kind":"job","metadata":{"name":"f"},"spec":{}})")
                .status,
            200);
  EXPECT_EQ(ask("POST", "/api/v1/projects/p/runs/u1?iter=0",
                R"({"metadata":{"name":"n","uid":"u1"},"status":{"state":"running"}})")
                .status,
            200);
  EXPECT_EQ(
      ask("PUT", "/api/v2/projects/p/artifacts/n_note?tree=u1",
          R"({"kind":"artifact","metadata":{"key":"note"},"spec":{"target_path":"/x","db_key":"n_note"}})")
          .status,
      200);
  EXPECT_EQ(
      ask("PATCH", "/api/v1/projects/p/runs/u1?iter=0",
          R"({"status.results":{"a":NaN},"status.state":"completed","status.artifact_uris":{"note":"store://artifacts/p/n_note#0@u1"}})")
          .status,
      200);
  const auto full = json(ask("GET", "/api/v1/projects/p/runs/u1?iter=0&format=full"));
  EXPECT_EQ(string_at(full, "data.status.state"), "completed");
  EXPECT_EQ(find_path(full, "data.status.artifacts")->as_array().size(), 1U);
  EXPECT_EQ(ask("GET", "/api/v2/projects/p/artifacts/n_note?format=full&tag=latest&tree=u1&iter=0")
                .status,
            200);
  EXPECT_EQ(ask("GET", "/api/v1/projects/p/runs/nothing").status, 404);
  EXPECT_EQ(ask("PATCH", "/api/v1/projects/p/runs/nothing", "{}").status, 404);
}

TEST_F(RoutesTest, ListsPageByTokenAlone) {
  for (int i = 0; i < 5; ++i) {
    ask("POST", "/api/v1/projects/p/runs/u" + std::to_string(i),
        R"({"metadata":{"name":"n)" + std::to_string(i) + R"("},"status":{"state":"completed"}})");
  }
  auto first = json(ask("GET", "/api/v1/projects/p/runs?state=completed&page=1&page-size=2"));
  ASSERT_NE(find_path(first, "runs"), nullptr) << dump_json(first);
  EXPECT_EQ(find_path(first, "runs")->as_array().size(), 2U);
  auto token = std::string(string_at(first, "pagination.page-token"));
  std::size_t seen = 2;
  while (!token.empty()) {
    const auto next = json(ask("GET", "/api/v1/projects/p/runs?page-token=" + token));
    seen += find_path(next, "runs")->as_array().size();
    token = string_at(next, "pagination.page-token");
  }
  EXPECT_EQ(seen, 5U);
  EXPECT_EQ(ask("GET", "/api/v1/projects/p/runs?page-token=stale").status, 404);
  EXPECT_EQ(ask("GET", "/api/v1/projects/p/runs?page-size=-1").status, 400);
  EXPECT_TRUE(find_path(json(ask("GET", "/api/v1/projects/p/runs?name=x")), "pagination.page-token")
                  ->is_null());
}

TEST_F(RoutesTest, WrongParametersAreNamed) {
  for (const auto* query : {"state=nonsense", "last=abc", "start_time_from=2024-13-45",
                            "sort=perhaps", "partition-by=project_and_name"}) {
    const auto response = ask("GET", std::string("/api/v1/projects/p/runs?") + query);
    EXPECT_EQ(response.status, 400) << query;
    EXPECT_FALSE(string_at(json(response), "detail.field").empty()) << query;
  }
  EXPECT_EQ(ask("POST", "/api/v1/projects/p/runs/u", "{").status, 400);
  EXPECT_EQ(ask("POST", "/api/v1/projects/p/runs/u", "[]").status, 400);
}

TEST_F(RoutesTest, RunningRunsAreNotDeleted) {
  ask("POST", "/api/v1/projects/p/runs/u1",
      R"({"metadata":{"name":"n"},"status":{"state":"running"}})");
  EXPECT_EQ(ask("DELETE", "/api/v1/projects/p/runs/u1").status, 400);
  ask("PATCH", "/api/v1/projects/p/runs/u1", R"({"status.state":"error"})");
  EXPECT_EQ(ask("DELETE", "/api/v1/projects/p/runs/u1").status, 200);
}

TEST_F(RoutesTest, SecretsAreWriteOnly) {
  EXPECT_EQ(ask("POST", "/api/v1/projects/p/secrets",
                R"({"provider":"kubernetes","secrets":{"B":"1","A":"2"}})")
                .status,
            201);
  EXPECT_EQ(ask("GET", "/api/v1/projects/p/secret-keys?provider=kubernetes").body,
            R"({"provider":"kubernetes","secret_keys":["B","A"]})");
  EXPECT_EQ(ask("GET", "/api/v1/projects/p/secrets").status, 403);
  EXPECT_EQ(ask("POST", "/api/v1/projects/p/secrets", R"({"secrets":{"mlrun.x":"1"}})").status,
            403);
  EXPECT_EQ(ask("POST", "/api/v1/projects/none/secrets", R"({"secrets":{"A":"1"}})").status, 404);
  EXPECT_EQ(ask("POST", "/api/v1/projects/p/secrets", R"({"secrets":{"a/b":"1"}})").status, 400);
  EXPECT_EQ(ask("DELETE", "/api/v1/projects/p/secrets?secret=A").status, 204);
}

TEST_F(RoutesTest, TagsReplaceAppendAndRemove) {
  for (const auto* tree : {"t1", "t2"}) {
    ask("PUT", std::string("/api/v2/projects/p/artifacts/k?tree=") + tree,
        R"({"kind":"artifact","metadata":{"key":"k"},"spec":{"target_path":"/x"}})");
  }
  EXPECT_EQ(ask("POST", "/api/v1/projects/p/tags/prod",
                R"({"kind":"artifact","identifiers":[{"key":"k","producer_id":"t1"}]})")
                .status,
            200);
  EXPECT_EQ(string_at(json(ask("GET", "/api/v2/projects/p/artifacts/k?tag=prod")), "metadata.tree"),
            "t1");
  EXPECT_EQ(ask("DELETE", "/api/v1/projects/p/tags/prod",
                R"({"kind":"artifact","identifiers":[{"key":"k"}]})")
                .status,
            204);
  EXPECT_EQ(ask("GET", "/api/v2/projects/p/artifacts/k?tag=prod").status, 404);
  EXPECT_EQ(ask("POST", "/api/v1/projects/p/tags/prod",
                R"({"kind":"artifact","identifiers":[{"key":"none"}]})")
                .status,
            404);
}

TEST_F(RoutesTest, WhatIsMissingSaysSo) {
  const auto response = ask("GET", "/api/v1/projects/p/schedules");
  EXPECT_EQ(response.status, 501);
  EXPECT_NE(response.body.find("schedules"), std::string::npos);
  for (const char* path :
       {"/api/v1/hub/sources", "/api/v1/projects/p/alerts", "/api/v1/projects/p/pipelines",
        "/api/v1/pipelines", "/api/v1/projects/p/feature-sets",
        "/api/v1/projects/p/feature-vectors", "/api/v1/projects/p/datastore-profiles",
        "/api/v1/projects/p/model-endpoints"}) {
    const auto missing = ask("GET", path);
    EXPECT_EQ(missing.status, 501) << path;
    EXPECT_NE(missing.body.find("not built yet"), std::string::npos) << missing.body;
  }
}

}  // namespace
}  // namespace metier::api
