// Files: whole reads, durable small files, descriptors with an owner.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "base/result.h"

namespace metier {

// Owns a file descriptor.
class Fd final {
 public:
  Fd() = default;
  explicit Fd(int fd) : fd_(fd) {}
  Fd(Fd&& other) noexcept : fd_(other.release()) {}
  Fd& operator=(Fd&& other) noexcept {
    reset(other.release());
    return *this;
  }
  ~Fd() { reset(); }
  int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }
  int release() {
    const int fd = fd_;
    fd_ = -1;
    return fd;
  }
  void reset(int fd = -1);

 private:
  int fd_ = -1;
};

// An error with errno's text: "/a/b: No such file or directory".
Error errno_error(std::string_view what, int error);

// Errors: not_found, invalid (a folder, a device), too_large.
Result<std::string> read_file(const std::filesystem::path& path, std::size_t at_most = 64U << 20U);
Result<void> write_file(const std::filesystem::path& path, std::string_view data,
                        unsigned mode = 0600);

// A small file that survives power loss and is never half there: temporary name, header (magic, name,
// length, CRC-32C), fsync, rename, fsync of the folder. Read back by read_record, which treats a bad
// header or checksum as damaged (invalid) and an absent file as not_found.
Result<void> write_record(const std::filesystem::path& path, std::string_view body,
                          unsigned mode = 0600);
Result<std::string> read_record(const std::filesystem::path& path);
// The bytes of such a file, for programs that write it themselves (the shim uses the same form).
std::string record_bytes(std::string_view body);
Result<std::string> record_body(std::string_view bytes);

Result<void> sync_folder(const std::filesystem::path& folder);
Result<void> make_folders(const std::filesystem::path& folder, unsigned mode = 0700);

}  // namespace metier
