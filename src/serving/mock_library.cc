// libmetier_graph.so: the engine behind metier/mock_server.h. Only C crosses its border.
#include "metier/mock_server.h"

#include "serving/native_graph.h"

namespace {

struct Server {
  std::unique_ptr<metier::serving::NativeGraph> graph;
  metier::serving::GraphAnswer answer;
};

metier::Result<std::unique_ptr<metier::serving::NativeGraph>> made_of(std::string_view text,
                                                                      std::string_view function,
                                                                      std::string_view type) {
  METIER_TRY(document, metier::parse_json(text));
  if (!document.is_object()) {
    return metier::fail(metier::invalid("graph", "it is not an object"));
  }
  metier::serving::GraphOptions options;
  options.current_function = function;
  options.default_content_type = type;
  return metier::serving::NativeGraph::make(document.get_object(), std::move(options));
}

}  // namespace

#define METIER_EXPORT extern "C" __attribute__((visibility("default")))

METIER_EXPORT void* metier_mock_open_v1(const char* graph, const char* function,
                                        const char* content_type, const char** error) {
  static thread_local std::string why;
  auto made = made_of(graph, function, content_type);
  if (made) { return new Server{std::move(*made), {}}; }
  why = made.error().text();
  *error = why.c_str();
  return nullptr;
}

METIER_EXPORT void metier_mock_call_v1(void* server, const metier_call_v1* call,
                                       metier_answer_v1* answer) {
  auto& self = *static_cast<Server*>(server);
  self.graph->tick();  // batches whose time is over
  self.answer = self.graph->test({.body = {call->body, call->body_size},
                                  .content_type = call->content_type,
                                  .method = call->method,
                                  .path = call->path,
                                  .id = call->id,
                                  .key = call->key});
  *answer = {.status = self.answer.status,
             .failed = self.answer.failed ? 1 : 0,
             .content_type = self.answer.content_type.c_str(),
             .body = self.answer.body.data(),
             .body_size = self.answer.body.size()};
}

METIER_EXPORT void metier_mock_flush_v1(void* server) {
  static_cast<Server*>(server)->graph->flush();
}

METIER_EXPORT void metier_mock_close_v1(void* server) { delete static_cast<Server*>(server); }
