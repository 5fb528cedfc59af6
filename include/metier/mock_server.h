// The mock server of a graph, in this process: the engine that serves it when it is deployed. For tests of native graphs in C++.
//
//   #include <metier/graph.h>
//   #include <metier/mock_server.h>
//   int main() {
//     metier::Graph graph;
//     graph.set_topology("flow", "async");
//     graph.to("storey.Filter", "late", {{"_fn", "(event['delay'] > 15)"}})
//         .to(metier::handler("./steps.so:enrich"), "enrich")
//         .respond();
//     metier::MockServer server(graph);
//     const metier::Answer answer = server.test("/", R"({"delay": 20})");
//     return answer.status == 200 ? 0 : 1;
//   }
//
//   metier build --program test.cc && ./test
//
// Steps that need Python are refused by their names: such graphs have Python's `fn.to_mock_server()`. One thread at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>

#include "metier/graph.h"

extern "C" {
struct metier_call_v1 {
  const char *path, *body, *method, *content_type, *id, *key;
  std::size_t body_size;
};
struct metier_answer_v1 {
  std::int32_t status, failed;
  const char *content_type, *body;
  std::size_t body_size;
};
// libmetier_graph.so. Null: `error` has the reason, until the thread's next call.
void* metier_mock_open_v1(const char* graph, const char* function, const char* content_type,
                          const char** error);
// The answer's texts live until the next call or close.
void metier_mock_call_v1(void* server, const metier_call_v1* call, metier_answer_v1* answer);
void metier_mock_flush_v1(void* server);
void metier_mock_close_v1(void* server);
}

namespace metier {

struct Answer {
  int status = 200;
  bool failed = false;  // a step raised
  std::string content_type, body;
};

class MockServer {
 public:
  // `function`: only its steps; "*" all, queues between functions pass events on in memory.
  // Throws std::invalid_argument with the step, the rule and the fix.
  explicit MockServer(const Graph& graph, const std::string& function = "*",
                      const std::string& default_content_type = {})
      : MockServer(graph.json(), function, default_content_type) {}
  // From a graph's document.
  explicit MockServer(const std::string& document, const std::string& function = "*",
                      const std::string& default_content_type = {}) {
    const char* error = nullptr;
    server_.reset(metier_mock_open_v1(document.c_str(), function.c_str(),
                                      default_content_type.c_str(), &error));
    if (server_ == nullptr) { throw std::invalid_argument(error == nullptr ? "" : error); }
  }

  // One request. The method is POST with a body, GET without, unless it is given; an id is made when there is none.
  Answer test(const std::string& path = "/", std::string_view body = {},
              const std::string& method = {}, const std::string& content_type = {},
              const std::string& id = {}, const std::string& key = {}) {
    const std::string how = !method.empty() ? method : body.empty() ? "GET" : "POST";
    const metier_call_v1 call{path.c_str(), body.data(), how.c_str(), content_type.c_str(),
                              id.c_str(),   key.c_str(), body.size()};
    metier_answer_v1 answer{};
    metier_mock_call_v1(server_.get(), &call, &answer);
    return {answer.status, answer.failed != 0, answer.content_type,
            std::string(answer.body, answer.body_size)};
  }
  // The end: what batches have collected goes on.
  void flush() { metier_mock_flush_v1(server_.get()); }

 private:
  struct Close {
    void operator()(void* server) const { metier_mock_close_v1(server); }
  };
  std::unique_ptr<void, Close> server_;
};

}  // namespace metier
