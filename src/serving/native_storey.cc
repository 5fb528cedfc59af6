// storey's steps on JSON, as python/serving/metier_serving/steps.py has them for Python objects.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <deque>
#include <map>
#include <unordered_map>

#include "serving/native_steps.h"
#include "serving/native_windows.h"
#include "serving/python_value.h"

namespace metier::serving {
namespace {

Raised no_attribute(const Json& value, std::string_view name) {
  return {"AttributeError",
          fmt::format("'{}' object has no attribute '{}'", python_type(value), name)};
}
Raised not_iterable(const Json& value) {
  return {"TypeError", fmt::format("'{}' object is not iterable", python_type(value))};
}

// A step around one expression: `_fn`, as MLRun's documents name a callable.
class FunctionStep : public NativeStep {
 public:
  FunctionStep(Paths paths, Expression expression)
      : paths_(std::move(paths)), expression_(std::move(expression)) {}
  bool reads_part() const override { return !paths_.input.empty(); }

 protected:
  std::expected<Json, Raised> value_of(const NativeEvent& event) const {
    Json room;
    const auto input = paths_.read(event.body, room);
    if (!input) { return std::unexpected(input.error()); }
    return expression_.evaluate({.event = **input});
  }
  Paths paths_;
  Expression expression_;
};

class Map final : public FunctionStep {
  using FunctionStep::FunctionStep;

 public:
  StepResult run(std::unique_ptr<NativeEvent>& event, StepOutput&) override {
    auto value = value_of(*event);
    if (!value) { return std::unexpected(std::move(value.error())); }
    event->raw = false;
    if (auto written = paths_.write(event->body, std::move(*value)); !written) {
      return std::unexpected(std::move(written.error()));
    }
    return StepDone::next;
  }
};

class Filter final : public FunctionStep {
  using FunctionStep::FunctionStep;

 public:
  StepResult run(std::unique_ptr<NativeEvent>& event, StepOutput&) override {
    Json room;
    const auto input = paths_.read(event->body, room);
    if (!input) { return std::unexpected(input.error()); }
    const auto keep = expression_.truth({.event = **input});
    if (!keep) { return std::unexpected(keep.error()); }
    return *keep ? StepDone::next : StepDone::drop;
  }
};

class ForEach final : public FunctionStep {
  using FunctionStep::FunctionStep;

 public:
  StepResult run(std::unique_ptr<NativeEvent>& event, StepOutput&) override {
    const auto value = value_of(*event);
    if (!value) { return std::unexpected(value.error()); }
    return StepDone::next;
  }
};

class Extend final : public FunctionStep {
  using FunctionStep::FunctionStep;

 public:
  StepResult run(std::unique_ptr<NativeEvent>& event, StepOutput&) override {
    auto value = value_of(*event);
    if (!value) { return std::unexpected(std::move(value.error())); }
    const Json& body = event->body.get();
    if (body.is_null()) {
      return std::unexpected(Raised{"TypeError", "Extend needs a dict as body, got None"});
    }
    if (!body.is_object()) { return std::unexpected(no_attribute(body, "update")); }
    if (!value->is_object()) { return std::unexpected(not_iterable(*value)); }
    JsonObject& members = event->body.own().get_object();
    for (auto& member : value->get_object()) { members[member.key()] = std::move(member.value()); }
    return StepDone::next;
  }
};

// Several events in place of one, each with the content of the first but its own body.
StepResult spread(NativeEvent& event, const Json& items, StepOutput& out) {
  const auto add = [&](Json body) {
    auto made = std::make_unique<NativeEvent>(event);
    event.kept.clear();  // the first of them has what a batch collected
    made->raw = false;
    made->body = Payload(std::move(body));
    out.events.push_back(std::move(made));
  };
  if (const auto* array = items.if_array()) {
    for (const Json& item : *array) { add(item); }
  } else if (const auto* object = items.if_object()) {
    for (const auto& member : *object) { add(Json(member.key())); }
  } else if (const auto* text = items.if_string()) {
    const std::string_view view = *text;
    const auto points = code_points(view);
    for (std::size_t i = 0; i + 1 < points.size(); ++i) {
      add(Json(view.substr(points[i], points[i + 1] - points[i])));
    }
  } else {
    return std::unexpected(not_iterable(items));
  }
  return StepDone::many;
}

class FlatMap final : public FunctionStep {
  using FunctionStep::FunctionStep;

 public:
  StepResult run(std::unique_ptr<NativeEvent>& event, StepOutput& out) override {
    const auto value = value_of(*event);
    if (!value) { return std::unexpected(value.error()); }
    return spread(*event, *value, out);
  }
};

class Flatten final : public NativeStep {
 public:
  explicit Flatten(Paths paths) : paths_(std::move(paths)) {}
  bool reads_part() const override { return !paths_.input.empty(); }
  StepResult run(std::unique_ptr<NativeEvent>& event, StepOutput& out) override {
    Json room;
    const auto input = paths_.read(event->body, room);
    if (!input) { return std::unexpected(input.error()); }
    return spread(*event, **input, out);
  }

 private:
  Paths paths_;
};

class DropColumns final : public NativeStep {
 public:
  explicit DropColumns(std::vector<std::string> columns) : columns_(std::move(columns)) {}
  StepResult run(std::unique_ptr<NativeEvent>& event, StepOutput&) override {
    if (!event->body.get().is_object()) {
      return std::unexpected(no_attribute(event->body.get(), "pop"));
    }
    JsonObject& body = event->body.own().get_object();
    // stable_erase keeps the order of the others, as a dict does
    for (const std::string& column : columns_) {
      if (auto found = body.find(column); found != body.end()) { body.stable_erase(found); }
    }
    return StepDone::next;
  }

 private:
  std::vector<std::string> columns_;
};

class Rename final : public NativeStep {
 public:
  explicit Rename(const JsonObject& mapping) {
    for (const auto& member : mapping) {
      names_.emplace_back(member.key(), member.value().get_string());
    }
  }
  StepResult run(std::unique_ptr<NativeEvent>& event, StepOutput&) override {
    if (!event->body.get().is_object()) {
      return std::unexpected(no_attribute(event->body.get(), "pop"));
    }
    JsonObject& body = event->body.own().get_object();
    for (const auto& [old, name] : names_) {
      auto found = body.find(old);
      if (found == body.end()) { continue; }
      Json value = std::move(found->value());
      body.stable_erase(found);
      body[name] = std::move(value);
    }
    return StepDone::next;
  }

 private:
  std::vector<std::pair<std::string, std::string>> names_;
};

class ReifyMetadata final : public NativeStep {
 public:
  explicit ReifyMetadata(std::vector<std::pair<std::string, std::string>> names)
      : names_(std::move(names)) {}
  StepResult run(std::unique_ptr<NativeEvent>& event, StepOutput&) override {
    if (!event->body.get().is_object()) {
      return std::unexpected(
          Raised{"TypeError", fmt::format("'{}' object does not support item assignment",
                                          python_type(event->body.get()))});
    }
    JsonObject& body = event->body.own().get_object();
    for (const auto& [attribute, name] : names_) {
      body[name] = attribute == "id"     ? event->id
                   : attribute == "key"  ? event->key
                   : attribute == "path" ? event->path
                                         : event->method;
    }
    return StepDone::next;
  }

 private:
  std::vector<std::pair<std::string, std::string>> names_;
};

// Outlets by name.
class Selector : public NativeStep {
 public:
  explicit Selector(const StepSite& site) : name_(site.plan.name) {
    for (const int next : site.plan.next) {
      outlets_.push_back(site.graph.steps[static_cast<std::size_t>(next)].name);
      next_.push_back(next);
    }
  }

 protected:
  StepResult select(std::string_view name, StepOutput& out) const {
    const auto found = std::ranges::find(outlets_, name);
    if (found == outlets_.end()) {
      return std::unexpected(Raised{
          "ValueError",
          fmt::format("step '{}' selected the outlet '{}', which is not one of the steps after it",
                      name_, name)});
    }
    out.outlets = {next_[static_cast<std::size_t>(found - outlets_.begin())]};
    return StepDone::some;
  }

 private:
  std::string name_;
  std::vector<std::string> outlets_;
  std::vector<int> next_;
};

class Choice final : public Selector {
 public:
  Choice(const StepSite& site, std::vector<std::pair<std::string, Expression>> choices,
         std::string fallback)
      : Selector(site), choices_(std::move(choices)), default_(std::move(fallback)) {}
  StepResult run(std::unique_ptr<NativeEvent>& event, StepOutput& out) override {
    for (const auto& [name, test] : choices_) {
      const auto holds = test.truth({.event = event->body.get()});
      if (!holds) { return std::unexpected(holds.error()); }
      if (*holds) { return select(name, out); }
    }
    return default_.empty() ? StepDone::drop : select(default_, out);
  }

 private:
  std::vector<std::pair<std::string, Expression>> choices_;
  std::string default_;
};

// A key of the event: none, its own, or a member of the body.
class KeyOf {
 public:
  explicit KeyOf(std::string field) : field_(std::move(field)) {}
  std::expected<Json, Raised> of(const NativeEvent& event) const {
    if (field_.empty()) { return Json(nullptr); }
    if (field_ == "$key") { return Json(event.key); }
    const auto* object = event.body.get().if_object();
    const Json* found = object == nullptr ? nullptr : object->if_contains(field_);
    if (found == nullptr) {
      return object == nullptr ? std::unexpected(Raised{
                                     "TypeError", fmt::format("'{}' object is not subscriptable",
                                                              python_type(event.body.get()))})
                               : std::unexpected(Raised{"KeyError", repr(Json(field_))});
    }
    return *found;
  }

 private:
  std::string field_;
};

class Batch final : public NativeStep {
 public:
  Batch(std::size_t most, std::optional<double> after, std::string key,
        std::function<SteadyTime()> now)
      : most_(most), after_(after), key_(std::move(key)), now_(std::move(now)) {}

  StepResult run(std::unique_ptr<NativeEvent>& event, StepOutput& out) override {
    auto key = key_.of(*event);
    if (!key) { return std::unexpected(std::move(key.error())); }
    Open& open = open_[dump_json(*key)];
    if (open.bodies.empty() && after_) {
      open.due = now_() + std::chrono::duration_cast<SteadyTime::duration>(
                              std::chrono::duration<double>(*after_));
    }
    open.bodies.push_back(event->body);
    if (most_ == 0 || open.bodies.size() < most_) {
      open.key = std::move(*key);
      open.events.push_back(std::move(event));
      return StepDone::keep;
    }
    auto made = closed(open);
    made->path = event->path;
    made->method = event->method;
    made->request = event->request;  // who fills the batch gets its answer
    open_.erase(dump_json(*key));
    out.events.push_back(std::move(made));
    return StepDone::many;
  }
  std::optional<SteadyTime> due() const override {
    std::optional<SteadyTime> out;
    for (const auto& [key, open] : open_) {
      if (open.due && (!out || *open.due < *out)) { out = open.due; }
    }
    return out;
  }
  void flush(std::optional<SteadyTime> now, StepOutput& out) override {
    for (auto at = open_.begin(); at != open_.end();) {
      if (now && (!at->second.due || *at->second.due > *now)) {
        ++at;
        continue;
      }
      out.events.push_back(closed(at->second));
      at = open_.erase(at);
    }
  }

 private:
  struct Open {
    Json key;
    std::vector<Payload> bodies;
    std::vector<std::unique_ptr<NativeEvent>>
        events;  // their requests are told when the batch has ended
    std::optional<SteadyTime> due;
  };
  static std::unique_ptr<NativeEvent> closed(Open& open) {
    auto made = std::make_unique<NativeEvent>();
    made->id = random_event_id();
    made->key = open.key.is_string() ? std::string(open.key.get_string()) : std::string();
    made->path = "/";
    made->body = Payload::list(std::move(open.bodies));
    for (const auto& event : open.events) {
      if (event->request != nullptr) { made->kept.push_back(event->request); }
      made->kept.insert(made->kept.end(), event->kept.begin(), event->kept.end());
    }
    return made;
  }

  std::size_t most_;
  std::optional<double> after_;
  KeyOf key_;
  std::function<SteadyTime()> now_;
  std::map<std::string, Open, std::less<>> open_;
};

class SampleWindow final : public NativeStep {
 public:
  SampleWindow(std::int64_t size, bool first, bool at_end, std::string key)
      : size_(size), first_(first), at_end_(at_end), key_(std::move(key)) {}
  StepResult run(std::unique_ptr<NativeEvent>& event, StepOutput&) override {
    const auto key = key_.of(*event);
    if (!key) { return std::unexpected(key.error()); }
    Counted& counted = counts_[dump_json(*key)];
    const std::int64_t count = counted.count + 1;
    counted.count = count == size_ ? 0 : count;
    const bool chosen = first_ ? count == 1 : count == size_;
    if (at_end_ && !first_) {
      counted.last = chosen ? std::nullopt : std::optional(std::pair(event->body, event->key));
    }
    return chosen ? StepDone::next : StepDone::drop;
  }
  void flush(std::optional<SteadyTime> now, StepOutput& out) override {
    if (now) { return; }
    for (auto& [key, counted] : counts_) {
      if (!counted.last) { continue; }
      auto made = std::make_unique<NativeEvent>();
      made->id = random_event_id();
      made->path = "/";
      made->body = std::move(counted.last->first);
      made->key = std::move(counted.last->second);
      counted.last.reset();
      out.events.push_back(std::move(made));
    }
  }

 private:
  struct Counted {
    std::int64_t count = 0;
    std::optional<std::pair<Payload, std::string>> last;
  };
  std::int64_t size_;
  bool first_, at_end_;
  KeyOf key_;
  std::unordered_map<std::string, Counted> counts_;
};

class Merge final : public NativeStep {
 public:
  Merge(const StepSite& site, std::optional<Expression> key, std::size_t most, std::size_t expected)
      : name_(site.plan.name),
        before_(site.plan.before),
        key_(std::move(key)),
        most_(most),
        expected_(expected == 0 ? before_.size() : expected) {}

  StepResult run(std::unique_ptr<NativeEvent>& event, StepOutput& out) override {
    if (expected_ <= 1) { return StepDone::next; }
    std::string key = event->id;
    if (key_) {
      const auto value = key_->evaluate(
          {.event = event->body.get(), .id = event->id, .key = event->key, .whole = true});
      if (!value) {
        return std::unexpected(
            Raised{"RuntimeError", fmt::format("step '{}': the event has no join key: {}: {}",
                                               name_, value.error().type, value.error().message)});
      }
      key = dump_json(*value);
    }
    auto found = kept_.find(key);
    if (found == kept_.end()) {
      found = kept_.emplace(key, std::vector<std::unique_ptr<NativeEvent>>()).first;
      order_.push_back(key);
    }
    auto& events = found->second;
    if (events.size() + 1 == expected_) { return joined(event, found); }
    events.push_back(std::move(event));
    if (kept_.size() > most_) { give_up_oldest(out); }
    return StepDone::keep;
  }
  std::string missing(std::string_view id, StepOutput& lost) override {
    if (key_) { return {}; }
    const auto found = kept_.find(std::string(id));
    if (found == kept_.end()) { return {}; }
    std::string out = fmt::format("step '{}' got {} of {} branches, so there is no answer", name_,
                                  found->second.size(), expected_);
    std::ranges::move(found->second, std::back_inserter(lost.lost));
    forget(found);
    return out;
  }

 private:
  using Kept = std::unordered_map<std::string, std::vector<std::unique_ptr<NativeEvent>>>;
  StepResult joined(std::unique_ptr<NativeEvent>& last, Kept::iterator found) {
    std::vector<std::unique_ptr<NativeEvent>> all = std::move(found->second);
    forget(found);
    NativeEvent* const keeper = last.get();
    all.push_back(std::move(last));
    if (!key_) {
      std::ranges::sort(all, {}, [&](const auto& event) {
        return std::ranges::find(before_, event->from) - before_.begin();
      });
    }
    std::vector<Payload> bodies;
    for (const auto& event : all) { bodies.push_back(event->body); }
    keeper->raw = false;
    for (auto& event : all) {
      if (event.get() == keeper) {
        last = std::move(event);
        continue;
      }
      if (event->request != nullptr) { keeper->kept.push_back(event->request); }
      keeper->kept.insert(keeper->kept.end(), event->kept.begin(), event->kept.end());
    }
    last->body = Payload::list(std::move(bodies));
    return StepDone::next;
  }
  void forget(Kept::iterator found) {
    const auto at = std::ranges::find(order_, found->first);
    if (at != order_.end()) { order_.erase(at); }
    kept_.erase(found);
  }
  void give_up_oldest(StepOutput& out) {
    const auto found = kept_.find(order_.front());
    if (found != kept_.end()) {
      std::ranges::move(found->second, std::back_inserter(out.lost));
      kept_.erase(found);
    }
    order_.pop_front();
  }

  std::string name_;
  std::vector<int> before_;
  std::optional<Expression> key_;
  std::size_t most_, expected_;
  Kept kept_;
  std::deque<std::string> order_;
};

class Complete final : public NativeStep {
 public:
  StepResult run(std::unique_ptr<NativeEvent>&, StepOutput&) override { return StepDone::next; }
};

// The arguments of a step, read by name; what nobody asks for is Python's.
class Arguments {
 public:
  explicit Arguments(const StepSite& site)
      : site_(site), given_(object_in(site.spec, "class_args")) {}
  const Json* find(std::string_view name) {
    asked_.push_back(name);
    const Json* value = given_ == nullptr ? nullptr : given_->if_contains(name);
    return value == nullptr || value->is_null() ? nullptr : value;
  }
  Result<Expression> function() {
    const Json* text = find("_fn");
    if (text == nullptr || !text->is_string()) {
      return fail(needs_python(site_, "_fn is no expression"));
    }
    return expression_of(site_, text->get_string());
  }
  Result<std::string> key(std::string_view name) {
    const Json* value = find(name);
    if (value == nullptr) { return std::string(); }
    if (!value->is_string()) {
      return fail(needs_python(site_, std::string(name) + " is no name"));
    }
    return std::string(value->get_string());
  }
  Result<void> done() const {
    for (const auto& member : given_ == nullptr ? JsonObject() : *given_) {
      static constexpr std::array kIgnored = {"name", "context", "long_running", "full_event",
                                              "pass_context"};
      if (member.value().is_null() ||
          std::ranges::find(asked_, std::string_view(member.key())) != asked_.end()) {
        continue;
      }
      const bool off = member.value().is_bool() && !member.value().get_bool();
      if (off && std::ranges::find(kIgnored, std::string_view(member.key())) != kIgnored.end()) {
        continue;
      }
      return fail(needs_python(site_, "its argument " + quote(member.key())));
    }
    return {};
  }

 private:
  const StepSite& site_;
  const JsonObject* given_;
  std::vector<std::string_view> asked_;
};

Result<std::vector<std::string>> texts(const StepSite& site, const Json* value,
                                       std::string_view name) {
  std::vector<std::string> out;
  if (value != nullptr && value->is_string()) {
    out.emplace_back(value->get_string());
  } else if (value != nullptr && value->is_array()) {
    for (const Json& item : value->get_array()) {
      if (!item.is_string()) {
        return fail(needs_python(site, std::string(name) + " is no list of names"));
      }
      out.emplace_back(item.get_string());
    }
  } else {
    return fail(needs_python(site, std::string(name) + " is missing"));
  }
  return out;
}

template <class Step>
Result<std::unique_ptr<NativeStep>> around(const StepSite& site, Arguments& arguments) {
  METIER_TRY(expression, arguments.function());
  METIER_CHECK(arguments.done());
  METIER_TRY(paths, Paths::of(site));
  return std::make_unique<Step>(std::move(paths), std::move(expression));
}

Result<std::unique_ptr<NativeStep>> make_choice(const StepSite& site, Arguments& arguments) {
  const Json* given = arguments.find("choices");
  const Json* old = arguments.find("choice_array");
  if (given == nullptr) { given = old; }
  METIER_TRY(fallback, arguments.key("default"));
  METIER_CHECK(arguments.done());
  std::vector<std::pair<std::string, Expression>> choices;
  for (const Json& item :
       given != nullptr && given->is_array() ? given->get_array() : JsonArray()) {
    const auto* pair = item.if_array();
    if (pair == nullptr || pair->size() != 2 || !(*pair)[0].is_string() ||
        !(*pair)[1].is_string()) {
      return fail(needs_python(site, "its choices are no list of names and expressions"));
    }
    METIER_TRY(test, expression_of(site, (*pair)[1].get_string()));
    choices.emplace_back((*pair)[0].get_string(), std::move(test));
  }
  return std::make_unique<Choice>(site, std::move(choices), std::move(fallback));
}

Result<std::unique_ptr<NativeStep>> make_batch(const StepSite& site, Arguments& arguments) {
  const Json* most = arguments.find("max_events");
  const Json* after = arguments.find("flush_after_seconds");
  METIER_TRY(key, arguments.key("key_field"));
  METIER_CHECK(arguments.done());
  const auto count = most == nullptr ? std::optional<std::int64_t>(0) : whole(*most);
  const auto seconds = after == nullptr ? std::optional<double>() : real(*after);
  if (!count || (most != nullptr && *count < 1)) {
    return fail(invalid("graph.steps." + site.plan.name,
                        "Batch: max_events=" + repr(*most) + " must be 1 or more"));
  }
  if (after != nullptr && (!seconds || *seconds < 0)) {
    return fail(invalid("graph.steps." + site.plan.name,
                        "Batch: flush_after_seconds=" + repr(*after) + " must be 0 or more"));
  }
  return std::make_unique<Batch>(static_cast<std::size_t>(*count), seconds, std::move(key),
                                 site.now);
}

Result<std::unique_ptr<NativeStep>> make_sample(const StepSite& site, Arguments& arguments) {
  const Json* size = arguments.find("window_size");
  const Json* period = arguments.find("emit_period");
  const Json* at_end = arguments.find("emit_before_termination");
  METIER_TRY(key, arguments.key("key"));
  METIER_CHECK(arguments.done());
  const auto count = size == nullptr ? std::nullopt : whole(*size);
  if (!count || *count <= 1) {
    return fail(
        invalid("graph.steps." + site.plan.name, "SampleWindow: window_size must be more than 1"));
  }
  const std::string which = period == nullptr ? "FIRST" : str(*period);
  if (which != "FIRST" && which != "LAST") {
    return fail(needs_python(site, "emit_period is neither FIRST nor LAST"));
  }
  return std::make_unique<SampleWindow>(*count, which == "FIRST",
                                        at_end != nullptr && is_true(*at_end), std::move(key));
}

Result<std::unique_ptr<NativeStep>> make_merge(const StepSite& site, Arguments& arguments) {
  METIER_TRY(text, arguments.key("key_path"));
  const Json* behind = arguments.find("max_behind");
  const Json* expected = arguments.find("expected_num_events");
  METIER_CHECK(arguments.done());
  std::optional<Expression> key;
  if (!text.empty()) {
    METIER_TRY(made, expression_of(site, text.starts_with('(') ? text : "(" + text + ")"));
    key = std::move(made);
  }
  const auto most = behind == nullptr ? std::optional<std::int64_t>(64) : whole(*behind);
  const auto count = expected == nullptr ? std::optional<std::int64_t>(0) : whole(*expected);
  if (!most || !count || *most < 1 || *count < 0) {
    return fail(needs_python(site, "its limits are no numbers"));
  }
  return std::make_unique<Merge>(site, std::move(key), static_cast<std::size_t>(*most),
                                 static_cast<std::size_t>(*count));
}

Result<std::unique_ptr<NativeStep>> make_reify(const StepSite& site, Arguments& arguments) {
  const Json* mapping = arguments.find("mapping");
  METIER_CHECK(arguments.done());
  std::vector<std::pair<std::string, std::string>> names;
  if (mapping != nullptr && mapping->is_object()) {
    for (const auto& member : mapping->get_object()) {
      names.emplace_back(member.key(), str(member.value()));
    }
  } else {
    METIER_TRY(list, texts(site, mapping, "mapping"));
    for (const std::string& name : list) { names.emplace_back(name, name); }
  }
  for (const auto& [attribute, name] : names) {
    static constexpr std::array kKnown = {"id", "key", "path", "method"};
    if (std::ranges::find(kKnown, std::string_view(attribute)) == kKnown.end()) {
      return fail(needs_python(site, "it reads " + quote(attribute)));
    }
  }
  return std::make_unique<ReifyMetadata>(std::move(names));
}

Result<std::unique_ptr<NativeStep>> make_rename(const StepSite& site, Arguments& arguments) {
  const Json* mapping = arguments.find("mapping");
  METIER_CHECK(arguments.done());
  const auto* names = mapping == nullptr ? nullptr : mapping->if_object();
  if (names == nullptr ||
      !std::ranges::all_of(*names, [](const auto& m) { return m.value().is_string(); })) {
    return fail(needs_python(site, "mapping is no dict of names"));
  }
  return std::make_unique<Rename>(*names);
}

}  // namespace

Result<std::unique_ptr<NativeStep>> make_storey_step(const StepSite& site,
                                                     std::string_view class_name) {
  Arguments arguments(site);
  std::string_view name = class_name;
  if (name == "mlrun.serving.merger.Merge" || name == "mlrun.serving.Merge") {
    return make_merge(site, arguments);
  }
  for (const std::string_view prefix : {"storey.flow.", "storey."}) {
    if (name.starts_with(prefix)) {
      name.remove_prefix(prefix.size());
      break;
    }
  }
  if (name.size() == class_name.size()) {
    return fail(needs_python(site, "class " + quote(class_name)));
  }
  if (name == "Map") { return around<Map>(site, arguments); }
  if (name == "Filter") { return around<Filter>(site, arguments); }
  if (name == "FlatMap") { return around<FlatMap>(site, arguments); }
  if (name == "Extend") { return around<Extend>(site, arguments); }
  if (name == "ForEach") { return around<ForEach>(site, arguments); }
  if (name == "Choice") { return make_choice(site, arguments); }
  if (name == "Batch") { return make_batch(site, arguments); }
  if (name == "SampleWindow") { return make_sample(site, arguments); }
  if (name == "ReifyMetadata") { return make_reify(site, arguments); }
  if (name == "Rename") { return make_rename(site, arguments); }
  if (name == "AggregateByKey") { return make_aggregate_step(site); }
  if (name == "Flatten" || name == "Complete") {
    METIER_CHECK(arguments.done());
    METIER_TRY(paths, Paths::of(site));
    if (name == "Complete") { return std::make_unique<Complete>(); }
    return std::make_unique<Flatten>(std::move(paths));
  }
  if (name == "DropColumns") {
    METIER_TRY(columns, texts(site, arguments.find("columns"), "columns"));
    METIER_CHECK(arguments.done());
    return std::make_unique<DropColumns>(std::move(columns));
  }
  return fail(needs_python(site, "class " + quote(class_name)));
}

}  // namespace metier::serving
