#include "cluster/embedded/address_book.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cluster/embedded/loopback_network.h"

namespace metier {
namespace {

using testing::HasSubstr;
using testing::Not;

Pod pod(std::string name, Labels labels = {}, int port = 0) {
  Pod out;
  out.metadata = {.name = std::move(name), .name_space = "p", .labels = std::move(labels)};
  out.containers.push_back({.name = "base"});
  if (port != 0) { out.containers[0].ports.push_back({.name = "main", .port = port}); }
  return out;
}

Resource service(std::string name, std::string_view spec) {
  Resource out{.api_version = "v1",
               .kind = "Service",
               .metadata = {.name = std::move(name), .name_space = "p"}};
  out.body["spec"] = parse_json(spec).value();
  return out;
}

TEST(AddressBook, GivesNoAddressToAPodThatNobodyReaches) {
  AddressBook book(64);
  EXPECT_EQ(*book.take(pod("a"), "1", false), "");
  EXPECT_NE(*book.take(pod("b", {}, 80), "2", false), "");
  EXPECT_NE(*book.take(pod("c"), "3", true), "");
  EXPECT_EQ(book.hosts(pod("a"), ""), "");
}

TEST(AddressBook, GivesEachPodItsOwnAndTakesItBack) {
  AddressBook book(64);
  const auto first = *book.take(pod("a", {}, 80), "1", false);
  const auto second = *book.take(pod("b", {}, 80), "2", false);
  EXPECT_NE(first, second);
  EXPECT_EQ(*book.take(pod("a", {}, 80), "1", false), first);  // asked again
  book.release("1");
  book.release("1");
  const auto many = pod("x", {}, 80);
  for (int i = 0; i < 65'533; ++i) { ASSERT_TRUE(book.take(many, "x" + std::to_string(i), false)); }
  EXPECT_EQ(book.take(pod("y", {}, 80), "y", false).error().kind, ErrorKind::exhausted);
  book.release("2");
  EXPECT_EQ(*book.take(pod("y", {}, 80), "y", false), second);
}

TEST(AddressBook, TheFirstPodOfAServiceTakesItsAddress) {
  AddressBook book(64);
  const auto address = book.put_service(
      service("web", R"({"selector":{"app":"web"},"ports":[{"port":80,"targetPort":"main"}]})"),
      "");
  EXPECT_NE(address, "");
  EXPECT_EQ(
      book.put_service(
          service("web", R"({"selector":{"app":"web"},"ports":[{"port":80,"targetPort":"main"}]})"),
          ""),
      address);
  EXPECT_EQ(*book.take(pod("a", {{"app", "web"}}, 8080), "1", false), address);
  EXPECT_NE(*book.take(pod("b", {{"app", "web"}}, 8080), "2", false), address);
  EXPECT_EQ(*book.reach("p", "web", ""), address + ":8080");
  EXPECT_EQ(*book.reach("p", "web", "80"), address + ":8080");
  EXPECT_EQ(book.reach("p", "web", "81").error().kind, ErrorKind::not_found);
  EXPECT_EQ(book.reach("q", "web", "80").error().kind, ErrorKind::not_found);
  book.release("1");
  EXPECT_EQ(*book.take(pod("c", {{"app", "web"}}, 8080), "3", false),
            address);  // its successor has it again
}

TEST(AddressBook, ASelectorThatSelectsNothingSelectsNoPod) {
  AddressBook book(64);
  (void)book.put_service(service("external", R"({"ports":[{"port":80}]})"), "");
  EXPECT_EQ(*book.take(pod("a", {{"app", "web"}}), "1", false), "");
}

TEST(AddressBook, NamesServicesAndPodsOfTheProjectOnly) {
  AddressBook book(64);
  (void)book.put_service(service("web", R"({"selector":{"app":"web"},"ports":[{"port":80}]})"), "");
  (void)book.put_service(service("all", R"({"clusterIP":"None","selector":{"app":"web"}})"), "");
  auto one = pod("one", {{"app", "web"}}, 80);
  one.hostname = "host0";
  one.subdomain = "all";
  const auto address = *book.take(one, "1", false);
  const auto hosts = book.hosts(pod("other"), "");
  EXPECT_THAT(hosts, HasSubstr("127.0.0.1 localhost\n"));
  EXPECT_THAT(hosts, HasSubstr(address + " host0 one host0.all host0.all.p host0.all.p.svc"));
  EXPECT_THAT(hosts, HasSubstr(address + " web web.p web.p.svc web.p.svc.cluster.local\n"));
  EXPECT_THAT(hosts, HasSubstr(address + " all all.p"));
  auto stranger = pod("stranger");
  stranger.metadata.name_space = "q";
  EXPECT_EQ(book.hosts(stranger, ""), "");
  book.remove_service({.name_space = "p", .kind = "Service", .name = "web"});
  EXPECT_THAT(book.hosts(pod("other"), ""), Not(HasSubstr(" web ")));
}

TEST(LoopbackNetwork, IsOneServersAndTheSameAfterItsEnd) {
  std::optional<LoopbackNetwork> one(std::in_place, "/a");
  const unsigned own = one->number();
  const LoopbackNetwork other("/a");  // a server whose data folder has the same sum
  EXPECT_NE(other.number(), own);
  EXPECT_TRUE(AddressBook(own)
                  .take(pod("x", {}, 80), "1", false)
                  ->starts_with("127." + std::to_string(own) + "."));
  one.reset();
  EXPECT_EQ(LoopbackNetwork("/a").number(), own);
  // When all are taken it is the seed's, so another one of that seed has the same. Tests beside this one give theirs back
  // meanwhile: they are taken too.
  std::vector<std::unique_ptr<LoopbackNetwork>> all;
  const auto next = [&all] {
    all.push_back(std::make_unique<LoopbackNetwork>("/c"));
    return all.back()->number();
  };
  unsigned before = next();
  unsigned last = next();
  while (last != before && all.size() < 1000) { before = std::exchange(last, next()); }
  EXPECT_EQ(last, before);
}

}  // namespace
}  // namespace metier
