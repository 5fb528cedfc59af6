#include "engine/runtime_resources.h"

#include <algorithm>

#include "resource/pod.h"

namespace metier {
namespace {

std::string label(const ResourceStatus& status, std::string_view key) {
  const auto found = status.labels.find(key);
  return found == status.labels.end() ? std::string() : found->second;
}

Labels parse_selector(std::string_view text) {
  Labels out;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find(','), text.size());
    const std::string_view part = text.substr(0, end);
    const std::size_t equals = part.find('=');
    if (equals != std::string_view::npos) {
      std::string_view value = part.substr(equals + 1);
      if (value.starts_with('=')) { value.remove_prefix(1); }
      out[std::string(part.substr(0, equals))] = std::string(value);
    }
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return out;
}

// Without what only the cluster itself reads.
Json shown_status(const Json& status) {
  if (!status.is_object()) { return JsonObject{}; }
  JsonObject out = status.get_object();
  out.erase("metier");
  return out;
}

void add(JsonObject& into, const ResourceStatus& status) {
  for (const char* key : {"crd_resources", "pod_resources", "service_resources"}) {
    ensure_array(into, key);
  }
  const char* list = status.key.kind == "Pod"       ? "pod_resources"
                     : status.key.kind == "Service" ? "service_resources"
                                                    : "crd_resources";
  ensure_array(into, list)
      .push_back(JsonObject{{"name", status.key.name},
                            {"labels", labels_json(status.labels)},
                            {"status", shown_status(status.status)}});
}

Json grouped(const std::vector<ResourceStatus>& all, const std::string& group_by) {
  if (group_by == "job" || group_by == "project") {
    JsonObject out;
    for (const ResourceStatus& status : all) {
      const std::string second =
          group_by == "job" ? label(status, "mlrun/uid") : label(status, "mlrun/class");
      if (second.empty()) { continue; }  // of no run: a Dask cluster
      add(ensure_object(ensure_object(out, status.key.name_space), second), status);
    }
    return out;
  }
  JsonObject by_kind;
  for (const ResourceStatus& status : all) {
    add(ensure_object(by_kind, label(status, "mlrun/class")), status);
  }
  JsonArray out;
  for (const auto& [kind, resources] : by_kind) {
    out.push_back(JsonObject{{"kind", kind}, {"resources", resources}});
  }
  return out;
}

}  // namespace

Async<Result<std::vector<ResourceStatus>>> RuntimeResources::find(const ResourceQuery& query) {
  Selector selector;
  if (query.project != "*" && !query.project.empty()) { selector.name_space = query.project; }
  selector.labels = parse_selector(query.label_selector);
  if (!query.kind.empty()) { selector.labels["mlrun/class"] = query.kind; }
  // A Dask cluster belongs to its function, not to a run.
  const bool by_function = query.kind == "dask" && !query.object_id.empty();
  if (!query.object_id.empty() && !by_function) { selector.labels["mlrun/uid"] = query.object_id; }
  auto all = co_await ground_.cluster.list(selector);
  if (!all) { co_return fail(std::move(all.error())); }
  std::erase_if(*all, [&](const ResourceStatus& status) {
    if (by_function && label(status, "mlrun/function") != query.object_id &&
        label(status, "mlrun/uid") != query.object_id) {
      return true;
    }
    return label(status, "mlrun/class").empty() || status.key.kind == "Secret" ||
           status.key.kind == "ConfigMap" || status.key.kind == "PodGroup";
  });
  // First who uses what others own: a handler beside its cluster would end with an error of its own. Then owners, so that no
  // controller makes anew what is removed.
  const auto turn = [&](const ResourceStatus& status) {
    if (status.key.kind != "Pod" && status.key.kind != "Service") { return 1; }
    const auto object = ground_.store.objects().get(status.key);
    return status.key.kind == "Pod" && object && !object->metadata.owner ? 0 : 2;
  };
  std::ranges::sort(*all, {}, turn);
  co_return all;
}

Async<Result<Json>> RuntimeResources::list(ResourceQuery query) {
  auto all = co_await find(query);
  if (!all) { co_return fail(std::move(all.error())); }
  co_return grouped(*all, query.group_by);
}

Async<Result<Json>> RuntimeResources::remove(ResourceQuery query) {
  auto all = co_await find(query);
  if (!all) { co_return fail(std::move(all.error())); }
  std::vector<ResourceStatus> removed;
  for (const ResourceStatus& status : *all) {
    if (!query.force && status.key.kind == "Pod") {
      const PodStatus pod = pod_status_from_json(status.status);
      if (!is_terminal(pod.phase) ||
          ground_.clock.now() - pod.finished < std::chrono::seconds(query.grace_s)) {
        continue;
      }
    } else if (!query.force) {
      continue;
    }
    StopOptions options;
    options.reason = "AbortedByUser";
    options.message = "its resources were deleted";
    if (query.force) { options.how = StopOptions::How::forced; }
    auto done = co_await ground_.cluster.remove(
        Selector{
            .name_space = status.key.name_space, .kind = status.key.kind, .name = status.key.name},
        options);
    if (done) { removed.push_back(status); }
  }
  co_return grouped(removed, "project");
}

}  // namespace metier
