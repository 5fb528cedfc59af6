// A function as its processor will read it.
#pragma once

#include "cluster/controllers/nuclio/processor_pod.h"

namespace metier {

// What is written for a processor: `processor_config` without the attributes that its kinds of trigger do not have.
// They come over REST only, where they are the condition FieldIgnored.
JsonObject processor_document(const Resource& function, const ProcessorPlace& place);

// What a processor would end with is refused at deploy. Nothing outside the function is looked at. Errors: as the
// processor words them, below `spec`.
Result<void> check_processor(const Resource& function);

}  // namespace metier
