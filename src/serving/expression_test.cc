#include "serving/expression.h"
#include "metier/test_paths.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/files.h"

namespace metier::serving {
namespace {

using testing::HasSubstr;

// tests/graphs/expressions.json: what Python says; python/serving/tests/test_conformance.py runs the same file through Python.
TEST(Expression, SaysWhatPythonSays) {
  auto text = read_file(std::string(METIER_SOURCE_DIR) + "/tests/graphs/expressions.json");
  ASSERT_TRUE(text);
  auto cases = parse_json(*text);
  ASSERT_TRUE(cases) << cases.error().text();
  ASSERT_GT(cases->get_array().size(), 200U);
  for (const Json& row : cases->get_array()) {
    const JsonObject& object = row.get_object();
    const std::string where(dump_json(row));
    auto expression = Expression::compile(string_in(object, "expression"));
    ASSERT_TRUE(expression) << where << expression.error().text();
    const auto value = expression->evaluate({.event = object.at("event")});
    if (const Json* raises = object.if_contains("raises")) {
      EXPECT_FALSE(value) << where << dump_json(*value);
      if (value) { continue; }
      EXPECT_EQ(value.error().type, std::string_view(raises->get_string()))
          << where << value.error().message;
      EXPECT_EQ(value.error().message, string_in(object, "message")) << where;
      continue;
    }
    EXPECT_TRUE(value) << where << value.error().type << ": " << value.error().message;
    if (!value) { continue; }
    EXPECT_EQ(dump_python_json(*value), dump_python_json(object.at("value"))) << where;
  }
}

TEST(Expression, LeavesTheRestToPython) {
  for (const char* text : {"(event.upper())",
                           "(f'{event}')",
                           "([x for x in event])",
                           "(lambda: 1)",
                           "(__import__('os'))",
                           "(event.body.x)",
                           "(open('/etc/passwd'))",
                           "(event",
                           "()",
                           "(event 1)",
                           "(event['x'] = 1)",
                           "(1,2)",
                           "('a' 'b')",
                           "(x)",
                           "(event())",
                           "(99999999999999999999)",
                           "(0123)",
                           "(\"\\x41\")",
                           "(event.__class__)",
                           "(len())"}) {
    const auto made = Expression::compile(text);
    ASSERT_FALSE(made) << text;
    EXPECT_EQ(made.error().code, "NeedsPython") << text;
  }
}

TEST(Expression, DeepTextsAreRefused) {
  const auto made =
      Expression::compile(std::string(100'000, '(') + "1" + std::string(100'000, ')'));
  ASSERT_FALSE(made);
  EXPECT_THAT(made.error().message, HasSubstr("nested too deeply"));
  EXPECT_FALSE(Expression::compile("(" + std::string(100'000, '-') + "1)"));
  EXPECT_FALSE(Expression::compile("(" + std::string(10'000, '[') + ")"));
}

TEST(Expression, WholeNumbersBeyond64BitsAreNoWrongAnswer) {
  const Json event(std::int64_t{1} << 62);
  for (const char* text :
       {"(event * 4)", "(event + event)", "(-event - event - event)", "(2 ** 64)"}) {
    const auto made = Expression::compile(text);
    ASSERT_TRUE(made);
    const auto value = made->evaluate({.event = event});
    ASSERT_FALSE(value) << text;
    EXPECT_EQ(value.error().type, "OverflowError");
  }
}

}  // namespace
}  // namespace metier::serving
