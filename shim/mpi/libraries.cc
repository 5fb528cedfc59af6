#include "mpi/libraries.h"

#include <elf.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <string_view>

namespace metier::mpi {
namespace {

constexpr std::size_t kMostHeaders = 256;
constexpr std::size_t kMostEntries = 4096;
constexpr std::size_t kMostText = 1U << 20U;

std::string name_of(const std::string& path) { return path.substr(path.rfind('/') + 1); }

class File final {
 public:
  explicit File(const std::string& path) : fd_(::open(path.c_str(), O_RDONLY | O_CLOEXEC)) {}
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  ~File() {
    if (fd_ >= 0) { ::close(fd_); }
  }
  bool read(std::uint64_t at, void* out, std::size_t size) const {
    return fd_ >= 0 &&
           ::pread(fd_, out, size, static_cast<off_t>(at)) == static_cast<ssize_t>(size);
  }

 private:
  int fd_;
};

std::vector<Elf64_Phdr> headers_of(const File& file) {
  Elf64_Ehdr head{};
  if (!file.read(0, &head, sizeof head) ||
      !std::equal(head.e_ident, head.e_ident + SELFMAG, ELFMAG) ||
      head.e_ident[EI_CLASS] != ELFCLASS64 || head.e_ident[EI_DATA] != ELFDATA2LSB ||
      head.e_phentsize != sizeof(Elf64_Phdr) || head.e_phnum > kMostHeaders) {
    return {};
  }
  std::vector<Elf64_Phdr> out(head.e_phnum);
  if (!file.read(head.e_phoff, out.data(), out.size() * sizeof(Elf64_Phdr))) { return {}; }
  return out;
}

std::vector<Elf64_Dyn> entries_of(const File& file, const std::vector<Elf64_Phdr>& headers) {
  for (const auto& one : headers) {
    if (one.p_type != PT_DYNAMIC) { continue; }
    std::vector<Elf64_Dyn> out(std::min(one.p_filesz / sizeof(Elf64_Dyn), kMostEntries));
    if (!file.read(one.p_offset, out.data(), out.size() * sizeof(Elf64_Dyn))) { return {}; }
    return out;
  }
  return {};
}

std::string strings_of(const File& file, const std::vector<Elf64_Phdr>& headers,
                       const std::vector<Elf64_Dyn>& entries) {
  std::uint64_t address = 0;
  std::uint64_t size = 0;
  for (const auto& one : entries) {
    if (one.d_tag == DT_STRTAB) { address = one.d_un.d_ptr; }
    if (one.d_tag == DT_STRSZ) { size = one.d_un.d_val; }
  }
  for (const auto& one : headers) {
    if (one.p_type != PT_LOAD || address < one.p_vaddr || address - one.p_vaddr >= one.p_filesz) {
      continue;
    }
    std::string out(std::min<std::uint64_t>(size, kMostText), '\0');
    return file.read(one.p_offset + (address - one.p_vaddr), out.data(), out.size())
               ? out
               : std::string();
  }
  return {};
}

// "libmpi.so.40", "libmpi_mpifh.so.40.30.0"; "libmpich.so.12", "libmpicxx.so.12", "libmpi.so.12".
std::string_view mpi_of_name(std::string_view name) {
  if (name.starts_with("libmpich")) { return "MPICH"; }
  if (!name.starts_with("libmpi")) { return {}; }
  if (name.find(".so.40") != std::string_view::npos) { return "Open MPI"; }
  return name.find(".so.12") != std::string_view::npos ? "MPICH" : std::string_view();
}

bool fits(std::string_view mpi, Flavor flavor) {
  return mpi.empty() || to_string(flavor).starts_with(mpi);
}

std::string is_of(Flavor flavor, const std::string& launcher) {
  return "mpirun is " + std::string(to_string(flavor)) + " (" + launcher + ")";
}

// Where the loader finds a library that `file` needs; empty: only it knows.
std::string found(const std::string& library, const std::string& file, const Linked& linked,
                  const std::string& library_path) {
  const auto origin = file.find('/') == std::string::npos ? "." : file.substr(0, file.rfind('/'));
  std::string folders = linked.runpath.empty() ? linked.rpath + ":" : std::string();
  folders += library_path + ":" + linked.runpath +
             ":/lib/x86_64-linux-gnu:/usr/lib/x86_64-linux-gnu:/lib/aarch64-linux-gnu:"
             "/usr/lib/aarch64-linux-gnu:/lib64:/usr/lib64:/lib:/usr/lib";
  for (std::size_t at = 0; at < folders.size();) {
    const auto end = std::min(folders.find(':', at), folders.size());
    auto folder = folders.substr(at, end - at);
    at = end + 1;
    for (const std::string_view word : {"${ORIGIN}", "$ORIGIN"}) {
      if (const auto place = folder.find(word); place != std::string::npos) {
        folder.replace(place, word.size(), origin);
      }
    }
    const auto path = folder + "/" + library;
    if (!folder.empty() && ::access(path.c_str(), F_OK) == 0) { return path; }
  }
  return {};
}

}  // namespace

bool read_linked(const std::string& path, Linked& out) {
  const File file(path);
  const auto headers = headers_of(file);
  const auto entries = entries_of(file, headers);
  const auto strings = strings_of(file, headers, entries);
  if (strings.empty()) { return false; }
  const auto text = [&strings](std::uint64_t at) {
    return at < strings.size() ? std::string(strings.c_str() + at) : std::string();
  };
  for (const auto& one : entries) {
    if (one.d_tag == DT_NULL) { break; }
    if (one.d_tag == DT_SONAME) { out.soname = text(one.d_un.d_val); }
    if (one.d_tag == DT_NEEDED) { out.needed.push_back(text(one.d_un.d_val)); }
    if (one.d_tag == DT_RPATH) { out.rpath = text(one.d_un.d_val); }
    if (one.d_tag == DT_RUNPATH) { out.runpath = text(one.d_un.d_val); }
  }
  return true;
}

std::string mpi_of_library(const std::string& file) {
  Linked linked;
  const bool read = read_linked(file, linked);
  const std::string mpi(
      mpi_of_name(read && !linked.soname.empty() ? linked.soname : name_of(file)));
  if (mpi != "Open MPI") { return mpi; }
  for (const auto& needed : linked.needed) {
    if (needed.starts_with("libopen-rte")) { return "Open MPI 4"; }
    if (needed.starts_with("libopen-pal") && needed.find(".so.80") != std::string::npos) {
      return "Open MPI 5";
    }
  }
  return mpi;
}

std::string wrong_library(const std::string& file, Flavor flavor, const std::string& launcher) {
  if (::access(file.c_str(), F_OK) != 0) {
    return "MPI4PY_LIBMPI is " + file + ", which is not there, and " + is_of(flavor, launcher) +
           ": write the whole path of that MPI's library, or leave it out";
  }
  const auto mpi = mpi_of_library(file);
  if (fits(mpi, flavor)) { return {}; }
  return "MPI4PY_LIBMPI is " + file + ", a library of " + mpi + ", and " + is_of(flavor, launcher) +
         ": take launcher and library from one place";
}

std::string wrong_linked(const std::string& file, Flavor flavor, const std::string& launcher,
                         const std::string& library_path) {
  Linked linked;
  if (!read_linked(file, linked)) { return {}; }
  for (const auto& needed : linked.needed) {
    if (mpi_of_name(needed).empty()) { continue; }
    const auto library = found(needed, file, linked, library_path);
    const auto mpi = library.empty() ? std::string(mpi_of_name(needed)) : mpi_of_library(library);
    if (!fits(mpi, flavor)) {
      return file + " is linked against " + (library.empty() ? needed : library) +
             ", a library of " + mpi + ", and " + is_of(flavor, launcher) +
             ": build it with the mpicxx of that MPI, or let the function's environment bring "
             "the other";
    }
  }
  return {};
}

}  // namespace metier::mpi
