#include "base/programs.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace metier {

TEST(Programs, AreFoundAndShimsPassedOver) {
  namespace fs = std::filesystem;
  std::string pattern = testing::TempDir() + "metier-find-program.XXXXXX";
  const fs::path root = ::mkdtemp(pattern.data());
  const auto program = [&](const std::string& path) {
    const fs::path file = root / path;
    fs::create_directories(file.parent_path());
    std::ofstream(file) << "#!/bin/sh\n";
    fs::permissions(file, fs::perms::owner_all);
    return file.string();
  };
  const auto shim = program("pyenv/shims/python3.13");
  const auto real = program("pyenv/versions/3.13.0/bin/python3.13");
  program("pyenv/versions/3.12.1/bin/python3.12");
  const std::string path = ":/none:" + (root / "pyenv/shims").string();
  EXPECT_EQ(find_program(path, "python3.13"), shim);
  EXPECT_EQ(find_program(path, "python3.15"), "");
  EXPECT_EQ(find_program(path, shim), shim);
  EXPECT_EQ(find_program(path, "/none/python3"), "");
  EXPECT_EQ(find_interpreter(path, "python3.13"), real);
  program("pyenv/shims/python3.14");  // a shim of nothing
  const auto other = program("bin/python3.14");
  program("bin/python3.13");
  const std::string both = path + ":" + (root / "bin").string();
  EXPECT_EQ(find_interpreter(both, "python3.14"), other);
  EXPECT_EQ(find_interpreter(both, "python3.13"), real);
  EXPECT_EQ(find_uv("/a/uv", path), "/a/uv");
  const auto uv = program("bin/uv");
  EXPECT_EQ(find_uv("", (root / "bin").string()), uv);
  fs::remove_all(root);
}

}  // namespace metier
