// The way of one event through a plan. The walk decides what comes next; a StepHost runs the steps and owns the events
// (Python objects in a worker, JSON documents in the processor).
#pragma once

#include <vector>

#include "serving/plan.h"

namespace metier::serving {

// One event on its way. The host's own; the walk only passes it on.
struct Token {
  void* event = nullptr;
};

enum class Verdict {
  next,    // the event goes on to all successors
  some,    // … to those that StepHost::outlets gives
  drop,    // filtered, or kept by the step: it ends here
  many,    // StepHost::take gives events that go on in its place
  parked,  // the step has not ended: Walk::resume continues
  failed,  // the host keeps the error until recover or fail
  ended,   // the event is finished, whatever follows: it is the answer
};

class StepHost {
 public:
  virtual ~StepHost() = default;
  // `from` is the step that led here, -1 at the start.
  virtual Verdict run(int step, Token token, int from) = 0;
  virtual void outlets(std::vector<int>& steps) = 0;
  virtual void take(std::vector<Token>& tokens) = 0;
  // A second event with the same content; neither sees the other's changes.
  virtual Token branch(Token token) = 0;
  virtual void drop(Token token) = 0;
  // The event goes to the step's error handler.
  virtual void recover(int step, Token token) = 0;
  // Nobody handles the error: the request fails, the event ends.
  virtual void fail(int step, Token token) = 0;
  // The event as it is now is the request's answer; it goes on.
  virtual void respond(Token token) = 0;
};

class Walk {
 public:
  Walk(const Plan& plan, StepHost& host) : plan_(plan), host_(host) {}
  // From the start steps. Returns when nothing more can be done now.
  void start(Token token);
  // A step that was parked, or that gives an event of its own (a batch whose time is over), has come to this verdict.
  void resume(int step, Token token, Verdict verdict);

 private:
  struct Item {
    int step;
    int from;
    Token token;
    bool ran;  // the step is behind it: it goes to the successors
  };
  void loop(Item item);
  bool settle(Item& item, Verdict verdict);
  bool follow(Item& item, const std::vector<int>& next);

  const Plan& plan_;
  StepHost& host_;
  std::vector<Item> stack_;
  std::vector<Token> tokens_;
  std::vector<int> outlets_;
};

}  // namespace metier::serving
