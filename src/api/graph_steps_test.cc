#include "api/graph_steps.h"

#include <gtest/gtest.h>

namespace metier::api {
namespace {

TEST(GraphSteps, AreSummedOverTheProcessors) {
  const std::string one =
      "# HELP metier_graph_step_events_total x\n"
      "metier_graph_step_seconds_sum{instance=\"a\",step=\"f\"} 0.5\n"
      "metier_graph_step_events_total{instance=\"a\",step=\"f\"} 3\n"
      "metier_graph_step_events_total{instance=\"a\",step=\"m\"} 1\n"
      "metier_graph_step_failures_total{instance=\"a\",step=\"f\"} 1\n"
      "nuclio_processor_handled_events_total{trigger=\"x\"} 9\n"
      "metier_graph_step_events_total{} nonsense";
  const std::string two = "metier_graph_step_events_total{instance=\"b\",step=\"f\"} 4\n";
  const std::string texts[] = {one, two, ""};
  EXPECT_EQ(
      dump_json(graph_steps(texts)),
      R"([{"name":"f","events":7,"failures":1,"seconds":0.5},{"name":"m","events":1,"failures":0,"seconds":0.0}])");
}

}  // namespace
}  // namespace metier::api
