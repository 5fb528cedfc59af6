#include "cli/arguments.h"

#include <gtest/gtest.h>

#include "cli/verbs.h"

namespace metier::cli {
namespace {

Result<Arguments> parse(std::string_view verb, std::vector<std::string> words) {
  return Arguments::parse(find_verb(verb)->verb, words);
}

TEST(Arguments, ReadsFlagsInEveryForm) {
  const auto out = parse("run", {"f.py:h", "-p", "a=1", "-pb=2", "--param=c=3", "--kind", "job",
                                 "-P", "x", "--", "-z", "--kind"});
  ASSERT_TRUE(out) << out.error().text();
  EXPECT_EQ(out->words(), std::vector<std::string>{"f.py:h"});
  EXPECT_EQ(out->values("--param"), (std::vector<std::string>{"a=1", "b=2", "c=3"}));
  EXPECT_EQ(out->value("--kind"), "job");
  EXPECT_EQ(out->value("--project"), "x");
  EXPECT_EQ(out->rest(), (std::vector<std::string>{"-z", "--kind"}));
}

TEST(Arguments, NamesTheNearestFlag) {
  const auto out = parse("run", {"f.py", "--kidn", "job"});
  ASSERT_FALSE(out);
  EXPECT_NE(out.error().message.find("did you mean --kind"), std::string::npos)
      << out.error().message;
}

TEST(Arguments, RefusesFlagsWithoutValueAndTwice) {
  EXPECT_EQ(parse("run", {"f.py", "--kind"}).error().message, "has no value");
  EXPECT_EQ(parse("run", {"f.py", "--kind", "--detach"}).error().message, "has no value");
  EXPECT_EQ(parse("run", {"f.py", "--kind", "job", "--kind", "job"}).error().message,
            "is given twice");
  EXPECT_EQ(parse("run", {"f.py", "--detach=yes"}).error().field, "--detach");
  EXPECT_TRUE(parse("run", {"f.py", "--replicas", "-1"})) << "the value is judged later";
}

TEST(Arguments, CountsWords) {
  EXPECT_FALSE(parse("describe", {}));
  EXPECT_FALSE(parse("describe", {"a", "b"}));
  EXPECT_TRUE(parse("describe", {"--help"})->wants_help());
}

TEST(Nearest, FindsExchangedLettersAndNothingFarAway) {
  const std::vector<std::string> names{"job", "local", "mpijob", "train"};
  EXPECT_EQ(nearest("jbo", names), "job");
  EXPECT_EQ(nearest("mpi-job", names), "mpijob");
  EXPECT_EQ(nearest("trian", names), "train");
  EXPECT_EQ(nearest("databricks", names), std::nullopt);
}

TEST(Pair, WantsANameAndAnEqualsSign) {
  EXPECT_EQ(parse_pair("-p", "x=")->value, "");
  EXPECT_EQ(parse_pair("-p", "x=a=b")->value, "a=b");
  for (const char* bad : {"x", "=1", "1x=2", "a b=1", ""}) {
    EXPECT_FALSE(parse_pair("-p", bad)) << bad;
  }
}

TEST(Count, HasBounds) {
  EXPECT_EQ(*parse_count("--replicas", "3", 1, 10), 3);
  for (const char* bad : {"0", "-1", "1.5", "99999999999", "x", ""}) {
    EXPECT_FALSE(parse_count("--replicas", bad, 1, 10)) << bad;
  }
}

}  // namespace
}  // namespace metier::cli
