#include "serving/step_library.h"

#include <dlfcn.h>

#include <filesystem>

#include "base/json_ordered.h"
#include "metier/step.h"

namespace metier::serving {
namespace {

using StepFunction = std::int32_t (*)(const char*, std::size_t, metier_step_result_v1*);

class LibraryStep final : public NativeStep {
 public:
  LibraryStep(Paths paths, LibraryFunction function)
      : paths_(std::move(paths)), function_(function) {}
  bool reads_part() const override { return !paths_.input.empty(); }
  StepResult run(std::unique_ptr<NativeEvent>& event, StepOutput&) override {
    Json room;
    const auto input = paths_.read(event->body, room);
    if (!input) { return std::unexpected(input.error()); }
    auto out = function_.call(library_text(*event, **input));
    if (!out) { return std::unexpected(std::move(out.error())); }
    bool raw = false;
    Json value = library_value(std::move(*out), raw);
    if (auto written = paths_.write(event->body, std::move(value)); !written) {
      return std::unexpected(std::move(written.error()));
    }
    event->raw = raw;
    return StepDone::next;
  }

 private:
  Paths paths_;
  LibraryFunction function_;
};

}  // namespace

Result<LibraryFunction> LibraryFunction::load(std::string_view name,
                                              const std::vector<std::string>& folders) {
  const std::size_t colon = name.rfind(':');
  const std::string path(name.substr(0, colon)), step(name.substr(colon + 1));
  std::vector<std::filesystem::path> places = {path};
  for (const std::string& folder : folders) {
    places.push_back(std::filesystem::path(folder) / path);
  }
  std::error_code ignored;
  const auto found = std::ranges::find_if(
      places, [&](const auto& place) { return std::filesystem::is_regular_file(place, ignored); });
  if (found == places.end()) {
    return fail(Error{
        .kind = ErrorKind::not_found,
        .message = "there is no library " + quote(path),
        .fix = "`metier build` makes it of a .cc file; it lies beside the function's code, or "
               "has an absolute path"});
  }
  void* library =
      ::dlopen(std::filesystem::absolute(*found, ignored).c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    const char* why = ::dlerror();
    return fail(
        invalid("handler", quote(path) + " cannot be loaded: " + (why == nullptr ? "" : why)));
  }
  LibraryFunction out;
  out.function_ = ::dlsym(library, ("metier_step_v1_" + step).c_str());
  if (out.function_ == nullptr) {
    return fail(invalid("handler", quote(path) + " has no step " + quote(step),
                        "METIER_STEP(" + step + ", ...) in its code defines it"));
  }
  return out;
}

std::expected<std::string, Raised> LibraryFunction::call(std::string_view body) const {
  metier_step_result_v1 out{};
  const std::int32_t status =
      reinterpret_cast<StepFunction>(function_)(body.data(), body.size(), &out);
  if (status == 2) { return std::unexpected(Raised{"MemoryError", "a native step has no memory"}); }
  std::string text(out.data, out.size);
  out.release(out.data);
  if (status != 0) { return std::unexpected(Raised{"StepFailed", std::move(text)}); }
  return text;
}

std::string library_text(const NativeEvent& event, const Json& body) {
  return event.raw && body.is_string() ? std::string(body.get_string()) : dump_json(body);
}

Json library_value(std::string text, bool& raw) {
  auto value = parse_python_json(text);
  raw = !value;
  return value ? std::move(*value) : Json(text);
}

Result<std::unique_ptr<NativeStep>> make_library_step(const StepSite& site,
                                                      std::string_view handler) {
  METIER_TRY(paths, Paths::of(site));
  if (site.check) { return std::make_unique<LibraryStep>(std::move(paths), LibraryFunction()); }
  auto function = LibraryFunction::load(handler, site.folders);
  if (!function) {
    return fail(std::move(function.error())
                    .in("step " + quote(site.plan.name))
                    .at("graph.steps." + site.plan.name));
  }
  return std::make_unique<LibraryStep>(std::move(paths), *function);
}

}  // namespace metier::serving
