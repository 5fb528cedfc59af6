// What must not be possible over the record routes.
#include <gtest/gtest.h>

#include "api/testing/routes_fixture.h"
#include "base/digest.h"

namespace metier::api {
namespace {

using EdgesTest = RoutesTest;

TEST_F(EdgesTest, ARunReachesItsOwnProjectOnly) {
  ask("POST", "/api/v1/projects", R"({"metadata":{"name":"q"}})");
  ask("POST", "/api/v1/projects/p/runs/u1",
      R"({"metadata":{"name":"n"},"status":{"state":"running"}})");
  ask("POST", "/api/v1/projects/q/runs/u2",
      R"({"metadata":{"name":"n"},"status":{"state":"running"}})");
  token_ = "token-of-p";
  EXPECT_EQ(ask("GET", "/api/v1/projects/p").status, 200);
  EXPECT_EQ(ask("PATCH", "/api/v1/projects/p/runs/u1", R"({"status.results.a":1})").status, 200);
  EXPECT_EQ(ask("GET", "/api/v1/projects?format=name_only").body, R"({"projects":["p"]})");
  EXPECT_EQ(ask("GET", "/api/v1/project-summaries").body.find("\"q\""), std::string::npos);
  for (const auto* method : {"GET", "PUT", "PATCH", "DELETE"}) {
    EXPECT_EQ(ask(method, "/api/v1/projects/q", "{}").status, 404) << method;
  }
  for (const auto* path : {"/api/v1/projects/q/runs/u2", "/api/v1/projects/q/runs",
                           "/api/v1/projects/*/runs", "/api/v1/project-summaries/q",
                           "/api/v1/projects/q/functions", "/api/v2/projects/q/artifacts",
                           "/api/v1/projects/q/secret-keys", "/api/v2/projects/*/artifacts"}) {
    EXPECT_EQ(ask("GET", path).status, 404) << path;
  }
  EXPECT_EQ(
      ask("DELETE", "/api/v2/projects/p", "", {{"x-mlrun-deletion-strategy", "cascade"}}).status,
      403);
  EXPECT_EQ(ask("POST", "/api/v1/projects", R"({"metadata":{"name":"r"}})").status, 403);
  EXPECT_EQ(ask("POST", "/api/v1/authorization/verifications",
                R"({"resource":"/projects/p/runs","action":"read"})")
                .status,
            200);
  EXPECT_EQ(ask("POST", "/api/v1/authorization/verifications",
                R"({"resource":"/projects/pq","action":"read"})")
                .status,
            403);
  token_ = "made-up";
  EXPECT_EQ(ask("GET", "/api/v1/projects/p").status, 401);
  token_.clear();
  EXPECT_EQ(ask("GET", "/api/v1/projects/q").status, 200);
}

TEST_F(EdgesTest, UidsArePlainNames) {
  const std::string run = R"({"metadata":{"name":"n"}})";
  for (const auto& uid :
       {std::string(".."), std::string("."), std::string("a b"), std::string("a\0b", 3),
        std::string("a\nb"), std::string("-a"), std::string(129, 'a'), std::string("\xc3\xa4")}) {
    EXPECT_EQ(ask("POST", "/api/v1/projects/p/runs/" + uid, run).status, 400) << uid;
    EXPECT_EQ(ask("DELETE", "/api/v1/projects/p/runs/" + uid).status, 400) << uid;
  }
  EXPECT_EQ(ask("POST", "/api/v1/projects/p/runs/" + std::string(128, 'a'), run).status, 200);
}

TEST_F(EdgesTest, ForgedPageTokensAreNotFound) {
  for (int i = 0; i < 3; ++i) {
    ask("POST", "/api/v1/projects/p/runs/u" + std::to_string(i),
        R"({"metadata":{"name":"n)" + std::to_string(i) + R"("},"status":{"state":"completed"}})");
  }
  const auto first = json(ask("GET", "/api/v1/projects/p/runs?state=completed&page=1&page-size=2"));
  const std::string token(string_at(first, "pagination.page-token"));
  ASSERT_FALSE(token.empty());
  EXPECT_EQ(ask("GET", "/api/v1/projects/p/runs?page-token=" + token).status, 200);
  EXPECT_EQ(ask("GET", "/api/v1/projects/p/functions?page-token=" + token).status, 404)
      << "a token belongs to its list";
  for (std::size_t i = 0; i < token.size(); ++i) {
    auto forged = token;
    forged[i] = forged[i] == 'A' ? 'B' : 'A';
    const auto status = ask("GET", "/api/v1/projects/p/runs?page-token=" + forged).status;
    EXPECT_TRUE(status == 200 || status == 400 || status == 404) << forged;
  }
  for (const auto* text :
       {R"({"page":0,"size":2,"path":"/api/v1/projects/p/runs","query":[]})",
        R"({"page":1,"size":99999,"path":"/api/v1/projects/p/runs","query":[]})",
        R"({"page":1,"size":2,"path":"/api/v1/projects/p/runs","query":[["a"]]})",
        R"({"page":1,"size":2,"path":"/api/v1/projects/p/runs"})", "[]", "1"}) {
    EXPECT_EQ(ask("GET", "/api/v1/projects/p/runs?page-token=q" + base64_encode(text)).status, 404)
        << text;
  }
}

TEST_F(EdgesTest, AFilterTooLongForATokenIsKept) {
  std::string query = "page=1&page-size=1";
  for (int i = 0; i < 200; ++i) { query += "&uid=" + std::string(30, 'a') + std::to_string(i); }
  for (const auto* uid : {"0", "1"}) {
    ask("POST", "/api/v1/projects/p/runs/" + std::string(30, 'a') + uid,
        R"({"metadata":{"name":"n"},"status":{"state":"completed"}})");
  }
  const auto first = json(ask("GET", "/api/v1/projects/p/runs?" + query));
  const std::string token(string_at(first, "pagination.page-token"));
  ASSERT_FALSE(token.empty());
  EXPECT_LT(token.size(), 100U);
  EXPECT_EQ(find_path(json(ask("GET", "/api/v1/projects/p/runs?page-token=" + token)), "runs")
                ->as_array()
                .size(),
            1U);
}

TEST_F(EdgesTest, WhatNotificationsNeedIsNotInTheRun) {
  const std::string body =
      R"({"metadata":{"name":"n"},"spec":{"notifications":[{"kind":"slack","name":"s","secret_params":{"webhook":"https://canary.example/hook"}}]}})";
  EXPECT_EQ(ask("POST", "/api/v1/projects/p/runs/u1", body).status, 200);
  const auto read = ask("GET", "/api/v1/projects/p/runs/u1").body;
  EXPECT_EQ(read.find("canary"), std::string::npos);
  EXPECT_NE(read.find("mlrun.notifications."), std::string::npos);
  EXPECT_EQ(ask("GET", "/api/v1/projects/p/secret-keys").body,
            R"({"provider":"kubernetes","secret_keys":[]})");
  EXPECT_EQ(ask("PATCH", "/api/v1/projects/p/runs/u1",
                R"({"spec.notifications":[{"name":"t","secret_params":{"token":"canary"}}]})")
                .status,
            200);
  EXPECT_EQ(ask("GET", "/api/v1/projects/p/runs/u1").body.find("canary"), std::string::npos);
  // What the server gave out comes back unchanged.
  const auto stored = dump_json(*find_path(json(ask("GET", "/api/v1/projects/p/runs/u1")), "data"));
  EXPECT_EQ(ask("POST", "/api/v1/projects/p/runs/u1", stored).status, 200);
  EXPECT_EQ(store_->records().secret_keys("p", "mlrun-project-secrets-p")->size(), 2U);
}

TEST_F(EdgesTest, ATerminalStateStaysAndTheRestIsKept) {
  ask("POST", "/api/v1/projects/p/runs/u1",
      R"({"metadata":{"name":"n"},"status":{"state":"error"}})");
  EXPECT_EQ(ask("PATCH", "/api/v1/projects/p/runs/u1",
                R"({"status.state":"running","status.results.late":1})")
                .status,
            200);
  const auto run = json(ask("GET", "/api/v1/projects/p/runs/u1"));
  EXPECT_EQ(string_at(run, "data.status.state"), "error");
  EXPECT_EQ(find_path(run, "data.status.results.late")->as_int64(), 1);
}

}  // namespace
}  // namespace metier::api
