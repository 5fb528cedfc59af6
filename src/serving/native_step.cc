#include "serving/native_step.h"

#include <fmt/format.h>

#include <algorithm>
#include <random>

#include "base/json_ordered.h"
#include "serving/native_steps.h"
#include "serving/python_value.h"
#include "serving/step_library.h"

namespace metier::serving {

std::unique_ptr<BodyText> BodyText::of(std::string_view text) {
  auto out = std::make_unique<BodyText>();
  out->source_ = std::make_shared<const std::string>(text);
  const auto members = json_members(*out->source_);
  if (!members) { return nullptr; }
  out->members_.reserve(members->size());
  for (const JsonMember& member : *members) {
    out->members_.push_back({.key = std::string(member.key), .text = member.value, .put = {}});
  }
  return out;
}

bool BodyText::has(std::string_view key) const {
  return std::ranges::find(members_, key, &Member::key) != members_.end();
}

std::optional<std::string_view> BodyText::text(std::string_view key) const {
  const auto found = std::ranges::find(members_, key, &Member::key);
  return found == members_.end() || found->put ? std::nullopt : std::optional(found->text);
}

const Json* BodyText::put(std::string_view key) const {
  const auto found = std::ranges::find(members_, key, &Member::key);
  return found == members_.end() || !found->put ? nullptr : &*found->put;
}

void BodyText::put(std::string_view key, Json value) {
  forget();
  const auto found = std::ranges::find(members_, key, &Member::key);
  if (found != members_.end()) {
    found->put = std::move(value);
  } else {
    members_.push_back({.key = std::string(key), .text = {}, .put = std::move(value)});
  }
}

std::shared_ptr<Json> LateBody::value() const {
  if (value_ == nullptr) { value_ = std::make_shared<Json>(make()); }
  return value_;
}

Json BodyText::make() const {
  JsonObject out;
  for (const Member& member : members_) {
    out[member.key] = member.put ? *member.put : parse_python_json(member.text).value_or(Json());
  }
  return out;
}

std::string BodyText::dump(bool python) const {
  std::string out = "{";
  out.reserve(source_->size() + 64);
  for (const Member& member : members_) {
    if (out.size() > 1) { out += python ? ", " : ","; }
    out += python ? dump_python_ordered(Json(member.key)) : dump_json(Json(member.key));
    out += python ? ": " : ":";
    if (!member.put) {
      out += member.text;
    } else {
      out += python ? dump_python_ordered(*member.put) : dump_json(*member.put);
    }
  }
  return out += '}';
}

class Payload::List final : public LateBody {
 public:
  explicit List(std::vector<Payload> items) : items_(std::move(items)) {}
  // What branches share is written once.
  std::string dump(bool python) const override {
    std::string out = "[";
    std::vector<std::pair<std::size_t, std::size_t>> spans;
    for (std::size_t i = 0; i < items_.size(); ++i) {
      if (i > 0) { out += python ? ", " : ","; }
      std::size_t same = 0;
      while (same < i && !items_[same].is_same(items_[i])) { ++same; }
      const std::size_t begin = out.size();
      if (same < i) {
        out.append(out, spans[same].first, spans[same].second);
      } else {
        out += items_[i].dump(python);
      }
      spans.emplace_back(begin, out.size() - begin);
    }
    return out += ']';
  }

 private:
  Json make() const override {
    JsonArray out;
    out.reserve(items_.size());
    for (const Payload& item : items_) { out.push_back(item.get()); }
    return out;
  }
  std::vector<Payload> items_;
};

Payload Payload::list(std::vector<Payload> items) {
  Payload out;
  out.late_ = std::make_shared<List>(std::move(items));
  return out;
}

const Json& Payload::get() const {
  static const Json none;
  if (late_ != nullptr) {
    value_ = late_->value();
    late_ = nullptr;
  }
  return value_ == nullptr ? none : *value_;
}

Json& Payload::own() {
  get();
  if (value_ == nullptr) {
    value_ = std::make_shared<Json>();
  } else if (value_.use_count() > 1) {
    value_ = std::make_shared<Json>(*value_);
  }
  return *value_;
}

void Payload::set(Json value) {
  late_ = nullptr;
  if (value_ != nullptr && value_.use_count() == 1) {
    *value_ = std::move(value);
  } else {
    value_ = std::make_shared<Json>(std::move(value));
  }
}

BodyText& Payload::own_text() {
  if (late_.use_count() > 1) { late_ = std::make_shared<BodyText>(*text()); }
  return *static_cast<BodyText*>(late_.get());
}

std::string Payload::dump(bool python) const {
  if (late_ != nullptr) { return late_->dump(python); }
  return python ? dump_python_ordered(get()) : dump_json(get());
}

std::string random_event_id() {
  static thread_local std::mt19937_64 random{std::random_device{}()};
  std::string out(32, '4');  // the thirteenth stays
  for (std::size_t at = 0; at < out.size();) {
    for (std::uint64_t bits = random(), i = 0; i < 16; ++i, bits >>= 4U, ++at) {
      if (at != 12) { out[at] = "0123456789abcdef"[bits & 15U]; }
    }
  }
  return out;
}

Error needs_python(const StepSite& site, std::string why) {
  return Error{.kind = ErrorKind::unsupported,
               .message = "step " + quote(site.plan.name) + " runs in Python: " + std::move(why),
               .field = "graph.steps." + site.plan.name,
               .code = "NeedsPython"};
}

Result<Paths> Paths::of(const StepSite& site) {
  Paths out;
  const auto split = [&](std::string_view field, std::vector<std::string>& parts) -> Result<void> {
    std::string_view text = string_in(site.spec, field);
    while (!text.empty()) {
      const std::size_t dot = text.find('.');
      parts.emplace_back(text.substr(0, dot));
      if (dot == std::string_view::npos) { break; }
      text.remove_prefix(dot + 1);
    }
    return {};
  };
  METIER_CHECK(split("input_path", out.input));
  METIER_CHECK(split("result_path", out.result));
  return out;
}

namespace {

// The value at names that begin at `from`; null when a member is missing.
std::expected<const Json*, Raised> follow(const std::vector<std::string>& names, std::size_t from,
                                          const Json& body) {
  static const Json none;
  const Json* at = &body;
  for (std::size_t i = from; i < names.size(); ++i) {
    if (at->is_null()) { return &none; }
    if (const auto* object = at->if_object()) {
      at = object->if_contains(names[i]);
      if (at == nullptr) { return &none; }
      continue;
    }
    if (at->is_array() || at->is_string()) {
      return std::unexpected(Raised{
          "TypeError", at->is_string() ? "string indices must be integers, not 'str'"
                                       : "list indices must be integers or slices, not str"});
    }
    return std::unexpected(
        Raised{"TypeError", fmt::format("'{}' object is not subscriptable", python_type(*at))});
  }
  return at;
}

}  // namespace

std::expected<const Json*, Raised> Paths::read(const Payload& body, Json& room) const {
  const BodyText* text = input.empty() ? nullptr : body.text();
  if (text == nullptr) { return follow(input, 0, body.get()); }
  static const Json none;
  if (const Json* put = text->put(input[0])) { return follow(input, 1, *put); }
  auto found = text->text(input[0]);
  if (!found) { return &none; }
  std::size_t at = 1;
  found =
      descend(*found, at, input.size(), [&](std::size_t i) { return std::string_view(input[i]); });
  if (!found) { return &none; }
  room = parse_python_json(*found).value_or(Json());
  return follow(input, at, room);
}

std::expected<void, Raised> Paths::write(Payload& body, Json value) const {
  if (result.size() == 1 && body.text() != nullptr && body.text()->full()) {
    body.own_text().put(result[0], std::move(value));
    return {};
  }
  if (result.empty() || !is_true(body.get())) {
    body.set(std::move(value));
    return {};
  }
  Json* at = &body.own();
  for (std::size_t i = 0; i < result.size(); ++i) {
    if (!at->is_object()) {
      return std::unexpected(
          Raised{"TypeError",
                 fmt::format("'{}' object does not support item assignment", python_type(*at))});
    }
    Json& next = at->get_object()[result[i]];
    if (i + 1 == result.size()) {
      next = std::move(value);
    } else if (next.is_null()) {
      next = JsonObject{};
    }
    at = &next;
  }
  return {};
}

Result<Expression> expression_of(const StepSite& site, std::string_view text) {
  if (!text.starts_with('(') || !text.ends_with(')')) {
    return fail(needs_python(site, quote(text) + " is a name of the user's code"));
  }
  auto made = Expression::compile(text);
  if (!made) { return fail(needs_python(site, made.error().message)); }
  return made;
}

namespace {

class MapStep final : public NativeStep {
 public:
  MapStep(Paths paths, Expression expression)
      : paths_(std::move(paths)), expression_(std::move(expression)) {}
  bool reads_part() const override { return !paths_.input.empty(); }
  StepResult run(std::unique_ptr<NativeEvent>& event, StepOutput&) override {
    Json room;
    const auto input = paths_.read(event->body, room);
    if (!input) { return std::unexpected(input.error()); }
    auto value = expression_.evaluate({.event = **input});
    if (!value) { return std::unexpected(std::move(value.error())); }
    event->raw = false;
    if (auto written = paths_.write(event->body, std::move(*value)); !written) {
      return std::unexpected(std::move(written.error()));
    }
    return StepDone::next;
  }

 private:
  Paths paths_;
  Expression expression_;
};

class PassStep final : public NativeStep {
 public:
  StepResult run(std::unique_ptr<NativeEvent>&, StepOutput&) override { return StepDone::next; }
};

}  // namespace

Result<std::unique_ptr<NativeStep>> make_native_step(const StepSite& site) {
  for (const char* field : {"timeout", "retries", "max_in_flight", "max_queue"}) {
    if (site.spec.contains(field)) {
      return fail(needs_python(site, std::string("it has ") + field));
    }
  }
  const Json* full = site.spec.if_contains("full_event");
  if (full != nullptr && full->is_bool() && full->get_bool()) {
    return fail(needs_python(site, "it is given the whole event"));
  }
  if (site.plan.kind == StepKind::queue) {
    if (!string_in(site.spec, "path").empty()) {
      return fail(needs_python(site, "it writes a stream"));
    }
    return std::make_unique<PassStep>();
  }
  const std::string_view handler = string_in(site.spec, "handler");
  const std::string_view class_name = string_in(site.spec, "class_name");
  if (site.plan.kind == StepKind::router) { return make_native_router(site); }
  if (class_name.empty()) {
    if (handler.contains(".so:")) { return make_library_step(site, handler); }
    METIER_TRY(expression, expression_of(site, handler));
    METIER_TRY(paths, Paths::of(site));
    if (expression.is_event() && paths.input.empty() && paths.result.empty()) {
      return std::make_unique<PassStep>();
    }
    return std::make_unique<MapStep>(std::move(paths), std::move(expression));
  }
  if (!handler.empty()) { return fail(needs_python(site, "it is a method of a class")); }
  return make_storey_step(site, class_name);
}

}  // namespace metier::serving
