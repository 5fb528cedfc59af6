// The cost of graphs that the processor runs itself, in one thread and without HTTP:
//   cmake --build build/release --target metier_graph_bench && build/release/src/serving/metier_graph_bench
#include <chrono>
#include <cstdio>
#include <ctime>
#include <string>

#include "serving/native_graph.h"

namespace {

using metier::serving::GraphCall;
using metier::serving::NativeGraph;

double cpu_us() {
  timespec now{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) * 1e6 + static_cast<double>(now.tv_nsec) * 1e-3;
}

// CPU microseconds of one event: the best of five series.
double cost(NativeGraph& graph, const GraphCall& call) {
  double best = 1e9;
  for (int series = 0; series < 5; ++series) {
    constexpr int kEvents = 5000;
    const double began = cpu_us();
    for (int i = 0; i < kEvents; ++i) { graph.test(call); }
    best = std::min(best, (cpu_us() - began) / kEvents);
  }
  return best;
}

std::string chain(int count, std::string_view engine) {
  std::string out = "{\"engine\":\"" + std::string(engine) + "\",\"steps\":{";
  for (int i = 0; i < count; ++i) {
    out +=
        (i > 0 ? "," : "") + std::string("\"s") + std::to_string(i) + "\":{\"handler\":\"(event)\"";
    if (i > 0) { out += ",\"after\":[\"s" + std::to_string(i - 1) + "\"]"; }
    out += "}";
  }
  return out + "}}";
}

void row(const char* name, std::string_view document, const GraphCall& call, const char* target) {
  auto parsed = metier::parse_json(document);
  auto graph = NativeGraph::make(parsed->get_object());
  if (!graph) {
    std::printf("%s: %s\n", name, graph.error().text().c_str());
    return;
  }
  std::printf("  %-44s %8.2f   %s\n", name, cost(**graph, call), target);
}

}  // namespace

int main() {
  const std::string small = R"({"a": 1, "b": "text", "c": [1, 2, 3]})";
  std::string rows = "[", large = R"({"x": {"y": 1}, "data": [)";
  for (int i = 0; i < 8; ++i) {
    rows += i > 0 ? ",[" : "[";
    for (int j = 0; j < 20; ++j) { rows += (j > 0 ? "," : "") + std::to_string(i * j) + ".5"; }
    rows += "]";
  }
  rows += "]";
  for (int i = 0; i < 60; ++i) {
    large += i > 0 ? ", [" : "[";
    for (int j = 0; j < 20; ++j) {
      large += (j > 0 ? ", " : "") + std::to_string(j * 37 + i) + ".370000000000";
    }
    large += "]";
  }
  large += "]}";
  std::printf("CPU microseconds an event, body and answer as JSON text\n");
  row("three native steps, body 1", chain(3, "sync"), {.body = "1"}, "1");
  row("three native steps, dict", chain(3, "sync"), {.body = small}, "1");
  row("ten native steps, dict", chain(10, "sync"), {.body = small}, "2");
  row("parse and print alone (no step's work), dict", chain(1, "sync"), {.body = small}, "");
  row("router and native model",
      R"x({"kind":"router","routes":{"m":{"handler":"(event['inputs'])"}}})x",
      {.body = R"({"inputs": [[1.0, 2.0, 3.0]]})", .path = "/v2/models/m/infer"}, "3 + parse");
  row("4 branches and a join, 8x20 floats",
      R"x({"steps":{"s":{"handler":"(event)"},"a":{"handler":"(event)","after":["s"]},"b":{"handler":"(event)","after":["s"]},
      "c":{"handler":"(event)","after":["s"]},"d":{"handler":"(event)","after":["s"]},
      "j":{"class_name":"mlrun.serving.Merge","after":["a","b","c","d"]}}})x",
      {.body = rows}, "10 + parse");
  row("22.6 KB, input_path, passed through",
      R"x({"engine":"sync","steps":{"s":{"handler":"(event)","input_path":"x.y","result_path":"z"}}})x",
      {.body = large}, "30");
  std::printf("  (large body: %zu bytes)\n", large.size());
  return 0;
}
