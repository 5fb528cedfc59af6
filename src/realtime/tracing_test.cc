#include <gtest/gtest.h>

#include <map>

#include "base/json.h"
#include "realtime/span_exporter.h"
#include "realtime/trace_context.h"

namespace metier::realtime {
namespace {

const std::string kTrace = "0af7651916cd43dd8448eb211c80319c";
const std::string kSpan = "b7ad6b7169203331";

TEST(TraceContext, IsReadAsTheSpecificationSays) {
  const auto read = parse_traceparent("00-" + kTrace + "-" + kSpan + "-01");
  ASSERT_TRUE(read);
  EXPECT_EQ(read->trace, kTrace);
  EXPECT_EQ(read->parent, kSpan);
  EXPECT_TRUE(read->sampled);
  EXPECT_FALSE(parse_traceparent("00-" + kTrace + "-" + kSpan + "-02")->sampled);
  EXPECT_TRUE(parse_traceparent("01-" + kTrace + "-" + kSpan + "-01-more"));  // a later version
  EXPECT_EQ(format_traceparent(kTrace, kSpan, true), "00-" + kTrace + "-" + kSpan + "-01");
  for (const std::string& wrong :
       {std::string(), "00-" + kTrace + "-" + kSpan, "00-" + kTrace + "-" + kSpan + "-01-more",
        "ff-" + kTrace + "-" + kSpan + "-01", "00-" + std::string(32, '0') + "-" + kSpan + "-01",
        "00-" + kTrace + "-" + std::string(16, '0') + "-01", "00-" + kTrace + "-" + kSpan + "-0g",
        "00-0AF7651916cd43dd8448eb211c80319c-" + kSpan + "-01",
        "01-" + kTrace + "-" + kSpan + "-01more"}) {
    EXPECT_FALSE(parse_traceparent(wrong)) << wrong;
  }
}

TEST(SpanExporter, IsConfiguredByTheEnvironmentAlone) {
  const auto read = [](std::map<std::string, std::string> variables) {
    const auto config = tracing_from_environment([&](const char* name) { return variables[name]; });
    return config ? config->endpoint : config.error().text();
  };
  EXPECT_EQ(read({}), "");
  EXPECT_EQ(read({{"OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318/"}}), "http://c:4318/v1/traces");
  EXPECT_EQ(read({{"OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318"},
                  {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://d/x"}}),
            "https://d/x");
  EXPECT_EQ(read({{"OTEL_EXPORTER_OTLP_ENDPOINT", "file:///tmp/x"}}), "file:///tmp/x");
  EXPECT_EQ(read({{"OTEL_EXPORTER_OTLP_ENDPOINT", "http://c"}, {"OTEL_TRACES_EXPORTER", "none"}}),
            "");
  EXPECT_EQ(read({{"OTEL_EXPORTER_OTLP_ENDPOINT", "http://c"}, {"OTEL_SDK_DISABLED", "true"}}), "");
  EXPECT_NE(read({{"OTEL_EXPORTER_OTLP_ENDPOINT", "c:4317"}}).find("no address of a collector"),
            std::string::npos);
}

TEST(SpanExporter, WritesOtlp) {
  const std::string text = otlp_json({{.trace = kTrace,
                                       .span = kSpan,
                                       .name = "GET f",
                                       .trigger_kind = "http",
                                       .trigger_name = "web",
                                       .method = "GET",
                                       .path = "/\xff",
                                       .status = 502,
                                       .error = "the worker died",
                                       .begin_ns = 1,
                                       .end_ns = 2}},
                                     "f", "p", "pod");
  const auto parsed = parse_json(text);
  ASSERT_TRUE(parsed) << text;
  const Json& span = parsed->at("resourceSpans").at(0).at("scopeSpans").at(0).at("spans").at(0);
  EXPECT_EQ(string_at(span, "traceId"), kTrace);
  EXPECT_EQ(string_at(span, "startTimeUnixNano"), "1");
  EXPECT_EQ(span.at("status").at("code").as_int64(), 2);
  EXPECT_FALSE(span.as_object().contains("parentSpanId"));
}

}  // namespace
}  // namespace metier::realtime
