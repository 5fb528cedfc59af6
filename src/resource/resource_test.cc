#include "resource/resource.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace metier {
namespace {

using testing::HasSubstr;

Result<Resource> read(std::string_view text) {
  return resource_from_json(parse_json(text).value());
}

TEST(Resource, KeepsEveryFieldThroughBothWays) {
  const std::string text =
      R"({"apiVersion":"v1","kind":"Pod","metadata":{"name":"a","namespace":"p","uid":"u","labels":{"x":"1"},"annotations":{"metier.dev/y":"2"},)"
      R"("ownerReferences":[{"apiVersion":"kubeflow.org/v1","kind":"MPIJob","name":"m","uid":"mu"}],"finalizers":["f"]},)"
      R"("spec":{"containers":[{"name":"base","unknown":{"deep":[1,null]}}]},"extra":1.5,"status":{"phase":"Running"}})";
  const auto resource = read(text);
  ASSERT_TRUE(resource) << resource.error().text();
  EXPECT_EQ(dump_json(to_json(*resource)), text);
  EXPECT_EQ(resource->metadata.owner->uid, "mu");
  EXPECT_EQ(resource->spec().size(), 1U);
  EXPECT_EQ(key_of(*resource).text(), "p/Pod/a");
}

TEST(Resource, KeepsOwnersThatItDoesNotUse) {
  const std::string text =
      R"({"apiVersion":"v1","kind":"Pod","metadata":{"name":"a","ownerReferences":[{"kind":"A","name":"a","uid":"1"},)"
      R"({"kind":"B","name":"b","uid":"2","controller":true}]}})";
  const auto resource = read(text);
  ASSERT_TRUE(resource);
  EXPECT_EQ(resource->metadata.owner->uid, "2");
  EXPECT_EQ(dump_json(to_json(*resource)), text);
}

TEST(Resource, NamesFieldAndTypesOfWhatIsWrong) {
  const auto message = [](std::string_view text) { return read(text).error().text(); };
  EXPECT_THAT(message(R"([])"), HasSubstr("expected object, got list"));
  EXPECT_THAT(message(R"({"kind":"Pod"})"), HasSubstr("apiVersion"));
  EXPECT_THAT(message(R"({"apiVersion":"v1"})"), HasSubstr("kind"));
  EXPECT_THAT(message(R"({"apiVersion":"v1","kind":7})"),
              HasSubstr("kind: expected text, got integer"));
  EXPECT_THAT(message(R"({"apiVersion":"v1","kind":"Pod","metadata":"x"})"),
              HasSubstr("metadata: expected object, got text"));
  EXPECT_THAT(
      message(R"({"apiVersion":"v1","kind":"Pod","metadata":{"name":"a","labels":{"k":1}}})"),
      HasSubstr("metadata.labels.k: expected text, got integer"));
  EXPECT_THAT(message(R"({"apiVersion":"v1","kind":"Pod","metadata":{"name":"a"},"spec":[]})"),
              HasSubstr("spec: expected object, got list"));
  EXPECT_THAT(message(R"({"apiVersion":"v1","kind":"Pod","metadata":{}})"),
              HasSubstr("metadata.name"));
}

TEST(Resource, AcceptsTheNamesThatKubernetesAccepts) {
  EXPECT_TRUE(is_dns_label("a-1"));
  EXPECT_TRUE(is_dns_label(std::string(63, 'a')));
  for (const auto* bad : {"", "-a", "a-", "A", "a.b", "a_b"}) {
    EXPECT_FALSE(is_dns_label(bad)) << bad;
  }
  EXPECT_FALSE(is_dns_label(std::string(64, 'a')));
  EXPECT_TRUE(is_dns_subdomain("a.b-c.1"));
  for (const auto* bad : {"", ".", "a.", ".a", "a..b", "a.-b"}) {
    EXPECT_FALSE(is_dns_subdomain(bad)) << bad;
  }
  EXPECT_TRUE(is_label_value(""));
  EXPECT_TRUE(is_label_value("A.b_c-1"));
  EXPECT_FALSE(is_label_value("a b"));
  EXPECT_FALSE(is_label_value("_a"));
  EXPECT_TRUE(is_label_key("mlrun/uid"));
  EXPECT_TRUE(is_label_key("dask.org/cluster-name"));
  for (const auto* bad : {"", "/a", "a/", "a/b/c", "A/b"}) {
    EXPECT_FALSE(is_label_key(bad)) << bad;
  }
}

TEST(Resource, ChecksMetadataByTheRuleAndNamesIt) {
  EXPECT_TRUE(check_metadata({.name = "a.b", .name_space = "p", .labels = {{"mlrun/uid", "1"}}}));
  EXPECT_EQ(check_metadata({.name = "A"}).error().field, "metadata.name");
  EXPECT_EQ(check_metadata({.name = "a", .name_space = "a.b"}).error().field, "metadata.namespace");
  EXPECT_EQ(check_metadata({.name = "a", .labels = {{"k", "a b"}}}).error().field,
            "metadata.labels.k");
  EXPECT_EQ(
      check_metadata({.name = "a", .annotations = {{"k", std::string(300'000, 'x')}}}).error().kind,
      ErrorKind::too_large);
}

TEST(Resource, ShortensNamesRepeatablyAndKeepsThemApart) {
  EXPECT_EQ(shorten_name("short", 63), "short");
  const auto a = shorten_name(std::string(80, 'x') + "a", 63);
  const auto b = shorten_name(std::string(80, 'x') + "b", 63);
  EXPECT_LE(a.size(), 63U);
  EXPECT_NE(a, b);
  EXPECT_EQ(a, shorten_name(std::string(80, 'x') + "a", 63));
  EXPECT_TRUE(is_dns_label(a));
  EXPECT_TRUE(is_dns_label(shorten_name("aaaa----------bbbbbbbbbbbb", 16)));
}

TEST(Resource, SelectsByAllConditionsTogether) {
  const Resource pod{.kind = "Pod",
                     .metadata = {.name = "a",
                                  .name_space = "p",
                                  .labels = {{"x", "1"}, {"y", "2"}},
                                  .owner = OwnerRef{.uid = "o"}}};
  EXPECT_TRUE((Selector{}).matches(pod));
  EXPECT_TRUE(
      (Selector{
           .name_space = "p", .kind = "Pod", .name = "a", .labels = {{"x", "1"}}, .owner_uid = "o"})
          .matches(pod));
  EXPECT_FALSE((Selector{.name_space = ""}).matches(pod));
  EXPECT_FALSE((Selector{.labels = {{"x", "1"}, {"y", "3"}}}).matches(pod));
  EXPECT_FALSE((Selector{.labels = {{"z", ""}}}).matches(pod));
  EXPECT_FALSE((Selector{.owner_uid = "q"}).matches(pod));
}

TEST(Resource, ComparesWhatWasAskedForAndNothingElse) {
  auto a =
      read(R"({"apiVersion":"v1","kind":"Pod","metadata":{"name":"a"},"spec":{"x":1}})").value();
  auto b = a;
  b.status = "anything";
  b.version = 7;
  b.metadata.uid = "u";
  b.metadata.other["creationTimestamp"] = "now";
  EXPECT_TRUE(same_content(a, b));
  b.body["spec"].get_object()["x"] = 2;
  EXPECT_FALSE(same_content(a, b));
}

}  // namespace
}  // namespace metier
