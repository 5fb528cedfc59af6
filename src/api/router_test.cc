#include "api/router.h"

#include <gtest/gtest.h>

namespace metier::api {
namespace {

class RouterTest : public testing::Test {
 protected:
  net::Response ask(Router& router, std::string method, std::string path, net::Headers headers = {},
                    bool unix_socket = true) {
    net::Request request;
    request.method = std::move(method);
    request.path = std::move(path);
    request.headers = std::move(headers);
    request.peer.unix_socket = unix_socket;
    request.peer.uid = 1000;
    std::optional<net::Response> out;
    asio::io_context io;
    asio::co_spawn(
        io,
        [](Router& r, net::Request q, std::optional<net::Response>& o) -> Async<void> {
          o = co_await r.handle(std::move(q));
        }(router, std::move(request), out),
        [](std::exception_ptr e) {
          if (e) { std::rethrow_exception(e); }
        });
    io.run();
    return std::move(*out);
  }
  static RouteHandler echo(std::string what) {
    return [what](Call& call) -> Async<net::Response> {
      std::string text = what;
      for (const auto& [name, value] : call.path) { text += " " + name + "=" + value; }
      co_return ok_text(text);
    };
  }
};

TEST_F(RouterTest, MatchesVersionsTailsAndLiteralsFirst) {
  Router router({}, Logger());
  router.add(Api::v1, "GET", "/projects/{p}/runs/{uid}", "", echo("run"));
  router.add(Api::v1, "GET", "/projects/{p}/runs/latest", "", echo("latest"));
  router.add(Api::v2, "GET", "/projects/{p}/artifacts/{key*}", "", echo("artifact"));
  router.add(Api::root, "GET", "/healthz", "", echo("root"));
  EXPECT_EQ(ask(router, "GET", "/api/v1/projects/a/runs/b").body, "run p=a uid=b");
  EXPECT_EQ(ask(router, "GET", "/api/projects/a/runs/b/").body, "run p=a uid=b");
  EXPECT_EQ(ask(router, "GET", "/api/v1/projects/a/runs/latest").body, "latest p=a");
  EXPECT_EQ(ask(router, "GET", "/api/v2/projects/a/artifacts/x/y").body, "artifact key=x/y p=a");
  EXPECT_EQ(ask(router, "GET", "/healthz").body, "root");
  EXPECT_EQ(ask(router, "GET", "/api/v2/projects/a/runs/b").status, 404);
  const auto wrong = ask(router, "DELETE", "/api/v1/projects/a/runs/b");
  EXPECT_EQ(wrong.status, 405);
  EXPECT_EQ(net::header(wrong.headers, "allow"), "GET");
}

TEST_F(RouterTest, TcpNeedsATokenAKnownHostAndNoForeignOrigin) {
  Router router({.token = "secret", .hosts = {"box.example"}}, Logger());
  router.add(Api::v1, "GET", "/x", "", echo("x"));
  router.add(Api::v1, "GET", "/client-spec", "", echo("spec"));
  const auto with = [&](net::Headers headers, std::string path = "/api/v1/x") {
    return ask(router, "GET", std::move(path), std::move(headers), false).status;
  };
  EXPECT_EQ(with({{"host", "127.0.0.1:80"}, {"authorization", "Bearer secret"}}), 200);
  EXPECT_EQ(with({{"host", "box.example"}, {"authorization", "Bearer secret"}}), 200);
  EXPECT_EQ(with({{"host", "127.0.0.1"}, {"authorization", "Bearer wrong!"}}), 401);
  EXPECT_EQ(with({{"host", "127.0.0.1"}}), 401);
  EXPECT_EQ(with({{"host", "127.0.0.1"}}, "/api/v1/client-spec"), 200);
  EXPECT_EQ(with({{"host", "evil.example"}, {"authorization", "Bearer secret"}}), 403);
  EXPECT_EQ(with({{"host", "127.0.0.1.evil.example"}, {"authorization", "Bearer secret"}}), 403);
  EXPECT_EQ(with({{"host", "localhost"},
                  {"origin", "https://evil.example"},
                  {"authorization", "Bearer secret"}}),
            403);
  EXPECT_EQ(with({{"host", "localhost"},
                  {"sec-fetch-site", "cross-site"},
                  {"authorization", "Bearer secret"}}),
            403);
}

TEST_F(RouterTest, ASocketServesItsOwnUserAndRoot) {
  Router router({.server_uid = 1001}, Logger());
  router.add(Api::v1, "GET", "/x", "", echo("x"));
  EXPECT_EQ(ask(router, "GET", "/api/v1/x").status, 403);
}

TEST_F(RouterTest, ErrorsNameReasonFieldFix) {
  const auto response =
      error_response(invalid("spec.x", "'2GB' is not a quantity", "use 2G").coded("Bad"));
  EXPECT_EQ(response.status, 400);
  EXPECT_EQ(
      response.body,
      R"({"detail":{"reason":"'2GB' is not a quantity","kind":"invalid","field":"spec.x","fix":"use 2G","code":"Bad"}})");
  EXPECT_EQ(
      error_response(Error{.kind = ErrorKind::unavailable, .message = "full", .code = "NoSpace"})
          .status,
      507);
}

TEST_F(RouterTest, ParametersOfEveryMlrunForm) {
  Call call;
  call.request.query = {{"a", "True"},  {"b", "yes"}, {"c", "off"},
                        {"d", "maybe"}, {"n", "7x"},  {"t", "2026-11-25T10:00:00 00:00"}};
  EXPECT_TRUE(*call.flag("a", false));
  EXPECT_TRUE(*call.flag("b", false));
  EXPECT_FALSE(*call.flag("c", true));
  EXPECT_EQ(call.flag("d", true).error().field, "d");
  EXPECT_TRUE(*call.flag("absent", true));
  EXPECT_EQ(call.number("n", 0, 0, 9).error().field, "n");
  EXPECT_TRUE(call.time("t")->has_value());
  EXPECT_FALSE(call.time("a"));
}

TEST_F(RouterTest, TheOpenApiDocumentListsEveryRoute) {
  Router router({}, Logger());
  router.add(Api::v2, "PUT", "/projects/{p}/artifacts/{key*}", "store", echo(""));
  EXPECT_NE(dump_json(router.openapi()).find("/api/v2/projects/{p}/artifacts/{key}"),
            std::string::npos);
}

}  // namespace
}  // namespace metier::api
