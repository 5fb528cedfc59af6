#include "mpi/flavor.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

namespace metier::mpi {
namespace {

class FlavorTest : public ::testing::Test {
 protected:
  FlavorTest() {
    folder_ = ::testing::TempDir() + "flavor-XXXXXX";
    if (::mkdtemp(folder_.data()) == nullptr) { folder_.clear(); }
  }
  ~FlavorTest() override { std::filesystem::remove_all(folder_); }

  void write(const std::string& body) const {
    const auto file = folder_ + "/mpirun";
    std::filesystem::remove(file);
    std::ofstream(file) << "#!/bin/sh\necho $$ >> " << folder_ << "/asked\n" << body << "\n";
    EXPECT_EQ(::chmod(file.c_str(), 0755), 0);
  }
  std::string find(std::chrono::milliseconds limit = std::chrono::seconds(120)) {
    return find_engine("mpirun", "/nonexistent:" + folder_, engine_, limit);
  }
  std::vector<pid_t> asked() const {
    std::ifstream file(folder_ + "/asked");
    return {std::istream_iterator<pid_t>(file), {}};
  }

  std::string folder_;
  Engine engine_;
};

TEST_F(FlavorTest, AnMpirunThatItsPlaceDoesNotTellIsAskedOnce) {
  write("echo 'mpirun (Open MPI) 4.1.4'");
  EXPECT_EQ(find(), "");
  EXPECT_EQ(engine_.flavor, Flavor::openmpi4);
  EXPECT_EQ(find(), "");
  EXPECT_EQ(asked().size(), 1U);
  write("echo 'HYDRA build details:'");
  std::filesystem::last_write_time(
      folder_ + "/mpirun", std::filesystem::file_time_type::clock::now() + std::chrono::hours(1));
  EXPECT_EQ(find(), "");
  EXPECT_EQ(engine_.flavor, Flavor::mpich);
  EXPECT_EQ(asked().size(), 2U);
}

TEST_F(FlavorTest, AnMpirunThatDoesNotAnswerIsEndedAndRemembered) {
  write("sleep 600");
  const auto said = real(folder_) + "/mpirun --version does not end: choose another mpirun";
  EXPECT_EQ(find(std::chrono::milliseconds(1000)), said);
  EXPECT_EQ(find(), said);
  ASSERT_LE(asked().size(), 1U);  // none when this machine did not even come to its first line
  for (const pid_t pid : asked()) { EXPECT_NE(::kill(pid, 0), 0); }
}

TEST_F(FlavorTest, WhatIsNoMpiIsTold) {
  write("echo something else");
  EXPECT_EQ(find(),
            real(folder_) + "/mpirun is neither Open MPI 4 or 5 nor MPICH: choose another mpirun");
}

}  // namespace
}  // namespace metier::mpi
