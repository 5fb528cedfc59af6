#include "cli/source_scan.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>

namespace metier::cli {
namespace {

namespace fs = std::filesystem;

TEST(ScanPython, FindsFunctionsAndTheirParameters) {
  const auto scan = scan_python(R"py('''def not_this(a): pass'''
import os, sys as system
from helpers import (one,
    two as zwei)
# def nor_this(): pass
@decorator
def train(context, lr: float = 0.1, *, data: "DataItem" = f(1, 2), names=[1, 2], **kwargs):
    def inner(x): pass
    return "def text(y):"
async def later(
    a,
    b=")",
): ...
class Model:
    def fit(self): pass
alias = train
if __name__ == "__main__":
    train(None)
)py");
  ASSERT_EQ(scan.functions.size(), 3U);
  EXPECT_EQ(scan.functions[0].name, "train");
  EXPECT_EQ(scan.functions[0].line, 7);
  EXPECT_EQ(scan.functions[0].parameters,
            (std::vector<std::string>{"context", "lr", "data", "names"}));
  EXPECT_TRUE(scan.functions[0].any_keyword);
  EXPECT_EQ(scan.functions[1].parameters, (std::vector<std::string>{"a", "b"}));
  EXPECT_TRUE(scan.functions[2].is_class);
  EXPECT_EQ(scan.names, (std::vector<std::string>{"os", "system", "one", "zwei", "alias"}));
  EXPECT_FALSE(scan.open_ended);
}

TEST(ScanPython, AdmitsWhatItCannotKnow) {
  EXPECT_TRUE(scan_python("from x import *\n").open_ended);
  EXPECT_TRUE(scan_python("if A:\n    def f(): pass\n").open_ended);
  EXPECT_TRUE(scan_python("globals()['f'] = 1\n").open_ended);
  EXPECT_TRUE(scan_python("\"unterminated\ndef f(:\n(").functions.size() <= 1);
}

class Files : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string path = fs::temp_directory_path() / "metier-cli-XXXXXX";
    ASSERT_NE(::mkdtemp(path.data()), nullptr);
    folder_ = path;
    std::ofstream(folder_ + "/train.py")
        << "def train(context): pass\ndef evaluate(context): pass\n";
  }
  void TearDown() override { fs::remove_all(folder_); }
  std::string folder_;
};

TEST_F(Files, BothWaysToNameAHandler) {
  EXPECT_EQ(find_target(folder_ + "/train.py:train")->handler, "train");
  EXPECT_EQ(find_target(folder_ + "/train.py::train")->handler, "train");
  EXPECT_EQ(find_target(folder_ + "/train.py")->handler, "");
}

TEST_F(Files, SuggestsTheNearestHandler) {
  const auto target = find_target(folder_ + "/train.py:trian");
  ASSERT_FALSE(target);
  EXPECT_EQ(target.error().kind, ErrorKind::invalid);
  EXPECT_NE(target.error().fix.find("functions in this file: train, evaluate"), std::string::npos);
  EXPECT_NE(target.error().fix.find("train.py:train"), std::string::npos);
}

TEST_F(Files, RefusesWhatIsNoFileToRun) {
  ASSERT_EQ(::mkfifo((folder_ + "/pipe.py").c_str(), 0600), 0);
  EXPECT_EQ(find_target(folder_ + "/missing.py").error().kind, ErrorKind::not_found);
  EXPECT_EQ(find_target(folder_).error().kind, ErrorKind::invalid);
  EXPECT_EQ(find_target(folder_ + "/pipe.py").error().kind, ErrorKind::invalid);
  EXPECT_EQ(find_target("/dev/zero").error().kind, ErrorKind::invalid);
  for (const char* bad : {":", ":a:b", ":__import__('os')", ":a.", ":1"}) {
    EXPECT_EQ(find_target(folder_ + "/train.py" + bad).error().kind, ErrorKind::invalid) << bad;
  }
  EXPECT_FALSE(find_target(":h"));
}

}  // namespace
}  // namespace metier::cli
