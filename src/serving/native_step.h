// Steps that the engine runs itself, on JSON: expressions of the safe subset, storey's steps, functions of shared libraries.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "serving/expression.h"
#include "serving/json_members.h"
#include "serving/plan.h"

namespace metier::serving {

// A body of which nobody has asked for the value yet.
class LateBody {
 public:
  virtual ~LateBody() = default;
  std::shared_ptr<Json> value() const;              // all of it, made once
  virtual std::string dump(bool python) const = 0;  // as dump_python_ordered, or dump_json

 protected:
  void forget() { value_ = nullptr; }

 private:
  virtual Json make() const = 0;
  mutable std::shared_ptr<Json> value_;
};

// A JSON object: members as texts, and values that steps have put in their place.
class BodyText final : public LateBody {
 public:
  // Nothing when `json_members` leaves the text to whoever reads values.
  static std::unique_ptr<BodyText> of(std::string_view text);
  bool full() const { return !members_.empty(); }
  bool has(std::string_view key) const;
  // The member's text; nothing when it is missing, or no text any more.
  std::optional<std::string_view> text(std::string_view key) const;
  const Json* put(std::string_view key) const;  // what a step has put there
  void put(std::string_view key, Json value);
  std::string dump(bool python) const override;  // untouched members as they came

 private:
  Json make() const override;
  struct Member {
    std::string key;
    std::string_view text;  // of `source_`
    std::optional<Json> put;
  };
  std::shared_ptr<const std::string> source_;
  std::vector<Member> members_;
};

// A body that branches share until one of them writes.
class Payload {
 public:
  Payload() = default;
  explicit Payload(Json value) : value_(std::make_shared<Json>(std::move(value))) {}
  explicit Payload(std::unique_ptr<BodyText> text) : late_(std::move(text)) {}
  static Payload list(std::vector<Payload> items);  // their bodies, not copied before somebody asks
  const Json& get() const;
  Json& own();  // a copy of one's own, when others have it too
  void set(Json value);
  // Null: it is no such object.
  const BodyText* text() const { return dynamic_cast<const BodyText*>(late_.get()); }
  BodyText& own_text();
  bool is_late() const { return late_ != nullptr; }
  std::string dump(bool python) const;

 private:
  class List;
  bool is_same(const Payload& other) const {
    return value_ == other.value_ && late_ == other.late_;
  }
  mutable std::shared_ptr<Json> value_;
  mutable std::shared_ptr<LateBody> late_;
};

struct NativeRequest;

struct NativeEvent {
  Payload body;
  std::string id, key, path, method;
  std::int64_t timestamp_us = 0;
  bool raw = false;         // the body is text that is no JSON
  bool terminated = false;  // whatever follows: it is the answer
  int from = -1;
  NativeRequest* request = nullptr;
  std::vector<NativeRequest*> kept;  // requests whose events a batch made into this one
};

// What a step did with an event.
enum class StepDone { next, drop, keep, many, some };  // keep: the step has taken the event over

struct StepOutput {
  std::vector<std::unique_ptr<NativeEvent>> events;  // keep and many: what goes on in its place
  std::vector<int> outlets;                          // some: steps of the plan
  std::vector<std::unique_ptr<NativeEvent>> lost;    // kept before, given up now
};

using StepResult = std::expected<StepDone, Raised>;
using SteadyTime = std::chrono::steady_clock::time_point;

class NativeStep {
 public:
  virtual ~NativeStep() = default;
  virtual StepResult run(std::unique_ptr<NativeEvent>& event, StepOutput& out) = 0;
  // It reads what its input_path names, and no more.
  virtual bool reads_part() const { return false; }
  // When it wants `flush` (a batch whose time is over).
  virtual std::optional<SteadyTime> due() const { return std::nullopt; }
  // Events of its own that go on: what is due at `now`, all of it without.
  virtual void flush(std::optional<SteadyTime>, StepOutput&) {}
  // Why an event's request has no answer; empty: nothing to say.
  virtual std::string missing(std::string_view, StepOutput&) { return {}; }
};

struct StepSite {
  const PlanStep& plan;
  const Plan& graph;
  const JsonObject& spec;            // of the step
  std::vector<std::string> folders;  // where libraries are looked for
  std::function<SteadyTime()> now;
  bool check = false;  // only whether it could be made: libraries are not there yet
};

// Errors: unsupported (code NeedsPython) for steps that only Python can run, invalid for what is wrong in any case.
Result<std::unique_ptr<NativeStep>> make_native_step(const StepSite& site);

// The name of an event without one: 32 hexadecimal digits.
std::string random_event_id();

}  // namespace metier::serving
