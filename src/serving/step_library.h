// Steps of shared libraries (include/metier/step.h): `handler="steps.so:name"`.
#pragma once

#include "serving/native_steps.h"

namespace metier::serving {

// A function of a library, called with the body's JSON text. Loaded once for each path.
class LibraryFunction {
 public:
  // Looked for as given and below each folder. Errors: not_found for the file, invalid for what is no library or has no such step.
  static Result<LibraryFunction> load(std::string_view name,
                                      const std::vector<std::string>& folders);
  // Raised: RuntimeError with the library's text.
  std::expected<std::string, Raised> call(std::string_view body) const;

 private:
  void* function_ = nullptr;
};

Result<std::unique_ptr<NativeStep>> make_library_step(const StepSite& site,
                                                      std::string_view handler);
// A body as a library gets it, and what it gave as a body.
std::string library_text(const NativeEvent& event, const Json& body);
Json library_value(std::string text, bool& raw);

}  // namespace metier::serving
