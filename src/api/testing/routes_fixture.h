// The routes over a store in a temporary folder, asked without a socket.
#pragma once

#include <gtest/gtest.h>

#include "api/records_routes.h"
#include "store/testing/store_fixture.h"

namespace metier::api {

class RoutesTest : public StoreFixture {
 protected:
  void SetUp() override {
    StoreFixture::SetUp();
    open();
    RecordsApi api{.store = *store_,
                   .clock = system_clock(),
                   .artifact_path = "/data/{{project}}/artifacts/{{run.uid}}",
                   .api_url = [] { return std::string("http://127.0.0.1:1"); }};
    api.held = [this](const std::string&, const std::string& uid) { return uid == held_; };
    api.forget_run = [](std::string, std::string) -> Async<Result<void>> {
      co_return Result<void>{};
    };
    Access access;
    access.run_token = [](std::string_view token) {
      return token == "token-of-p" ? std::optional(RunTokenScope{"p", "u1"}) : std::nullopt;
    };
    router_ = std::make_unique<Router>(std::move(access), Logger());
    add_record_routes(*router_, api);
    EXPECT_EQ(ask("POST", "/api/v1/projects", R"({"metadata":{"name":"p"}})").status, 201);
  }
  net::Response ask(std::string method, std::string target, std::string body = "",
                    net::Headers headers = {}) {
    net::Request request;
    request.method = std::move(method);
    const auto mark = target.find('?');
    request.path = target.substr(0, mark);
    for (std::string rest = mark == std::string::npos ? "" : target.substr(mark + 1);
         !rest.empty();) {
      const auto end = rest.find('&');
      const auto pair = rest.substr(0, end);
      const auto equals = pair.find('=');
      request.query.emplace_back(pair.substr(0, equals),
                                 equals == std::string::npos ? "" : pair.substr(equals + 1));
      rest = end == std::string::npos ? "" : rest.substr(end + 1);
    }
    request.body = std::move(body);
    request.headers = std::move(headers);
    if (token_.empty()) {
      request.peer.unix_socket = true;
    } else {
      request.peer.listener = "runs";
      request.headers.emplace_back("host", "127.0.0.1");
      request.headers.emplace_back("authorization", "Bearer " + token_);
    }
    return run(router_->handle(std::move(request)));
  }
  Json json(const net::Response& response) { return *parse_json(response.body); }

  std::string held_;   // uid of a run whose state the engine decides
  std::string token_;  // not empty: asks as a run, over its listener
  std::unique_ptr<Router> router_;
};

}  // namespace metier::api
