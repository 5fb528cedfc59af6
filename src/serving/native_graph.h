// A graph whose steps all run here, or the native steps at the start of one whose other steps do not: the mock server of C++, and what a
// processor hosts without an interpreter.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "serving/native_step.h"

namespace metier::serving {

struct GraphCall {
  std::string_view body, content_type, method = "POST", path = "/", id, key;
  std::int64_t timestamp_us = 0;
};

struct GraphAnswer {
  int status = 200;
  std::string content_type;
  std::string body;
  bool failed = false;  // a step raised
};

// One call on its way. `finished` is called once, with the answer; the object lives until no event of it is left.
struct NativeRequest {
  int refs = 0;
  bool answered = false, told = false;
  bool hold = false;  // told only when its last event has ended (streams)
  GraphAnswer answer;
  std::function<void(GraphAnswer&&)> finished;
};

// What steps cost: called after each.
using StepObserver = std::function<void(int step, std::int64_t ns, bool failed)>;
// Prefix: an event has come to the first step that does not run here. The request is null when nobody waits for this event.
using GraphExit = std::function<void(const NativeEvent& event, bool first_of_request)>;

struct GraphOptions {
  std::string current_function = "*";
  std::string default_content_type;
  std::vector<std::string> folders;
  std::function<SteadyTime()> now = [] { return std::chrono::steady_clock::now(); };
  bool check = false;  // only whether it could be made
};

class NativeGraph {
 public:
  // Errors: those of compile_graph; NeedsPython with the first step that does not run here.
  static Result<std::unique_ptr<NativeGraph>> make(const JsonObject& graph,
                                                   GraphOptions options = {});
  // The longest chain of native steps from the start, without answers, error handlers and steps that make several events of one. Null
  // when there is none. `entry` becomes the name of the step behind it.
  static Result<std::unique_ptr<NativeGraph>> make_prefix(const JsonObject& graph,
                                                          std::string& entry,
                                                          GraphOptions options = {});
  ~NativeGraph();
  NativeGraph(const NativeGraph&) = delete;
  NativeGraph& operator=(const NativeGraph&) = delete;

  const Plan& plan() const;
  void observe(StepObserver observer);
  void on_exit(GraphExit exit);
  // Never blocks. `finished` may be called before this returns.
  void start(const GraphCall& call, bool hold, std::function<void(GraphAnswer&&)> finished);
  // The same, at once: `server.test` of a mock server.
  GraphAnswer test(const GraphCall& call);
  // When `tick` wants to be called.
  std::optional<SteadyTime> due() const;
  void tick();
  // The end: what batches hold goes on.
  void flush();

 private:
  class Host;
  explicit NativeGraph(std::unique_ptr<Host> host);
  std::unique_ptr<Host> host_;
};

}  // namespace metier::serving
