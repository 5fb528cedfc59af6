#include "model/nuclio/schema.h"

#include <fmt/format.h>

#include <algorithm>
#include <span>

#include "base/clock.h"
#include "base/cron.h"
#include "base/text.h"
#include "model/nuclio/fields.h"

namespace metier::nuclio {
namespace {

bool absent(const Json& value) {
  return value.is_null() || (value.is_string() && value.get_string().empty()) ||
         (value.is_object() && value.get_object().empty()) ||
         (value.is_array() && value.get_array().empty());
}

// Go's duration, or a number (nanoseconds in Go's JSON; accepted as seconds nowhere).
bool is_duration(const Json& value) {
  if (value.is_int64()) { return value.get_int64() >= 0; }
  return value.is_string() && parse_duration(std::string_view(value.get_string())).has_value();
}

Duration duration_of(const Json& value) {
  if (value.is_int64()) { return Duration(value.get_int64() / 1000); }
  return parse_duration(std::string_view(value.get_string())).value_or(Duration(0));
}

bool is_integer(const Json& value) { return value.is_int64() || value.is_uint64(); }

bool of_type(const Json& value, Type type, std::string_view& wanted) {
  switch (type) {
    case Type::text: wanted = "a text"; return value.is_string();
    case Type::boolean: wanted = "true or false"; return value.is_bool();
    case Type::integer: wanted = "a whole number"; return is_integer(value);
    case Type::number: wanted = "a number"; return value.is_number();
    case Type::duration: wanted = "a duration such as \"30s\""; return is_duration(value);
    case Type::list: wanted = "a list"; return value.is_array();
    case Type::texts:
      wanted = "a list of texts";
      return value.is_array() &&
             std::ranges::all_of(value.get_array(), [](const Json& v) { return v.is_string(); });
    case Type::object: wanted = "an object"; return value.is_object();
    case Type::text_map:
      wanted = "an object of texts";
      return value.is_object() && std::ranges::all_of(value.get_object(), [](const auto& member) {
               return member.value().is_string() || member.value().is_number() ||
                      member.value().is_bool();
             });
    case Type::any: return true;
  }
  return true;
}

void walk(const JsonObject& object, const FieldList& fields, std::string_view at, Review& out) {
  for (const auto& member : object) {
    const std::string path = fmt::format("{}.{}", at, std::string_view(member.key()));
    const Json& value = member.value();
    const Field* field = std::ranges::find(fields, std::string_view(member.key()), &Field::name);
    if (field == fields.end()) {
      if (absent(value)) { continue; }
      std::vector<std::string_view> names;
      for (const Field& known : fields) { names.push_back(known.name); }
      const std::string near = nearest(std::string_view(member.key()), names);
      out.unknown.push_back(invalid(path, "Nuclio's function.yaml has no such field",
                                    near.empty() ? "leave it out" : "did you mean " + near + "?")
                                .coded("UnknownField"));
      continue;
    }
    if (absent(value)) { continue; }
    std::string_view wanted;
    if (!of_type(value, field->type, wanted)) {
      out.wrong.push_back(invalid(path,
                                  fmt::format("expected {}, got {}", wanted, dump_json(value)),
                                  fmt::format("write {}", wanted)));
      continue;
    }
    const bool off = value.is_bool() && !value.get_bool();
    if (field->use == Use::refused && !off) {
      out.refused.push_back(Error{.kind = ErrorKind::unsupported,
                                  .message = fmt::format("not supported: {}", field->why),
                                  .field = path,
                                  .fix = "leave it out",
                                  .code = "Unsupported"});
      continue;
    }
    if (field->use == Use::ignored && !off) {
      out.ignored.push_back({path, std::string(field->why)});
      continue;
    }
    if (field->inside.count == 0) { continue; }
    if (value.is_object()) { walk(value.get_object(), field->inside, path, out); }
    if (value.is_array()) {
      std::size_t index = 0;
      for (const Json& item : value.get_array()) {
        const std::string place = fmt::format("{}[{}]", path, index++);
        if (item.is_object()) {
          walk(item.get_object(), field->inside, place, out);
        } else {
          out.wrong.push_back(invalid(place, "expected an object, got " + dump_json(item)));
        }
      }
    }
  }
}

void refuse(Review& out, std::string field, std::string message, std::string fix) {
  out.refused.push_back(Error{.kind = ErrorKind::unsupported,
                              .message = std::move(message),
                              .field = std::move(field),
                              .fix = std::move(fix),
                              .code = "Unsupported"});
}

std::optional<std::int64_t> number_in(const JsonObject& object, std::string_view key) {
  return int_in(object, key);
}

void at_least(const JsonObject& object, std::string_view key, std::int64_t least, std::int64_t most,
              std::string_view at, Review& out) {
  const auto value = number_in(object, key);
  if (value && (*value < least || *value > most)) {
    out.wrong.push_back(invalid(fmt::format("{}.{}", at, key),
                                fmt::format("{} is out of range", *value),
                                fmt::format("give {} to {}", least, most)));
  }
}

void one_of(const JsonObject& object, std::string_view key,
            std::span<const std::string_view> values, std::string_view at, Review& out) {
  const auto value = string_in(object, key);
  if (value.empty() || std::ranges::find(values, value) != values.end()) { return; }
  out.wrong.push_back(invalid(fmt::format("{}.{}", at, key),
                              quote(value) + " is not one of its values",
                              "give one of: " + join(values)));
}

constexpr std::string_view kServiceTypes[] = {"ClusterIP", "NodePort", "LoadBalancer"};
constexpr std::string_view kAckModes[] = {"disable", "enable", "explicitOnly"};
constexpr std::string_view kSwitch[] = {"enable", "disable"};
constexpr std::string_view kModes[] = {"sync", "async"};
constexpr std::string_view kPolicies[] = {"Allow", "Forbid", "Replace"};
constexpr std::string_view kAllocation[] = {"pool", "static"};

void review_kafka(const JsonObject& trigger, const JsonObject& attributes, std::string_view inside,
                  Review& out) {
  walk(attributes, kKafka, inside, out);
  static constexpr std::string_view kOffsets[] = {"earliest", "latest"};
  static constexpr std::string_view kStrategies[] = {"range", "roundrobin", "sticky"};
  static constexpr std::string_view kFailures[] = {"commit", "retry", "stop"};
  static constexpr std::string_view kMechanisms[] = {"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"};
  one_of(attributes, "initialOffset", kOffsets, inside, out);
  one_of(attributes, "balanceStrategy", kStrategies, inside, out);
  one_of(attributes, "onFailure", kFailures, inside, out);
  const auto missing = [&](std::string_view key) {
    const Json* value = attributes.if_contains(key);
    const std::string annotation = std::string("nuclio.io/kafka-") +
                                   (key == "consumerGroup" ? "consumer-group" : std::string(key));
    const JsonObject* annotations = object_in(trigger, "annotations");
    return (value == nullptr || absent(*value)) &&
           (annotations == nullptr || !annotations->contains(annotation));
  };
  for (const std::string_view key : {"brokers", "topics", "consumerGroup"}) {
    if (!missing(key) || (key == "brokers" && !string_in(trigger, "url").empty())) { continue; }
    out.wrong.push_back(invalid(fmt::format("{}.{}", inside, key), "is not given",
                                "a Kafka trigger needs brokers, topics and a consumerGroup"));
  }
  const JsonObject* sasl = object_in(attributes, "sasl");
  if (sasl != nullptr && bool_in(*sasl, "enable")) {
    const std::string at = fmt::format("{}.sasl", inside);
    one_of(*sasl, "mechanism", kMechanisms, at, out);
    for (const char* key : {"user", "password"}) {
      if (!string_in(*sasl, key).empty() || !string_in(attributes, "secretPath").empty()) {
        continue;
      }
      out.wrong.push_back(invalid(fmt::format("{}.{}", at, key), "is not given",
                                  "sasl.enable needs user and password"));
    }
  }
  const JsonObject* tls = object_in(attributes, "tls");
  const auto least = tls == nullptr ? std::string_view() : string_in(*tls, "minimumVersion");
  if (!least.empty() && least != "1.2") {
    refuse(out, fmt::format("{}.tls.minimumVersion", inside),
           quote(least) + " cannot be asked for: TLS 1.2 is the least", "leave it out");
  }
}

void review_trigger(std::string_view name, const JsonObject& trigger, std::string_view at,
                    std::string_view runtime, Review& out) {
  walk(trigger, kTrigger, at, out);
  const std::string kind(string_in(trigger, "kind"));
  if (kind.empty()) {
    out.wrong.push_back(invalid(fmt::format("{}.kind", at), "the trigger has no kind",
                                "kinds: " + join(trigger_kinds())));
    return;
  }
  if (const auto own = string_in(trigger, "name"); !own.empty() && own != name) {
    out.wrong.push_back(
        invalid(fmt::format("{}.name", at),
                fmt::format("{} is not the trigger's key {}", quote(own), quote(name)),
                "give the same name in both, or leave it out"));
  }
  if (kind != "kafka" && std::ranges::find(trigger_kinds(), kind) == trigger_kinds().end()) {
    refuse(out, fmt::format("{}.kind", at),
           fmt::format("triggers of kind {} are not served here", kind),
           "kinds of trigger that are: " + join(trigger_kinds()));
    return;
  }
  at_least(trigger, "numWorkers", 0, 100'000, at, out);
  at_least(trigger, "maxWorkers", 0, 100'000, at, out);
  one_of(trigger, "explicitAckMode", kAckModes, at, out);
  one_of(trigger, "mode", kModes, at, out);
  const JsonObject none;
  const JsonObject* given = object_in(trigger, "attributes");
  const JsonObject& attributes = given == nullptr ? none : *given;
  const std::string inside = fmt::format("{}.attributes", at);
  one_of(attributes, "workerAllocationMode", kAllocation, inside, out);
  if (const JsonObject* batch = object_in(trigger, "batch")) {
    const std::string place = fmt::format("{}.batch", at);
    one_of(*batch, "mode", kSwitch, place, out);
    at_least(*batch, "batchSize", 1, 100'000, place, out);
  }
  if (const JsonObject* async = object_in(trigger, "async")) {
    at_least(*async, "maxConnectionsNumber", 1, 1000, fmt::format("{}.async", at), out);
  }
  if (string_in(trigger, "mode") == "async" && runtime != "python") {
    out.wrong.push_back(
        invalid(fmt::format("{}.mode", at),
                fmt::format("mode async is for coroutines of Python, the runtime is {}", runtime),
                "leave it out"));
  }
  if (kind == "http") {
    walk(attributes, kHttp, inside, out);
    one_of(attributes, "serviceType", kServiceTypes, inside, out);
    at_least(attributes, "port", 0, 65'535, inside, out);
    at_least(attributes, "maxRequestBodySize", 0, 1LL << 31, inside, out);
  } else if (kind == "cron") {
    walk(attributes, kCron, inside, out);
    one_of(attributes, "concurrencyPolicy", kPolicies, inside, out);
    const bool schedule = !string_in(attributes, "schedule").empty();
    const Json* interval = attributes.if_contains("interval");
    const bool every = interval != nullptr && !absent(*interval);
    if (schedule == every) {
      out.wrong.push_back(invalid(inside,
                                  schedule ? "both schedule and interval are given"
                                           : "neither schedule nor interval is given",
                                  "give exactly one"));
    } else if (schedule) {
      if (auto parsed = CronSchedule::parse(string_in(attributes, "schedule")); !parsed) {
        out.wrong.push_back(std::move(parsed.error()).at(inside));
      }
    } else if (is_duration(*interval) && duration_of(*interval).count() <= 0) {
      out.wrong.push_back(invalid(inside + ".interval", "is no time", "give more than 0"));
    }
  }
  if (kind == "kafka-cluster" || kind == "kafka") {
    review_kafka(trigger, attributes, inside, out);
  }
  if (!is_stream_trigger(kind)) {
    for (const char* key : {"url", "username", "password", "secret", "paths", "partitions"}) {
      const Json* value = trigger.if_contains(key);
      if (value == nullptr || absent(*value)) { continue; }
      out.ignored.push_back({fmt::format("{}.{}", at, key),
                             kind == "http"
                                 ? "the function answers at the address it is given, and "
                                   "asks nobody who they are"
                                 : "ticks come from the clock"});
    }
  }
  const bool acks = string_in(trigger, "explicitAckMode") == "enable" ||
                    string_in(trigger, "explicitAckMode") == "explicitOnly";
  if (acks && !is_stream_trigger(kind)) {
    out.wrong.push_back(invalid(
        fmt::format("{}.explicitAckMode", at),
        fmt::format("a trigger of kind {} has nothing to acknowledge", kind), "leave it out"));
  } else if (acks && string_in(attributes, "workerAllocationMode") == "pool") {
    out.wrong.push_back(invalid(fmt::format("{}.workerAllocationMode", inside),
                                "explicit acknowledgement needs static worker allocation",
                                "write static"));
  }
}

void review_replicas(const JsonObject& spec, std::string_view at, bool streams, bool http,
                     Review& out) {
  for (const auto* key : {"replicas", "minReplicas"}) { at_least(spec, key, 0, 10'000, at, out); }
  at_least(spec, "maxReplicas", 1, 10'000, at, out);
  const auto replicas = number_in(spec, "replicas");
  const auto least = number_in(spec, "minReplicas");
  const auto most = number_in(spec, "maxReplicas");
  if (replicas) { return; }
  if (least && most && *least > *most) {
    out.wrong.push_back(invalid(fmt::format("{}.minReplicas", at),
                                fmt::format("{} is more than maxReplicas {}", *least, *most),
                                "give at most maxReplicas"));
  }
  if (!least || *least != 0) { return; }
  if (!most) {
    out.wrong.push_back(invalid(fmt::format("{}.maxReplicas", at),
                                "minReplicas 0 needs a maxReplicas", "give maxReplicas"));
  }
  if (streams) {
    refuse(out, fmt::format("{}.minReplicas", at),
           "0 with a stream trigger: nobody reads the stream while there is no replica",
           "give minReplicas 1");
  } else if (!http) {
    out.wrong.push_back(
        invalid(fmt::format("{}.minReplicas", at),
                "0 without an HTTP or cron trigger: nothing could wake the function",
                "give minReplicas 1, or add an HTTP trigger"));
  }
}

void review_runtime(const JsonObject& spec, std::string_view at, Review& out) {
  const std::string runtime(string_in(spec, "runtime"));
  if (runtime.empty()) { return; }
  const std::string_view name = runtime_name(runtime);
  static constexpr std::string_view kOurs[] = {"python", "native", "shell", "graph"};
  if (std::ranges::find(kOurs, name) != std::end(kOurs)) { return; }
  static constexpr std::pair<std::string_view, std::string_view> kTheirs[] = {
      {"golang", "Go"},   {"go", "Go"},           {"nodejs", "Node.js"}, {"java", "Java"},
      {"dotnet", ".NET"}, {"dotnetcore", ".NET"}, {"ruby", "Ruby"}};
  const auto known =
      std::ranges::find(kTheirs, name, &std::pair<std::string_view, std::string_view>::first);
  if (known != std::end(kTheirs)) {
    refuse(out, fmt::format("{}.runtime", at),
           fmt::format("handlers written in {} do not run here ({})", known->second, runtime),
           "runtimes: python, native (a .so with METIER_EVENT_HANDLER), shell");
  } else {
    out.wrong.push_back(invalid(fmt::format("{}.runtime", at), quote(runtime) + " is no runtime",
                                "runtimes: python, native, shell"));
  }
}

void review_source(const JsonObject& spec, std::string_view at, Review& out) {
  const JsonObject* build = object_in(spec, "build");
  if (build == nullptr) { return; }
  const std::string type(string_in(*build, "codeEntryType"));
  static constexpr std::string_view kTypes[] = {"archive", "git", "github",
                                                "image",   "s3",  "sourceCode"};
  one_of(*build, "codeEntryType", kTypes, fmt::format("{}.build", at), out);
  if (!string_in(*build, "functionSourceCode").empty()) { return; }
  if (type == "image") {
    refuse(out, fmt::format("{}.build.codeEntryType", at),
           "the code of an image cannot be run: images are environments here", "give the source");
  } else if (type == "archive" || type == "git" || type == "github" || type == "s3") {
    refuse(out, fmt::format("{}.build.codeEntryType", at),
           fmt::format("sources of type {} are not fetched for functions yet", type),
           "fetch it and deploy the file: metier deploy FILE");
  }
}

}  // namespace

const std::vector<std::string_view>& trigger_kinds() {
  static const std::vector<std::string_view> kinds{"http", "cron", "kafka-cluster"};
  return kinds;
}

bool is_stream_trigger(std::string_view kind) {
  return kind == "kafka-cluster" || kind == "kafka" || kind == "v3ioStream" || kind == "kinesis";
}

std::string_view runtime_name(std::string_view runtime) {
  return runtime.substr(0, runtime.find(':'));
}

Result<void> Review::verdict(bool file) const {
  for (const auto* list : {&wrong, &refused}) {
    if (!list->empty()) { return fail(list->front()); }
  }
  if (file && !unknown.empty()) { return fail(unknown.front()); }
  return {};
}

Review review_spec(const JsonObject& spec, std::string_view at) {
  Review out;
  walk(spec, kSpec, at, out);
  review_runtime(spec, at, out);
  review_source(spec, at, out);
  const std::string runtime(runtime_name(string_in(spec, "runtime", "python")));
  bool streams = false;
  int https = 0;
  bool wakes = !bool_in(spec, "disableDefaultHTTPTrigger");
  const JsonObject* triggers = object_in(spec, "triggers");
  for (const auto& member : triggers == nullptr ? JsonObject{} : *triggers) {
    const std::string place = fmt::format("{}.triggers.{}", at, std::string_view(member.key()));
    if (absent(member.value())) { continue; }
    if (!member.value().is_object()) {
      out.wrong.push_back(invalid(place, "expected an object, got " + dump_json(member.value())));
      continue;
    }
    const JsonObject& trigger = member.value().get_object();
    review_trigger(member.key(), trigger, place, runtime, out);
    if (bool_in(trigger, "disabled")) { continue; }
    const auto kind = string_in(trigger, "kind");
    streams = streams || is_stream_trigger(kind);
    wakes = wakes || kind == "http" || kind == "cron";
    if (kind == "http" && ++https == 2) {
      out.wrong.push_back(invalid(fmt::format("{}.triggers", at),
                                  "a function has one HTTP trigger at most", "leave one out"));
    }
  }
  review_replicas(spec, at, streams, wakes, out);
  return out;
}

Review review_document(const JsonObject& document) {
  Review out;
  static constexpr Field kTop[] = {{"apiVersion"},
                                   {"kind"},
                                   {"metadata", Type::object},
                                   {"meta", Type::object},
                                   {"spec", Type::object},
                                   {"status", Type::any}};
  walk(document, kTop, "", out);
  for (Error& error : out.unknown) { error.field.erase(0, 1); }
  for (Error& error : out.wrong) { error.field.erase(0, 1); }
  const auto version = string_in(document, "apiVersion");
  if (!version.empty() && version != "nuclio.io/v1beta1" && version != "nuclio.io/v1") {
    out.wrong.push_back(
        invalid("apiVersion", quote(version) + " is not Nuclio's", "write nuclio.io/v1beta1"));
  }
  for (const char* key : {"metadata", "meta"}) {
    if (const JsonObject* metadata = object_in(document, key)) {
      walk(*metadata, kMetadata, key, out);
    }
  }
  if (const JsonObject* spec = object_in(document, "spec")) {
    Review inside = review_spec(*spec);
    const auto take = [](auto& into, auto& from) {
      into.insert(into.end(), std::make_move_iterator(from.begin()),
                  std::make_move_iterator(from.end()));
    };
    take(out.wrong, inside.wrong);
    take(out.refused, inside.refused);
    take(out.unknown, inside.unknown);
    take(out.ignored, inside.ignored);
  }
  return out;
}

}  // namespace metier::nuclio
