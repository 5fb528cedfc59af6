#include "base/files.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/digest.h"

namespace metier {
namespace {

constexpr std::string_view kMagic = "METIER1";

Result<void> write_all(int fd, std::string_view data) {
  while (!data.empty()) {
    const auto n = ::write(fd, data.data(), data.size());
    if (n < 0) {
      if (errno == EINTR) { continue; }
      return fail(errno_error("write", errno));
    }
    data.remove_prefix(static_cast<std::size_t>(n));
  }
  return {};
}

}  // namespace

void Fd::reset(int fd) {
  if (fd_ >= 0) { ::close(fd_); }
  fd_ = fd;
}

Error errno_error(std::string_view what, int error) {
  ErrorKind kind = ErrorKind::internal;
  switch (error) {
    case ENOENT:
    case ENOTDIR: kind = ErrorKind::not_found; break;
    case EACCES:
    case EPERM: kind = ErrorKind::denied; break;
    case EEXIST: kind = ErrorKind::conflict; break;
    case ENOSPC:
    case EDQUOT:
    case EMFILE:
    case ENFILE:
    case EAGAIN:
    case ENOMEM: kind = ErrorKind::unavailable; break;
    default: break;
  }
  return Error{.kind = kind, .message = fmt::format("{}: {}", what, std::strerror(error))};
}

Result<std::string> read_file(const std::filesystem::path& path, std::size_t at_most) {
  struct stat info{};
  if (::stat(path.c_str(), &info) != 0) { return fail(errno_error(path.string(), errno)); }
  if (S_ISDIR(info.st_mode)) { return fail(ErrorKind::invalid, path.string() + ": is a folder"); }
  if (!S_ISREG(info.st_mode)) {
    return fail(ErrorKind::invalid, path.string() + ": is not a regular file");
  }
  if (static_cast<std::size_t>(info.st_size) > at_most) {
    return fail(ErrorKind::too_large, fmt::format("{}: {} bytes, at most {} are read",
                                                  path.string(), info.st_size, at_most));
  }
  const Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) { return fail(errno_error(path.string(), errno)); }
  std::string out;
  out.resize(static_cast<std::size_t>(info.st_size) + 1);
  std::size_t size = 0;
  while (true) {
    const auto n = ::read(fd.get(), out.data() + size, out.size() - size);
    if (n < 0) {
      if (errno == EINTR) { continue; }
      return fail(errno_error(path.string(), errno));
    }
    if (n == 0) { break; }
    size += static_cast<std::size_t>(n);
    if (size > at_most) {
      return fail(ErrorKind::too_large,
                  fmt::format("{}: more than {} bytes", path.string(), at_most));
    }
    if (size == out.size()) { out.resize(size * 2); }
  }
  out.resize(size);
  return out;
}

Result<void> write_file(const std::filesystem::path& path, std::string_view data, unsigned mode) {
  const Fd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode));
  if (!fd) { return fail(errno_error(path.string(), errno)); }
  auto written = write_all(fd.get(), data);
  if (!written) { return fail(std::move(written.error()).in(path.string())); }
  return {};
}

std::string record_bytes(std::string_view body) {
  return fmt::format("{} {} {:08x}\n{}", kMagic, body.size(), crc32c(body), body);
}

Result<std::string> record_body(std::string_view bytes) {
  const auto line_end = bytes.find('\n');
  if (line_end == std::string_view::npos || line_end > 40 || !bytes.starts_with(kMagic)) {
    return fail(ErrorKind::invalid, "damaged: no header");
  }
  const std::string header(bytes.substr(kMagic.size(), line_end - kMagic.size()));
  unsigned long long size = 0;
  unsigned crc = 0;
  if (std::sscanf(header.c_str(), " %llu %x", &size, &crc) != 2) {
    return fail(ErrorKind::invalid, "damaged: bad header");
  }
  const auto body = bytes.substr(line_end + 1);
  if (body.size() != size) {
    return fail(ErrorKind::invalid,
                fmt::format("damaged: {} bytes where the header says {}", body.size(), size));
  }
  if (crc32c(body) != crc) {
    return fail(ErrorKind::invalid, "damaged: its checksum does not match");
  }
  return std::string(body);
}

Result<void> write_record(const std::filesystem::path& path, std::string_view body, unsigned mode) {
  const auto temporary =
      path.parent_path() / fmt::format(".{}.{}", path.filename().string(), ::getpid());
  {
    const Fd fd(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode));
    if (!fd) { return fail(errno_error(temporary.string(), errno)); }
    auto written = write_all(fd.get(), record_bytes(body));
    if (written && ::fsync(fd.get()) != 0) { written = fail(errno_error("fsync", errno)); }
    if (!written) {
      ::unlink(temporary.c_str());
      return fail(std::move(written.error()).in(path.string()));
    }
  }
  if (::rename(temporary.c_str(), path.c_str()) != 0) {
    const int error = errno;
    ::unlink(temporary.c_str());
    return fail(errno_error(path.string(), error));
  }
  return sync_folder(path.parent_path());
}

Result<std::string> read_record(const std::filesystem::path& path) {
  METIER_TRY(bytes, read_file(path, 16U << 20U));
  auto body = record_body(bytes);
  if (!body) { return fail(std::move(body.error()).in(path.string())); }
  return body;
}

Result<void> sync_folder(const std::filesystem::path& folder) {
  const Fd fd(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd) { return fail(errno_error(folder.string(), errno)); }
  if (::fsync(fd.get()) != 0) { return fail(errno_error(folder.string(), errno)); }
  return {};
}

Result<void> make_folders(const std::filesystem::path& folder, unsigned mode) {
  if (folder.empty()) { return {}; }
  if (::mkdir(folder.c_str(), mode) == 0 || errno == EEXIST) { return {}; }
  if (errno != ENOENT) { return fail(errno_error(folder.string(), errno)); }
  METIER_CHECK(make_folders(folder.parent_path(), 0755));
  if (::mkdir(folder.c_str(), mode) != 0 && errno != EEXIST) {
    return fail(errno_error(folder.string(), errno));
  }
  return {};
}

}  // namespace metier
