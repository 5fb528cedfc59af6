#include "serving/native_windows.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <list>
#include <map>
#include <unordered_map>

#include "serving/python_value.h"

namespace metier::serving {
namespace {

constexpr std::array<std::string_view, 10> kOperations = {
    "count", "sum", "sqr", "max", "min", "first", "last", "avg", "stdvar", "stddev"};

std::optional<std::int64_t> seconds_of(std::string_view text) {
  if (text.size() < 2 || text.size() > 10) { return std::nullopt; }
  std::int64_t number = 0;
  for (const char c : text.substr(0, text.size() - 1)) {
    if (c < '0' || c > '9') { return std::nullopt; }
    number = number * 10 + (c - '0');
  }
  switch (text.back()) {
    case 's': break;
    case 'm': number *= 60; break;
    case 'h': number *= 3600; break;
    case 'd': number *= 86400; break;
    default: return std::nullopt;
  }
  return number > 0 ? std::optional(number) : std::nullopt;
}

struct Bucket {
  std::int64_t count = 0;
  double total = 0, squares = 0;
  double least = std::numeric_limits<double>::infinity(),
         most = -std::numeric_limits<double>::infinity();
  double first_at = std::numeric_limits<double>::infinity(),
         last_at = -std::numeric_limits<double>::infinity();
  double first = 0, last = 0;
  void add(double when, double value) {
    ++count;
    total += value;
    squares += value * value;
    least = std::min(least, value);
    most = std::max(most, value);
    if (when < first_at) { first_at = when, first = value; }
    if (when >= last_at) { last_at = when, last = value; }
  }
  void add(const Bucket& other) {
    count += other.count;
    total += other.total;
    squares += other.squares;
    least = std::min(least, other.least);
    most = std::max(most, other.most);
    if (other.first_at < first_at) { first_at = other.first_at, first = other.first; }
    if (other.last_at >= last_at) { last_at = other.last_at, last = other.last; }
  }
  Json value(std::string_view operation) const {
    if (operation == "count") { return count; }
    if (count == 0) { return std::nan(""); }
    const double n = static_cast<double>(count);
    if (operation == "sum") { return total; }
    if (operation == "sqr") { return squares; }
    if (operation == "avg") { return total / n; }
    if (operation == "max") { return most; }
    if (operation == "min") { return least; }
    if (operation == "first") { return first; }
    if (operation == "last") { return last; }
    const double variance =
        count > 1 ? std::max(squares - total * total / n, 0.0) / (n - 1) : std::nan("");
    return operation == "stdvar" || std::isnan(variance) ? variance : std::sqrt(variance);
  }
};

struct Feature {
  std::string name, column;
  std::vector<std::string> operations;
  std::vector<std::pair<std::string, std::int64_t>> windows;
  std::int64_t period = 1, longest = 1;
  bool fixed = false;
};

std::vector<std::string> list_of(const JsonObject& spec, std::string_view a, std::string_view b) {
  const Json* value = spec.if_contains(a);
  if (value == nullptr) { value = spec.if_contains(b); }
  std::vector<std::string> out;
  if (value != nullptr && value->is_string()) { out.emplace_back(value->get_string()); }
  for (const Json& item :
       value != nullptr && value->is_array() ? value->get_array() : JsonArray()) {
    out.push_back(str(item));
  }
  return out;
}

Result<Feature> feature_of(const StepSite& site, const JsonObject& spec) {
  const auto wrong = [&](std::string message) {
    return fail(invalid("graph.steps." + site.plan.name, "AggregateByKey: " + std::move(message)));
  };
  if (spec.contains("aggr_filter")) { return fail(needs_python(site, "aggr_filter")); }
  Feature out;
  out.name = string_in(spec, "name");
  out.column = string_in(spec, "column", string_in(spec, "field"));
  out.operations = list_of(spec, "operations", "aggr");
  std::string type(string_in(spec, "type"));
  std::ranges::transform(type, type.begin(), [](char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
  });
  out.fixed = type == "fixed";
  std::int64_t least = std::numeric_limits<std::int64_t>::max();
  for (const std::string& text : list_of(spec, "windows", "windows")) {
    const auto seconds = seconds_of(text);
    if (!seconds) {
      return wrong("'" + text + "' is no window; write a number and s, m, h or d, such as 10m");
    }
    out.windows.emplace_back(text, *seconds);
    least = std::min(least, *seconds);
    out.longest = std::max(out.longest, *seconds);
  }
  if (out.name.empty() || out.column.empty() || out.operations.empty() || out.windows.empty()) {
    return wrong("an aggregate needs name, column, operations and windows");
  }
  for (const std::string& operation : out.operations) {
    if (std::ranges::find(kOperations, operation) == kOperations.end()) {
      return wrong("operation '" + operation +
                   "' is unknown; known: " + fmt::format("{}", fmt::join(kOperations, " ")));
    }
  }
  const std::string period(string_in(spec, "period"));
  out.period =
      period.empty() ? std::max<std::int64_t>(least / 2, 1) : seconds_of(period).value_or(0);
  if (out.period == 0) {
    return wrong("'" + period + "' is no window; write a number and s, m, h or d, such as 10m");
  }
  for (const auto& [text, seconds] : out.windows) {
    if (seconds % out.period != 0) {
      return wrong(
          fmt::format("the period of {} s does not divide the window {}", out.period, text));
    }
  }
  return out;
}

class AggregateByKey final : public NativeStep {
 public:
  AggregateByKey(std::vector<Feature> features, std::string key, std::string time, std::size_t most)
      : features_(std::move(features)), key_(std::move(key)), time_(std::move(time)), most_(most) {}

  StepResult run(std::unique_ptr<NativeEvent>& event, StepOutput&) override {
    if (!event->body.get().is_object()) {
      return std::unexpected(Raised{"TypeError", fmt::format("'{}' object is not subscriptable",
                                                             python_type(event->body.get()))});
    }
    JsonObject& body = event->body.own().get_object();
    const auto when = time_of(*event, body);
    if (!when) { return std::unexpected(when.error()); }
    Json key(event->key);
    if (!key_.empty()) {
      const Json* found = body.if_contains(key_);
      if (found == nullptr) { return std::unexpected(Raised{"KeyError", repr(Json(key_))}); }
      key = *found;
    }
    Kept& kept = kept_of(dump_json(key));
    for (std::size_t i = 0; i < features_.size(); ++i) {
      if (auto raised = update(features_[i], kept.buckets[i], body, *when)) {
        return std::unexpected(*raised);
      }
    }
    return StepDone::next;
  }

 private:
  using Buckets = std::map<std::int64_t, Bucket>;
  struct Kept {
    std::vector<Buckets> buckets;
    std::list<std::string>::iterator used;
  };

  Kept& kept_of(const std::string& key) {
    auto found = kept_.find(key);
    if (found != kept_.end()) {
      used_.splice(used_.end(), used_, found->second.used);
      return found->second;
    }
    if (kept_.size() >= most_) {  // the one that was not seen for the longest time
      kept_.erase(used_.front());
      used_.pop_front();
    }
    used_.push_back(key);
    return kept_.emplace(key, Kept{std::vector<Buckets>(features_.size()), std::prev(used_.end())})
        .first->second;
  }

  static std::optional<Raised> update(const Feature& feature, Buckets& buckets, JsonObject& body,
                                      double when) {
    const auto now =
        static_cast<std::int64_t>(std::floor(when / static_cast<double>(feature.period)));
    const Json* value = body.if_contains(feature.column);
    if (value != nullptr && !value->is_null()) {
      const auto number =
          value->is_string() ? parsed_float(trimmed(value->get_string())) : real(*value);
      if (!number) {
        return value->is_string()
                   ? Raised{"ValueError", "could not convert string to float: " + repr(*value)}
                   : Raised{
                         "TypeError",
                         fmt::format("float() argument must be a string or a real number, not '{}'",
                                     python_type(*value))};
      }
      const auto [at, fresh] = buckets.try_emplace(now);
      if (fresh) {
        buckets.erase(buckets.begin(), buckets.upper_bound(now - feature.longest / feature.period));
      }
      buckets[now].add(when, *number);
    }
    for (const auto& [text, seconds] : feature.windows) {
      const std::int64_t first =
          feature.fixed
              ? static_cast<std::int64_t>(std::floor(when / static_cast<double>(seconds))) *
                    seconds / feature.period
              : now - seconds / feature.period + 1;
      Bucket sum;
      for (auto at = buckets.lower_bound(first); at != buckets.end() && at->first <= now; ++at) {
        sum.add(at->second);
      }
      for (const std::string& operation : feature.operations) {
        body[feature.name + "_" + operation + "_" + text] = sum.value(operation);
      }
    }
    return std::nullopt;
  }

  std::expected<double, Raised> time_of(const NativeEvent& event, const JsonObject& body) const {
    const Json* value = time_.empty() ? nullptr : body.if_contains(time_);
    if (value == nullptr || value->is_null() ||
        (value->is_string() && value->get_string().empty())) {
      return static_cast<double>(event.timestamp_us) / 1e6;
    }
    if (const auto number = real(*value)) { return *number; }
    int y = 0, mo = 0, d = 0, h = 0, mi = 0, oh = 0, om = 0;
    double s = 0;
    char sign = '+';
    const std::string text = str(*value);
    const int found = std::sscanf(text.c_str(), "%4d-%2d-%2d%*1[T ]%2d:%2d:%lf%c%2d:%2d", &y, &mo,
                                  &d, &h, &mi, &s, &sign, &oh, &om);
    if (found != 3 && found < 5) {
      return std::unexpected(Raised{"ValueError", "Invalid isoformat string: " + repr(*value)});
    }
    const std::chrono::sys_days day = std::chrono::year(y) / mo / d;
    double out =
        static_cast<double>(day.time_since_epoch().count()) * 86400.0 + h * 3600.0 + mi * 60.0 + s;
    if (found == 9) { out -= (sign == '-' ? -1 : 1) * (oh * 3600.0 + om * 60.0); }
    return out;
  }

  std::vector<Feature> features_;
  std::string key_, time_;
  std::size_t most_;
  std::unordered_map<std::string, Kept> kept_;
  std::list<std::string> used_;
};

}  // namespace

Result<std::unique_ptr<NativeStep>> make_aggregate_step(const StepSite& site) {
  const JsonObject* args = object_in(site.spec, "class_args");
  const JsonArray* aggregates = args == nullptr ? nullptr : array_in(*args, "aggregates");
  if (aggregates == nullptr || aggregates->empty()) {
    return fail(invalid("graph.steps." + site.plan.name, "AggregateByKey: aggregates is empty"));
  }
  for (const auto& member : *args) {
    static constexpr std::array<std::string_view, 5> kKnown = {"aggregates", "table", "key_field",
                                                               "time_field", "max_keys"};
    const bool known = std::ranges::find(kKnown, std::string_view(member.key())) != kKnown.end();
    if (!known && !member.value().is_null()) {
      return fail(needs_python(site, "its argument " + quote(member.key())));
    }
  }
  std::vector<Feature> features;
  for (const Json& aggregate : *aggregates) {
    if (!aggregate.is_object()) { return fail(needs_python(site, "an aggregate that is no dict")); }
    METIER_TRY(feature, feature_of(site, aggregate.get_object()));
    features.push_back(std::move(feature));
  }
  const auto most = int_in(*args, "max_keys").value_or(100'000);
  return std::make_unique<AggregateByKey>(
      std::move(features), std::string(string_in(*args, "key_field")),
      std::string(string_in(*args, "time_field")),
      static_cast<std::size_t>(std::max<std::int64_t>(most, 1)));
}

}  // namespace metier::serving
