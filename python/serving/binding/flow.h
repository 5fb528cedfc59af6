// metier_serving._engine.Flow: a compiled plan with a Python callable for each step, and the host that runs them.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "event.h"
#include "serving/step_stats.h"
#include "serving/walk.h"

namespace metier::serving::python {

enum class Mode : std::uint8_t {
  pass,    // queues inside one process
  map,     // body -> body
  event,   // event -> event
  filter,  // body -> keep it?
  flat,    // body -> bodies
  extend,  // body -> members for it
  each,    // body -> nothing that counts
  emit,    // event -> None, one event or a list of events, that go on in its place
};

struct Handler {
  Ref call;
  Ref kwargs;    // {"context": …} or null
  Ref selector;  // select_outlets, or null
  Mode mode = Mode::pass;
  bool whole = false;      // gets the event instead of the body
  bool coroutine = false;  // its result is awaited
  std::vector<Ref> input, result;
  std::uint64_t count = 0, failures = 0;
};

struct Flow {
  Plan plan;
  std::vector<Handler> handlers;
  std::optional<StepStats> stats;  // what steps cost, for the processor to read
  Ref on_step_error;               // (event, exception, step name), before the handler runs
  Ref error_text;                  // exception -> text, for a sync flow's event.error
  PyThread_type_lock lock = nullptr;
  unsigned long owner = 0;  // the thread that holds the lock
  int depth = 0;
  // No step at the start sees the whole body.
  bool reads_part() const;
  ~Flow();
};

// An async flow's steps run one at a time, as on storey's loop; a step may call its own graph.
class FlowLock {
 public:
  explicit FlowLock(Flow& flow);
  ~FlowLock();
  FlowLock(const FlowLock&) = delete;
  FlowLock& operator=(const FlowLock&) = delete;

 private:
  Flow& flow_;
};

class PythonHost final : public StepHost {
 public:
  explicit PythonHost(Flow& flow) : flow_(flow) {}
  Verdict run(int step, Token token, int from) override;
  void outlets(std::vector<int>& steps) override;
  void take(std::vector<Token>& tokens) override;
  Token branch(Token token) override;
  void drop(Token token) override;
  void recover(int step, Token token) override;
  void fail(int step, Token token) override;
  void respond(Token token) override;
  // The result of what was awaited; null: the pending Python exception.
  // `began`: when the step did, nanoseconds of the steady clock.
  Verdict finish(int step, Event* event, PyObject* result, std::int64_t began);

 private:
  Verdict call(int step, Event* event);
  void count(int step, std::int64_t began, Verdict verdict);
  Verdict raised(int step);
  Verdict value(Handler& handler, int step, Event* event, PyObject* result);
  Verdict emitted(Event* event, PyObject* result);
  Verdict choose(Handler& handler, int step, Event* event);
  bool take_event(int step, Event* event, PyObject* result);

  Flow& flow_;
  Ref error_;
  std::vector<Token> made_;
  std::vector<int> chosen_;
};

// The value at a path of the body, its names from `from` on: None when a member is missing. New reference.
PyObject* value_at(const std::vector<Ref>& path, std::size_t from, PyObject* body);
// The body with the value put at the path; takes over `value`.
PyObject* put_at(const std::vector<Ref>& path, PyObject* body, PyObject* value);
// The pending exception, taken.
Ref take_exception();
void restore(const Ref& exception);

extern PyTypeObject* flow_type;
Flow* flow_of(PyObject* object);
bool make_flow_type(PyObject* module);

}  // namespace metier::serving::python
