#include "model/serving_children.h"

#include <algorithm>

#include "base/digest.h"
#include "base/files.h"
#include "base/text.h"
#include "model/attributes.h"
#include "model/nuclio/function.h"

namespace metier {
namespace {

constexpr std::string_view kCurrent = "SERVING_CURRENT_FUNCTION";

struct Link {
  std::string function, queue;
};

std::vector<std::string> names_of(const JsonObject& step, std::string_view key) {
  std::vector<std::string> out;
  const JsonArray* list = array_in(step, key);
  for (const Json& item : list == nullptr ? JsonArray{} : *list) {
    if (item.is_string()) { out.emplace_back(item.get_string()); }
  }
  return out;
}

// Each function behind a queue with a path.
Result<std::vector<Link>> durable_links(const JsonObject& steps) {
  std::vector<Link> out;
  for (const auto& member : steps) {
    const JsonObject* step = member.value().if_object();
    if (step == nullptr) { continue; }
    for (const std::string& previous : names_of(*step, "after")) {
      const JsonObject* queue = object_in(steps, previous);
      if (queue == nullptr || string_in(*queue, "kind") != "queue" ||
          string_in(*queue, "path").empty()) {
        continue;
      }
      const std::string function(string_in(*step, "function"));
      const std::string field = "spec.graph.steps." + std::string(member.key());
      if (function.empty()) {
        return fail(invalid(field,
                            "it follows the queue " + quote(previous) + " and has no function",
                            "to(..., function='NAME'), and fn.add_child_function('NAME')"));
      }
      const auto found = std::ranges::find(out, function, &Link::function);
      if (found == out.end()) {
        out.push_back({function, previous});
      } else if (found->queue != previous) {
        return fail(invalid(field,
                            "function " + quote(function) + " cannot read from multiple queues (" +
                                quote(found->queue) + ", " + quote(previous) + ")",
                            "give each queue a function of its own"));
      }
    }
  }
  return out;
}

// A function stands when the readers of what it writes do: those come first. Two that write to each other stand in the graph's order.
class ReadersFirst {
 public:
  ReadersFirst(const JsonObject& steps, std::vector<Link> links)
      : steps_(steps), left_(std::move(links)) {}
  std::vector<Link> sorted() && {
    while (!left_.empty()) { visit(left_.begin()); }
    return std::move(out_);
  }

 private:
  using At = std::vector<Link>::iterator;
  void visit(At at) {
    const Link link = std::move(*at);
    left_.erase(at);
    while (true) {
      const auto reader = std::ranges::find_if(
          left_, [&](const Link& other) { return writes(link.function, other.queue); });
      if (reader == left_.end()) { break; }
      visit(reader);
    }
    out_.push_back(link);
  }
  bool writes(std::string_view function, const std::string& queue) const {
    return std::ranges::any_of(names_of(*object_in(steps_, queue), "after"),
                               [&](const std::string& before) {
                                 const JsonObject* step = object_in(steps_, before);
                                 return step != nullptr && string_in(*step, "function") == function;
                               });
  }

  const JsonObject& steps_;
  std::vector<Link> left_, out_;
};

std::vector<std::string> split(std::string_view text) {
  std::vector<std::string> out;
  while (!text.empty()) {
    const auto comma = std::min(text.find(','), text.size());
    if (const auto word = trim(text.substr(0, comma)); !word.empty()) { out.emplace_back(word); }
    text.remove_prefix(std::min(comma + 1, text.size()));
  }
  return out;
}

// Where a queue lies: kafka://BROKERS/TOPIC, or a topic with the option kafka_brokers.
struct Place {
  std::vector<std::string> brokers;
  std::string topic;
};
Result<Place> place_of(const std::string& name, const JsonObject& queue) {
  constexpr std::string_view kScheme = "kafka://";
  const std::string_view path = string_in(queue, "path");
  const JsonObject* options = object_in(queue, "options");
  Place out;
  for (const char* key : {"kafka_brokers", "kafka_bootstrap_servers", "brokers"}) {
    const Json* given = options == nullptr ? nullptr : options->if_contains(key);
    if (given == nullptr || !out.brokers.empty()) { continue; }
    if (given->is_string()) { out.brokers = split(given->get_string()); }
    for (const Json& one : given->is_array() ? given->get_array() : JsonArray{}) {
      if (one.is_string()) { out.brokers.emplace_back(one.get_string()); }
    }
  }
  out.topic = path;
  if (path.starts_with(kScheme)) {
    const auto rest = path.substr(kScheme.size());
    const auto slash = std::min(rest.find('/'), rest.size());
    if (out.brokers.empty()) { out.brokers = split(rest.substr(0, slash)); }
    out.topic = rest.substr(std::min(slash + 1, rest.size()));
  } else if (path.contains("://")) {
    out.brokers.clear();
  }
  while (out.topic.ends_with('/')) { out.topic.pop_back(); }
  if (out.brokers.empty() || out.topic.empty()) {
    return fail(
        invalid("spec.graph.steps." + name + ".path",
                "queue " + quote(name) + " at " + quote(path) + " cannot trigger a function here",
                "queues between functions are kafka://BROKER/TOPIC; one without a path is "
                "an edge in memory"));
  }
  return out;
}

Result<void> add_trigger(Function& child, const std::string& name, const JsonObject& queue,
                         bool async) {
  METIER_TRY(place, place_of(name, queue));
  const JsonObject* options = object_in(queue, "options");
  nuclio::KafkaArguments arguments{.brokers = place.brokers, .topics = {place.topic}};
  arguments.consumer_group = options == nullptr ? std::string_view() : string_in(*options, "group");
  if (arguments.consumer_group.empty()) {
    arguments.consumer_group = child.name() + "-consumer-group";
  }
  if (async) { arguments.explicit_ack_mode = "explicitOnly"; }
  // trigger_args: the arguments of MLRun's KafkaTrigger, everything else goes to the trigger's attributes.
  const JsonObject* given = object_in(queue, "trigger_args");
  for (const auto& member : given == nullptr ? JsonObject{} : *given) {
    const std::string_view key = member.key();
    const Json& value = member.value();
    if (key == "explicit_ack_mode" && value.is_string()) {
      arguments.explicit_ack_mode = value.get_string();
    } else if (key == "initial_offset" && value.is_string()) {
      arguments.initial_offset = value.get_string();
    } else if (key == "num_workers" && value.is_int64()) {
      arguments.workers = value.get_int64();
    } else if (key == "extra_attributes" && value.is_object()) {
      for (const auto& more : value.get_object()) {
        arguments.extra_attributes[more.key()] = more.value();
      }
    } else {
      arguments.extra_attributes[key] = value;
    }
  }
  return nuclio::with_kafka(child, arguments);
}

Result<Function> made_of(const Function& parent, const Link& link, const JsonObject& reference,
                         const std::filesystem::path& folder) {
  Function child = parent;
  if (const JsonObject* own = object_in(reference, "spec"); own != nullptr && !own->empty()) {
    METIER_TRY(given, Function::from_json(Json(*own)));
    child = std::move(given);
    if (child.kind().empty()) { child.set_kind("serving"); }
    child.set_project(parent.project());
    child.set_tag(parent.tag());
  }
  child.set_name(parent.name() + "-" + link.function);
  JsonObject& spec = child.spec();
  ensure_object(child.metadata(), "labels")["mlrun/parent-function"] = parent.name();
  child.metadata().erase("hash");
  child.document().erase("status");
  spec.erase("function_refs");
  if (const auto code = string_in(reference, "code"); !code.empty()) {
    ensure_object(spec, "build")["functionSourceCode"] = code;
  }
  if (const auto url = string_in(reference, "url"); !url.empty()) {
    if (!url.ends_with(".py")) {
      return fail(invalid("spec.function_refs." + link.function + ".url",
                          quote(url) + " is no Python file", "give a .py file"));
    }
    auto text = read_file(folder / url, 16U << 20U);
    if (!text) {
      return fail(std::move(text).error().at("spec.function_refs." + link.function + ".url"));
    }
    ensure_object(spec, "build")["functionSourceCode"] = base64_encode(*text);
    ensure_object(spec, "build")["origin_filename"] =
        std::filesystem::path(url).filename().string();
  }
  if (const auto image = string_in(reference, "image"); !image.empty()) { spec["image"] = image; }
  if (const JsonArray* wanted = array_in(reference, "requirements")) {
    std::vector<std::string> names;
    for (const Json& one : *wanted) {
      if (one.is_string()) { names.emplace_back(one.get_string()); }
    }
    METIER_CHECK(with_requirements(child, names));
  }
  // The triggers are the parent's own.
  if (JsonObject* config = object_in(spec, "config"); config != nullptr) {
    std::vector<std::string> gone;
    for (const auto& member : *config) {
      if (member.key().starts_with("spec.triggers.")) { gone.emplace_back(member.key()); }
    }
    for (const std::string& key : gone) { config->erase(key); }
  }
  const JsonObject* graph = object_in(spec, "graph");
  if (graph == nullptr || graph->empty() || object_in(reference, "spec") == nullptr) {
    spec["graph"] = *object_in(parent.spec(), "graph");
    METIER_CHECK(set_env(child, kCurrent, Json(link.function)));
  }
  return child;
}

}  // namespace

std::vector<std::pair<std::string, const JsonObject*>> function_references(const Function& parent) {
  std::vector<std::pair<std::string, const JsonObject*>> out;
  const JsonObject& spec = parent.spec();
  if (const JsonObject* named = object_in(spec, "function_refs")) {
    for (const auto& member : *named) {
      out.emplace_back(member.key(), member.value().if_object());
    }
  }
  if (const JsonArray* list = array_in(spec, "function_refs")) {
    for (const Json& item : *list) {
      const JsonObject* reference = item.if_object();
      if (reference != nullptr) { out.emplace_back(string_in(*reference, "name"), reference); }
    }
  }
  std::erase_if(out, [](const auto& one) { return one.first.empty() || one.second == nullptr; });
  return out;
}

Result<std::vector<Function>> child_functions(const Function& parent,
                                              const std::filesystem::path& folder) {
  std::vector<Function> out;
  const JsonObject* graph = object_in(parent.spec(), "graph");
  const JsonObject* steps = graph == nullptr ? nullptr : object_in(*graph, "steps");
  if (parent.kind() != "serving" || steps == nullptr || get_env(parent, kCurrent)) { return out; }
  METIER_TRY(links, durable_links(*steps));
  const auto references = function_references(parent);
  for (const Link& link : ReadersFirst(*steps, std::move(links)).sorted()) {
    const auto reference = std::ranges::find(references, link.function,
                                             &std::pair<std::string, const JsonObject*>::first);
    if (reference == references.end()) {
      return fail(
          invalid("spec.function_refs",
                  "function " + quote(link.function) + " is used in steps and is not defined",
                  "fn.add_child_function(" + quote(link.function) + ", ...)"));
    }
    METIER_TRY(child, made_of(parent, link, *reference->second, folder));
    METIER_CHECK(add_trigger(child, link.queue, *object_in(*steps, link.queue),
                             string_in(*graph, "engine") != "sync"));
    out.push_back(std::move(child));
  }
  return out;
}

}  // namespace metier
