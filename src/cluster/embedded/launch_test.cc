#include "cluster/embedded/launch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>

namespace metier {
namespace {

std::string expand(std::string_view text) {
  const std::string value = "v";
  const std::string dollar = "$(A)";
  return expand_variables(text, [&](std::string_view name) {
    return name == "A" ? &value : name == "D" ? &dollar : nullptr;
  });
}

TEST(ExpandVariables, DoesWhatKubernetesDoes) {
  EXPECT_EQ(expand("$(A)"), "v");
  EXPECT_EQ(expand("x$(A)y$(A)"), "xvyv");
  EXPECT_EQ(expand("$(UNKNOWN)"), "$(UNKNOWN)");
  EXPECT_EQ(expand("$$(A)"), "$(A)");
  EXPECT_EQ(expand("$$$(A)"), "$v");
  EXPECT_EQ(expand("$A ${A} $"), "$A ${A} $");
  EXPECT_EQ(expand("$(A"), "$(A");
  EXPECT_EQ(expand("$()"), "$()");
  EXPECT_EQ(expand("$(D)"), "$(A)");  // a value is not expanded again: no cycle can arise
}

class MakeBeneath : public testing::Test {
 protected:
  MakeBeneath()
      : folder(std::filesystem::temp_directory_path() /
               ("metier-beneath-" + std::to_string(getpid()))) {
    std::filesystem::create_directories(folder / "volume");
  }
  ~MakeBeneath() override { std::filesystem::remove_all(folder); }
  Result<void> make(const std::string& relative) {
    return make_beneath((folder / "volume").string(), relative);
  }
  std::filesystem::path folder;
};

TEST_F(MakeBeneath, MakesFoldersAndAcceptsThemAgain) {
  EXPECT_TRUE(make("a/b/c"));
  EXPECT_TRUE(make("a/b/c"));
  EXPECT_TRUE(make("./a//d/"));
  EXPECT_TRUE(std::filesystem::is_directory(folder / "volume/a/d"));
  std::ofstream(folder / "volume/a/file") << "x";
  EXPECT_TRUE(make("a/file"));
  EXPECT_FALSE(make("a/file/below"));
}

TEST_F(MakeBeneath, NeverLeavesTheVolume) {
  EXPECT_FALSE(make("../outside"));
  EXPECT_FALSE(make("a/../../outside"));
  std::filesystem::create_directory_symlink(folder, folder / "volume/link");
  EXPECT_FALSE(make("link/outside"));
  EXPECT_FALSE(make("link"));
  std::filesystem::create_symlink("/nonexistent/file", folder / "volume/dangling");
  EXPECT_FALSE(make("dangling"));
  EXPECT_FALSE(std::filesystem::exists(folder / "outside"));
}

}  // namespace
}  // namespace metier
