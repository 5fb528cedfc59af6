// What Spark's event log tells of an application that has ended, as one page: its jobs, stages and executors.
// The log is one JSON object per line, as spark.eventLog.compress=false writes it.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace metier {

// Fields of other listeners' events are left out; a last line that was cut off too (the driver was killed). `name` is shown
// as the title. Errors: invalid when there is no event of Spark's in it; a compressed log is refused by its codec's name.
Result<std::string> spark_history_page(std::string_view events, std::string_view name);

}  // namespace metier
