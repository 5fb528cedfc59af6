#include "engine/builds.h"

#include "base/files.h"
#include "model/attributes.h"
#include "model/function.h"

namespace metier {
namespace {

void take(const JsonObject& build, std::string_view key, std::vector<std::string>& into) {
  const Json* value = build.if_contains(key);
  if (value == nullptr) { return; }
  if (value->is_string() && !value->get_string().empty()) {
    into.emplace_back(value->get_string());
  }
  if (value->is_array()) {
    for (const Json& item : value->get_array()) {
      if (item.is_string()) { into.emplace_back(item.get_string()); }
    }
  }
}

// `offset` counts characters of the decoded text, as MLRun's client does.
std::string from_character(std::string_view text, std::size_t offset) {
  std::size_t at = 0;
  for (std::size_t seen = 0; at < text.size(); ++at) {
    if ((static_cast<unsigned char>(text[at]) & 0xC0U) != 0x80U && seen++ == offset) { break; }
  }
  return std::string(text.substr(at));
}

JsonArray texts(const std::vector<std::string>& from) {
  JsonArray out;
  for (const std::string& text : from) { out.emplace_back(text); }
  return out;
}

Result<void> store_function(Records& tx, const Json& document, Time now) {
  METIER_TRY(function, Function::from_json(document));
  const std::string tag = function.tag().empty() ? "latest" : function.tag();
  const std::string hash = function.compute_hash();
  function.metadata()["hash"] = hash;
  function.metadata()["updated"] = to_iso(now);
  FunctionRow row;
  row.project = function.project();
  row.name = function.name();
  row.uid = hash;
  row.kind = function.kind();
  row.updated = now;
  function.set_tag("");
  row.body = dump_object(function.document());
  return tx.put_function(row, tag);
}

}  // namespace

Async<Result<Json>> Builds::begin(Json document, bool skip_deployed, bool force) {
  auto function = Function::from_json(std::move(document));
  if (!function) { co_return fail(std::move(function.error())); }
  if (function->project().empty()) { function->set_project("default"); }
  const std::string project = function->project();
  auto known = ground_.store.records().project(project);
  if (!known) { co_return fail(std::move(known.error())); }
  if (!*known) {
    co_return fail(Error{
        .kind = ErrorKind::not_found,
        .message = "no project " + quote(project),
        .fix =
            "create it: metier apply -f FILE with kind: Project, or mlrun.get_or_create_project"});
  }
  if (function->name().empty()) {
    co_return fail(invalid("metadata.name", "the function has no name"));
  }
  const std::string tag = function->tag().empty() ? "latest" : function->tag();
  JsonObject& spec = function->spec();
  BuildAsk ask;
  std::string image(string_in(spec, "image"));
  std::string target;
  if (const JsonObject* build = object_in(spec, "build")) {
    take(*build, "requirements", ask.requirements);
    take(*build, "commands", ask.commands);
    ask.python = string_in(*build, "python");
    target = string_in(*build, "image");
    if (image.empty()) { image = string_in(*build, "base_image"); }
    load_source_on_run(*function);
  }
  if (ask.python.empty()) { ask.python = ground_.options.default_python; }
  const bool built_before =
      string_at(Json(function->document()), "status.state") == "ready" && !image.empty();
  const bool nothing = ask.requirements.empty() && ask.commands.empty();
  const Time now = ground_.clock.now();
  if ((nothing && !force) || (skip_deployed && built_before)) {
    if (image.empty()) { image = "mlrun/mlrun"; }
    spec["image"] = image;
    function->status()["state"] = "ready";
    const Json body(function->document());
    auto stored =
        co_await ground_.store.write([&](Records& tx) { return store_function(tx, body, now); });
    if (!stored) { co_return fail(std::move(stored.error())); }
    co_return Json(JsonObject{{"data", body}, {"ready", true}});
  }
  if (builder_ == nullptr) {
    co_return fail(Error{.kind = ErrorKind::unsupported,
                         .message = "this cluster builds no environments",
                         .field = "spec.build",
                         .fix = "name an image that has the packages"});
  }
  if (target.empty()) { target = ".mlrun/func-" + project + "-" + function->name() + ":" + tag; }
  ensure_object(spec, "build")["image"] = target;
  function->status()["state"] = "deploying";
  function->status()["build_pod"] = "environment-" + function->name();
  const std::string key = project + "/" + function->name() + "/" + tag;
  builds_[key] = {.state = "running", .image = target, .log_path = builder_->log_path(ask)};
  const Json body(function->document());
  auto stored =
      co_await ground_.store.write([&](Records& tx) { return store_function(tx, body, now); });
  if (!stored) { co_return fail(std::move(stored.error())); }
  scope_.spawn("build " + key,
               run(key, project, function->name(), tag, std::move(ask), target, body));
  co_return Json(JsonObject{{"data", body}, {"ready", false}});
}

Async<void> Builds::run(std::string key, std::string project, std::string name, std::string tag,
                        BuildAsk ask, std::string image, Json body) {
  const BuildAsk asked = ask;
  auto built = co_await builder_->build(std::move(ask));
  // Told when it is stored: who hears of it may use the image at once.
  const auto tell = [&] {
    Build& build = builds_[key];
    build.state = built ? "ready" : "error";
    if (!built) { build.error = built.error().text(); }
  };
  auto function = Function::from_json(body);
  if (!function) { co_return tell(); }
  function->status()["state"] = built ? "ready" : "error";
  if (built) { function->spec()["image"] = image; }
  const Json done(function->document());
  const std::string entry = dump_json(JsonObject{{"python", asked.python},
                                                 {"requirements", texts(asked.requirements)},
                                                 {"commands", texts(asked.commands)}});
  const bool ready = built.has_value();
  auto stored =
      co_await ground_.store.write([&, now = ground_.clock.now()](Records& tx) -> Result<void> {
        if (ready) { METIER_CHECK(tx.put_setting("image", image, entry, std::nullopt)); }
        return store_function(tx, done, now);
      });
  if (!stored) {
    ground_.log.error("built function not stored",
                      {{"function", Json(name)}, {"project", Json(project)}, {"tag", Json(tag)}});
  }
  tell();
}

Result<Builds::Status> Builds::status(const std::string& project, const std::string& name,
                                      const std::string& tag, std::size_t offset, bool logs) const {
  Status out;
  const auto found =
      builds_.find(project + "/" + normalize_name(name) + "/" + (tag.empty() ? "latest" : tag));
  if (found != builds_.end()) {
    out.state = found->second.state;
    out.image = found->second.image;
    if (logs) {
      std::string text;
      if (auto log = read_file(found->second.log_path, 64U << 20U)) { text = std::move(*log); }
      if (!found->second.error.empty()) { text += found->second.error + "\n"; }
      out.log = from_character(text, offset);
    }
    return out;
  }
  METIER_TRY(row, ground_.store.records().function(project, normalize_name(name), tag, ""));
  if (!row) {
    return fail(Error{.kind = ErrorKind::not_found,
                      .message = "no function " + quote(project + "/" + name)});
  }
  METIER_TRY(document, parse_json(row->body));
  out.state = string_at(document, "status.state");
  // A build that a restart cut short is begun again by the next deploy.
  if (out.state == "deploying") { out.state = "error"; }
  out.image = string_at(document, "spec.image");
  if (out.state.empty() && !out.image.empty()) { out.state = "ready"; }
  return out;
}

Async<void> Builds::stop() {
  auto closed = co_await scope_.close(std::chrono::seconds(2));
  static_cast<void>(closed);
}

}  // namespace metier
