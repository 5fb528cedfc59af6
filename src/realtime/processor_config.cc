#include "realtime/processor_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <functional>

#include "base/text.h"

namespace metier::realtime {
namespace {

using std::chrono::milliseconds;

// Reads the fields of one object: each reader names what it knows, the rest is refused.
class Fields final {
 public:
  Fields(const JsonObject& object, std::string path) : object_(object), path_(std::move(path)) {}

  std::string at(std::string_view key) const {
    return path_.empty() ? std::string(key) : path_ + "." + std::string(key);
  }
  void text(std::string_view key, std::string& out) {
    if (const Json* value = find(key)) {
      if (value->is_string()) {
        out = std::string(std::string_view(value->get_string()));
      } else {
        wrong(key, *value, "a text");
      }
    }
  }
  void boolean(std::string_view key, bool& out) {
    if (const Json* value = find(key)) {
      if (value->is_bool()) {
        out = value->get_bool();
      } else {
        wrong(key, *value, "true or false");
      }
    }
  }
  template <class T>
  void integer(std::string_view key, T& out, std::int64_t least, std::int64_t most) {
    if (const Json* value = find(key)) {
      std::int64_t number = 0;
      if (value->is_int64()) {
        number = value->get_int64();
      } else {
        return wrong(key, *value, "a whole number");
      }
      if (number < least || number > most) {
        return refuse(invalid(at(key), fmt::format("{} is out of range", number),
                              fmt::format("give {} to {}", least, most)));
      }
      out = static_cast<T>(number);
    }
  }
  void duration(std::string_view key, milliseconds& out) {
    const Json* value = find(key);
    if (value == nullptr) { return; }
    if (value->is_string()) {
      if (value->get_string().empty()) { return; }
      auto parsed = parse_duration(std::string_view(value->get_string()));
      if (parsed) {
        out = *parsed;
      } else {
        refuse(std::move(parsed.error()).at(at(key)));
      }
    } else {
      wrong(key, *value, "a duration such as \"10s\"");
    }
  }
  void object(std::string_view key, JsonObject& out) {
    if (const Json* value = find(key)) {
      if (value->is_object()) {
        out = value->get_object();
      } else {
        wrong(key, *value, "an object");
      }
    }
  }
  void texts(std::string_view key, std::map<std::string, std::string>& out) {
    JsonObject object_value;
    object(key, object_value);
    for (const auto& entry : object_value) {
      if (!entry.value().is_string()) {
        wrong(fmt::format("{}.{}", key, std::string_view(entry.key())), entry.value(), "a text");
        return;
      }
      out.emplace(entry.key(), std::string_view(entry.value().get_string()));
    }
  }
  const Json* find(std::string_view key) {
    known_.push_back(key);
    const Json* value = object_.if_contains(key);
    return value == nullptr || value->is_null() ? nullptr : value;
  }
  void refuse(Error error) {
    if (!error_) { error_ = std::move(error); }
  }
  void wrong(std::string_view key, const Json& value, std::string_view wanted) {
    refuse(invalid(at(key),
                   fmt::format("{} is no {}", type_name(value),
                               wanted.substr(wanted.starts_with("a ") ? 2 : 0)),
                   fmt::format("give {}", wanted)));
  }
  // The first error, or the first unknown field.
  Result<void> finish() {
    if (error_) { return fail(std::move(*error_)); }
    for (const auto& entry : object_) {
      if (std::ranges::find(known_, std::string_view(entry.key())) == known_.end()) {
        const std::string near = nearest(std::string_view(entry.key()), known_);
        return fail(invalid(at(entry.key()), "there is no such field",
                            near.empty() ? "leave it out" : "did you mean " + near + "?"));
      }
    }
    return {};
  }

 private:
  const JsonObject& object_;
  std::string path_;
  std::vector<std::string_view> known_;
  std::optional<Error> error_;
};

Result<ListenConfig> read_listen(const Json& json, const std::string& path) {
  if (!json.is_object()) {
    return fail(invalid(path, "is no object", "give {\"address\": \"127.0.0.1:8080\"}"));
  }
  ListenConfig listen;
  Fields fields(json.get_object(), path);
  fields.integer("fd", listen.fd, 3, 1 << 20);
  fields.text("gate", listen.gate);
  fields.text("name", listen.name);
  fields.text("address", listen.address);
  METIER_CHECK(fields.finish());
  const int given =
      (listen.fd >= 0 ? 1 : 0) + (listen.gate.empty() ? 0 : 1) + (listen.address.empty() ? 0 : 1);
  if (given != 1) {
    return fail(invalid(path, fmt::format("{} of fd, gate and address are given", given),
                        "give exactly one"));
  }
  if (!listen.gate.empty() && listen.name.empty()) {
    return fail(
        invalid(path + ".name", "is empty", "name the Service whose socket the gate holds"));
  }
  return listen;
}

void read_listen_at(Fields& fields, std::string_view key, ListenConfig& out) {
  const Json* value = fields.find(key);
  if (value == nullptr) { return; }
  auto listen = read_listen(*value, fields.at(key));
  if (listen) {
    out = std::move(*listen);
  } else {
    fields.refuse(std::move(listen.error()));
  }
}

Result<BatchConfig> read_batch(const JsonObject& object, const std::string& path) {
  BatchConfig batch;
  std::string mode = "disable";
  Fields fields(object, path);
  fields.text("mode", mode);
  fields.integer("batchSize", batch.size, 1, 100'000);
  fields.duration("timeout", batch.timeout);
  METIER_CHECK(fields.finish());
  if (mode != "enable" && mode != "disable") {
    return fail(invalid(path + ".mode", quote(mode) + " is no batch mode", "enable or disable"));
  }
  batch.enabled = mode == "enable";
  return batch;
}

Result<TriggerConfig> read_trigger(const JsonObject& object, const std::string& path) {
  TriggerConfig trigger;
  Fields fields(object, path);
  fields.text("name", trigger.name);
  fields.text("kind", trigger.kind);
  std::string ignored_class;
  fields.text("class", ignored_class);
  fields.boolean("disabled", trigger.disabled);
  int max_workers = 0;
  fields.integer("maxWorkers", max_workers, 0, 100'000);
  if (max_workers > 0) { trigger.num_workers = max_workers; }
  fields.integer("numWorkers", trigger.num_workers, 1, 100'000);
  std::int64_t availability = 10'000;
  fields.integer("workerAvailabilityTimeoutMilliseconds", availability, -1'000'000'000,
                 1'000'000'000);
  if (availability >= 0) { trigger.worker_availability_timeout = milliseconds(availability); }
  fields.duration("workerTerminationTimeout", trigger.worker_termination_timeout);
  fields.text("workerAllocatorName", trigger.worker_allocator_name);
  fields.text("mode", trigger.mode);
  JsonObject async;
  fields.object("async", async);
  JsonObject batch;
  fields.object("batch", batch);
  std::string ack = "disable";
  fields.text("explicitAckMode", ack);
  fields.duration("waitExplicitAckDuringRebalanceTimeout",
                  trigger.wait_explicit_ack_during_rebalance);
  fields.integer("queueDepth", trigger.queue_depth, 0, 64);
  fields.integer("queueSize", trigger.queue_size, 0, 1'000'000);
  fields.text("url", trigger.url);
  fields.text("username", trigger.username);
  fields.text("password", trigger.password);
  fields.text("secret", trigger.secret);
  if (const Json* paths = fields.find("paths")) {
    if (!paths->is_array()) {
      fields.wrong("paths", *paths, "a list of texts");
    } else {
      for (const Json& entry : paths->get_array()) {
        if (!entry.is_string()) {
          fields.wrong("paths", entry, "a text");
          break;
        }
        trigger.paths.emplace_back(std::string_view(entry.get_string()));
      }
    }
  }
  read_listen_at(fields, "listen", trigger.listen);
  fields.object("attributes", trigger.attributes);
  fields.object("annotations", trigger.annotations);
  METIER_CHECK(fields.finish());
  if (trigger.name.empty()) {
    return fail(invalid(path + ".name", "is empty", "name the trigger"));
  }
  if (trigger.kind.empty()) {
    return fail(invalid(path + ".kind", "is empty", "http, cron, kafka-cluster …"));
  }
  if (trigger.mode.empty()) { trigger.mode = "sync"; }
  if (trigger.mode != "sync" && trigger.mode != "async") {
    return fail(invalid(path + ".mode", quote(trigger.mode) + " is no mode", "sync or async"));
  }
  Fields async_fields(async, path + ".async");
  async_fields.integer("maxConnectionsNumber", trigger.max_connections, 1, 1000);
  METIER_CHECK(async_fields.finish());
  METIER_TRY(batch_config, read_batch(batch, path + ".batch"));
  trigger.batch = batch_config;
  if (trigger.batch.enabled && trigger.mode == "async") {
    return fail(
        invalid(path + ".batch", "cannot be used with mode async", "leave one of them out"));
  }
  if (ack == "enable") {
    trigger.explicit_ack = ExplicitAck::enable;
  } else if (ack == "explicitOnly") {
    trigger.explicit_ack = ExplicitAck::explicit_only;
  } else if (!ack.empty() && ack != "disable") {
    return fail(invalid(path + ".explicitAckMode", quote(ack) + " is no mode",
                        "enable, disable or explicitOnly"));
  }
  return trigger;
}

Result<void> read_env(const Json& json, std::vector<std::pair<std::string, std::string>>& out) {
  if (!json.is_array()) {
    return fail(invalid("env", "is no list", "give [{\"name\": …, \"value\": …}]"));
  }
  for (std::size_t i = 0; i < json.get_array().size(); ++i) {
    const Json& entry = json.get_array()[i];
    const std::string path = fmt::format("env[{}]", i);
    if (!entry.is_object()) {
      return fail(invalid(path, "is no object", "give {\"name\": …, \"value\": …}"));
    }
    std::string name;
    std::string value;
    Fields fields(entry.get_object(), path);
    fields.text("name", name);
    fields.text("value", value);
    METIER_CHECK(fields.finish());
    if (name.empty() || name.find('=') != std::string::npos ||
        name.find('\0') != std::string::npos || value.find('\0') != std::string::npos) {
      return fail(invalid(path, quote(name) + " cannot be set in an environment",
                          "a name without = and NUL"));
    }
    out.emplace_back(std::move(name), std::move(value));
  }
  return {};
}

JsonObject dump_listen(const ListenConfig& listen) {
  JsonObject object;
  if (listen.fd >= 0) { object["fd"] = listen.fd; }
  if (!listen.gate.empty()) { object["gate"] = listen.gate; }
  if (!listen.name.empty()) { object["name"] = listen.name; }
  if (!listen.address.empty()) { object["address"] = listen.address; }
  return object;
}

std::string duration_text(milliseconds value) { return fmt::format("{}ms", value.count()); }

void put(JsonObject& object, std::string_view key, const std::string& value) {
  if (!value.empty()) { object[key] = value; }
}

JsonObject dump_trigger(const TriggerConfig& trigger) {
  JsonObject object;
  object["name"] = trigger.name;
  object["kind"] = trigger.kind;
  if (trigger.disabled) { object["disabled"] = true; }
  object["numWorkers"] = trigger.num_workers;
  object["workerAvailabilityTimeoutMilliseconds"] = trigger.worker_availability_timeout.count();
  object["workerTerminationTimeout"] = duration_text(trigger.worker_termination_timeout);
  put(object, "workerAllocatorName", trigger.worker_allocator_name);
  if (trigger.mode != "sync") {
    object["mode"] = trigger.mode;
    object["async"] = {{"maxConnectionsNumber", trigger.max_connections}};
  }
  if (trigger.batch.enabled) {
    object["batch"] = {{"mode", "enable"},
                       {"batchSize", trigger.batch.size},
                       {"timeout", duration_text(trigger.batch.timeout)}};
  }
  if (trigger.explicit_ack != ExplicitAck::disable) {
    object["explicitAckMode"] =
        trigger.explicit_ack == ExplicitAck::enable ? "enable" : "explicitOnly";
  }
  object["waitExplicitAckDuringRebalanceTimeout"] =
      duration_text(trigger.wait_explicit_ack_during_rebalance);
  if (trigger.queue_depth != 0) { object["queueDepth"] = trigger.queue_depth; }
  if (trigger.queue_size != 1024) { object["queueSize"] = trigger.queue_size; }
  put(object, "url", trigger.url);
  put(object, "username", trigger.username);
  put(object, "password", trigger.password);
  put(object, "secret", trigger.secret);
  if (!trigger.paths.empty()) {
    JsonArray paths;
    for (const std::string& path : trigger.paths) { paths.emplace_back(path); }
    object["paths"] = std::move(paths);
  }
  if (!trigger.listen.none()) { object["listen"] = dump_listen(trigger.listen); }
  if (!trigger.attributes.empty()) { object["attributes"] = trigger.attributes; }
  if (!trigger.annotations.empty()) { object["annotations"] = trigger.annotations; }
  return object;
}

JsonObject dump_texts(const std::map<std::string, std::string>& texts) {
  JsonObject object;
  for (const auto& [key, value] : texts) { object[key] = value; }
  return object;
}

}  // namespace

Result<milliseconds> parse_duration(std::string_view text) {
  const auto bad = [&] {
    return fail(
        invalid("", quote(text) + " is no duration", "such as \"10s\", \"1m30s\", \"250ms\""));
  };
  struct Unit {
    std::string_view name;
    double ms;
  };
  static constexpr std::array<Unit, 7> kUnits{{{"ns", 1e-6},
                                               {"us", 1e-3},
                                               {"µs", 1e-3},
                                               {"ms", 1},
                                               {"s", 1000},
                                               {"m", 60'000},
                                               {"h", 3'600'000}}};
  std::string_view rest = text;
  if (rest.empty() || rest.size() > 64) { return bad(); }
  double total = 0;
  bool only_number = true;
  while (!rest.empty()) {
    double number = 0;
    if (rest.front() < '0' || rest.front() > '9') {
      if (rest.front() != '.') { return bad(); }
    }
    const auto [end, error] =
        std::from_chars(rest.data(), rest.data() + rest.size(), number, std::chars_format::fixed);
    if (error != std::errc{}) { return bad(); }
    rest.remove_prefix(static_cast<std::size_t>(end - rest.data()));
    if (rest.empty()) {
      if (!only_number) { return bad(); }
      total = number * 1000;  // plain seconds
      break;
    }
    only_number = false;
    const std::size_t length = std::min(rest.find_first_of("0123456789."), rest.size());
    const auto* unit = std::ranges::find(kUnits, rest.substr(0, length), &Unit::name);
    if (unit == kUnits.end()) { return bad(); }
    total += number * unit->ms;
    rest.remove_prefix(length);
  }
  if (!(total < 1e14)) { return bad(); }
  return milliseconds(static_cast<std::int64_t>(std::ceil(total)));
}

Result<ProcessorConfig> parse_processor_config(std::string_view json) {
  METIER_TRY(document, parse_json(json));
  if (!document.is_object()) {
    return fail(invalid("", "the configuration is no object", "give a JSON object"));
  }
  ProcessorConfig config;
  Fields fields(document.get_object(), "");
  std::int64_t format = 1;
  fields.integer("v", format, 1, 1);
  fields.text("name", config.name);
  fields.text("namespace", config.ns);
  fields.text("project", config.project);
  fields.text("version", config.version);
  fields.text("description", config.description);
  fields.texts("labels", config.labels);
  fields.texts("annotations", config.annotations);
  fields.text("handler", config.handler);
  fields.text("runtime", config.runtime);
  fields.text("path", config.path);
  fields.text("python", config.python);
  fields.text("lib", config.lib);
  if (const Json* env = fields.find("env")) {
    if (auto read = read_env(*env, config.env); !read) { fields.refuse(std::move(read.error())); }
  }
  fields.object("runtimeAttributes", config.runtime_attributes);
  fields.duration("eventTimeout", config.event_timeout);
  fields.text("logLevel", config.log_level);
  const Json* triggers = fields.find("triggers");
  read_listen_at(fields, "health", config.health);
  read_listen_at(fields, "metrics", config.metrics);
  read_listen_at(fields, "admin", config.admin);
  fields.text("control", config.control);
  fields.text("readyFile", config.ready_file);
  fields.text("instance", config.instance);
  fields.duration("drainTimeout", config.drain_timeout);
  fields.integer("workerMemoryBytes", config.worker_memory_bytes, 0, INT64_MAX);
  fields.object("extra", config.extra);
  fields.texts("functions", config.functions);
  METIER_CHECK(fields.finish());
  if (config.name.empty()) { return fail(invalid("name", "is empty", "name the function")); }
  if (config.handler.empty()) {
    return fail(invalid("handler", "is empty", "give module:function"));
  }
  static constexpr std::array<std::string_view, 4> kLevels{"debug", "info", "warn", "error"};
  if (std::ranges::find(kLevels, config.log_level) == kLevels.end()) {
    return fail(invalid("logLevel", quote(config.log_level) + " is no level",
                        "debug, info, warn or error"));
  }
  if (triggers != nullptr) {
    if (!triggers->is_array()) {
      return fail(invalid("triggers", "is no list", "give a list of triggers"));
    }
    for (std::size_t i = 0; i < triggers->get_array().size(); ++i) {
      const Json& entry = triggers->get_array()[i];
      std::string path = fmt::format("triggers[{}]", i);
      if (!entry.is_object()) { return fail(invalid(path, "is no object", "give an object")); }
      if (const auto name = string_at(entry, "name"); !name.empty()) {
        path = fmt::format("triggers.{}", name);
      }
      METIER_TRY(trigger, read_trigger(entry.get_object(), path));
      if (std::ranges::find(config.triggers, trigger.name, &TriggerConfig::name) !=
          config.triggers.end()) {
        return fail(invalid(path + ".name", quote(trigger.name) + " is there twice",
                            "give each trigger its name"));
      }
      config.triggers.push_back(std::move(trigger));
    }
  }
  return config;
}

std::string dump_processor_config(const ProcessorConfig& config) {
  JsonObject object;
  object["v"] = 1;
  object["name"] = config.name;
  object["namespace"] = config.ns;
  object["project"] = config.project;
  object["version"] = config.version;
  put(object, "description", config.description);
  if (!config.labels.empty()) { object["labels"] = dump_texts(config.labels); }
  if (!config.annotations.empty()) { object["annotations"] = dump_texts(config.annotations); }
  object["handler"] = config.handler;
  object["runtime"] = config.runtime;
  put(object, "path", config.path);
  object["python"] = config.python;
  put(object, "lib", config.lib);
  if (!config.env.empty()) {
    JsonArray env;
    for (const auto& [name, value] : config.env) {
      env.push_back({{"name", name}, {"value", value}});
    }
    object["env"] = std::move(env);
  }
  if (!config.runtime_attributes.empty()) {
    object["runtimeAttributes"] = config.runtime_attributes;
  }
  if (config.event_timeout.count() > 0) {
    object["eventTimeout"] = duration_text(config.event_timeout);
  }
  object["logLevel"] = config.log_level;
  JsonArray triggers;
  for (const TriggerConfig& trigger : config.triggers) {
    triggers.emplace_back(dump_trigger(trigger));
  }
  object["triggers"] = std::move(triggers);
  if (!config.health.none()) { object["health"] = dump_listen(config.health); }
  if (!config.metrics.none()) { object["metrics"] = dump_listen(config.metrics); }
  if (!config.admin.none()) { object["admin"] = dump_listen(config.admin); }
  put(object, "control", config.control);
  put(object, "readyFile", config.ready_file);
  put(object, "instance", config.instance);
  object["drainTimeout"] = duration_text(config.drain_timeout);
  if (config.worker_memory_bytes != 0) { object["workerMemoryBytes"] = config.worker_memory_bytes; }
  if (!config.extra.empty()) { object["extra"] = config.extra; }
  if (!config.functions.empty()) { object["functions"] = dump_texts(config.functions); }
  return dump_json(object, JsonStyle::pretty);
}

}  // namespace metier::realtime
