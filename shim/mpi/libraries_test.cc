#include "mpi/libraries.h"

#include <elf.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <utility>

namespace metier::mpi {
namespace {

using Tags = std::vector<std::pair<Elf64_Sxword, std::string>>;

// The head of a shared library, as far as it is read.
std::string library(const Tags& tags) {
  std::string strings(1, '\0');
  std::vector<Elf64_Dyn> entries;
  for (const auto& [tag, text] : tags) {
    entries.push_back({.d_tag = tag, .d_un = {.d_val = strings.size()}});
    strings += text + '\0';
  }
  constexpr std::uint64_t kAddress = 0x4000;
  const std::uint64_t dynamic = sizeof(Elf64_Ehdr) + 2 * sizeof(Elf64_Phdr);
  const std::uint64_t table = dynamic + (entries.size() + 3) * sizeof(Elf64_Dyn);
  entries.push_back({.d_tag = DT_STRTAB, .d_un = {.d_ptr = kAddress + table}});
  entries.push_back({.d_tag = DT_STRSZ, .d_un = {.d_val = strings.size()}});
  entries.push_back({.d_tag = DT_NULL, .d_un = {.d_val = 0}});
  Elf64_Ehdr head{};
  std::memcpy(head.e_ident, ELFMAG, SELFMAG);
  head.e_ident[EI_CLASS] = ELFCLASS64;
  head.e_ident[EI_DATA] = ELFDATA2LSB;
  head.e_phoff = sizeof head;
  head.e_phentsize = sizeof(Elf64_Phdr);
  head.e_phnum = 2;
  Elf64_Phdr headers[2]{};
  headers[0] = {.p_type = PT_LOAD, .p_vaddr = kAddress, .p_filesz = table + strings.size()};
  headers[1] = {
      .p_type = PT_DYNAMIC, .p_offset = dynamic, .p_filesz = entries.size() * sizeof(Elf64_Dyn)};
  std::string out(reinterpret_cast<const char*>(&head), sizeof head);
  out.append(reinterpret_cast<const char*>(headers), sizeof headers);
  out.append(reinterpret_cast<const char*>(entries.data()), entries.size() * sizeof(Elf64_Dyn));
  return out + strings;
}

class LibrariesTest : public ::testing::Test {
 protected:
  LibrariesTest() {
    folder_ = ::testing::TempDir() + "libraries-XXXXXX";
    if (::mkdtemp(folder_.data()) == nullptr) { folder_.clear(); }
  }
  ~LibrariesTest() override { std::filesystem::remove_all(folder_); }

  std::string write(const std::string& name, const std::string& bytes) const {
    const auto file = folder_ + "/" + name;
    std::filesystem::create_directories(std::filesystem::path(file).parent_path());
    std::ofstream(file) << bytes;
    return file;
  }
  std::string linked(const Tags& tags, Flavor flavor, const std::string& path = "") const {
    return wrong_linked(write("fit.so", library(tags)), flavor, "/x/mpirun", path);
  }

  std::string folder_;
};

TEST_F(LibrariesTest, ReadsWhatAProgramNeeds) {
  Linked own;
  ASSERT_TRUE(read_linked("/proc/self/exe", own));
  EXPECT_NE(std::ranges::find(own.needed, "libc.so.6"), own.needed.end());
  Linked none;
  EXPECT_FALSE(read_linked(folder_ + "/nothing", none));
  EXPECT_FALSE(read_linked(folder_, none));
  EXPECT_FALSE(read_linked(write("short", std::string("\x7f") + "ELF"), none));
  const auto whole = library({{DT_NEEDED, "libmpi.so.40"}});
  for (std::size_t size = 0; size < whole.size(); ++size) {
    read_linked(write("cut", whole.substr(0, size)), none);
  }
}

TEST_F(LibrariesTest, TheLibraryOfMpi4pyHasToBeOfTheLaunchersMpi) {
  const auto wrong = [&](const std::string& file, Flavor flavor) {
    return wrong_library(file, flavor, "/x/mpirun");
  };
  const auto mpich = write("libmpi.so", library({{DT_SONAME, "libmpi.so.12"}}));
  EXPECT_EQ(wrong(mpich, Flavor::mpich), "");
  EXPECT_EQ(wrong(mpich, Flavor::openmpi4),
            "MPI4PY_LIBMPI is " + mpich +
                ", a library of MPICH, and mpirun is Open MPI 4 (/x/mpirun): "
                "take launcher and library from one place");
  const auto four = write("libmpi.so.40",
                          library({{DT_NEEDED, "libopen-rte.so.40"}, {DT_SONAME, "libmpi.so.40"}}));
  EXPECT_EQ(wrong(four, Flavor::openmpi4), "");
  EXPECT_NE(wrong(four, Flavor::openmpi5).find("a library of Open MPI 4, and mpirun is Open MPI 5"),
            std::string::npos);
  EXPECT_NE(wrong(write("libmpich.so.12", ""), Flavor::openmpi5).find("MPICH"), std::string::npos);
  EXPECT_EQ(
      wrong(write("libmpi_abi.so.1", library({{DT_SONAME, "libmpi_abi.so.1"}})), Flavor::openmpi5),
      "");
  EXPECT_EQ(wrong(folder_ + "/none.so", Flavor::openmpi4),
            "MPI4PY_LIBMPI is " + folder_ +
                "/none.so, which is not there, and mpirun is Open MPI 4 "
                "(/x/mpirun): write the whole path of that MPI's library, or leave it out");
}

TEST_F(LibrariesTest, AHandlerHasToBeLinkedAgainstTheLaunchersMpi) {
  EXPECT_EQ(linked({{DT_NEEDED, "libc.so.6"}}, Flavor::openmpi4), "");
  EXPECT_EQ(linked({{DT_NEEDED, "libmpich.so.12"}}, Flavor::mpich), "");
  EXPECT_EQ(
      linked({{DT_NEEDED, "libm.so.6"}, {DT_NEEDED, "libmpich.so.99"}}, Flavor::openmpi4),
      folder_ +
          "/fit.so is linked against libmpich.so.99, a library of MPICH, and mpirun is "
          "Open MPI 4 (/x/mpirun): build it with the mpicxx of that MPI, or let the function's "
          "environment bring the other");
  // Open MPI 4 and 5 have one name: the library that is found says which it is.
  write("five/libmpi.so.40",
        library({{DT_SONAME, "libmpi.so.40"}, {DT_NEEDED, "libopen-pal.so.80"}}));
  const Tags needs{{DT_NEEDED, "libmpi.so.40"}, {DT_RUNPATH, "$ORIGIN/none:$ORIGIN/five"}};
  EXPECT_EQ(linked(needs, Flavor::openmpi5), "");
  EXPECT_NE(
      linked(needs, Flavor::openmpi4).find(folder_ + "/five/libmpi.so.40, a library of Open MPI 5"),
      std::string::npos);
  EXPECT_EQ(linked({{DT_NEEDED, "libmpi.so.40"}}, Flavor::openmpi5, folder_ + "/five"), "");
}

}  // namespace
}  // namespace metier::mpi
