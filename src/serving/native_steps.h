// What the kinds of native steps share, and where each is made.
#pragma once

#include "serving/native_step.h"

namespace metier::serving {

// input_path and result_path of a step.
struct Paths {
  std::vector<std::string> input, result;
  static Result<Paths> of(const StepSite& site);
  // Null when a member is missing. In `body`, or in `room` when only this part of the body's text was read.
  std::expected<const Json*, Raised> read(const Payload& body, Json& room) const;
  std::expected<void, Raised> write(Payload& body, Json value) const;
};

Error needs_python(const StepSite& site, std::string why);
// A text in parentheses. Errors: NeedsPython for names and for what is beyond the subset.
Result<Expression> expression_of(const StepSite& site, std::string_view text);

// storey's steps and MLRun's Merge and ChoiceByField, by their names.
Result<std::unique_ptr<NativeStep>> make_storey_step(const StepSite& site,
                                                     std::string_view class_name);
// A ModelRouter whose routes are expressions or functions of libraries.
Result<std::unique_ptr<NativeStep>> make_native_router(const StepSite& site);

}  // namespace metier::serving
