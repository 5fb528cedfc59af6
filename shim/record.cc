#include "record.h"

#include <fcntl.h>
#include <unistd.h>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace shim {
namespace {

std::uint32_t crc32c(const char* data, std::size_t size) {
  std::uint32_t crc = 0xFFFFFFFFU;
  for (std::size_t i = 0; i < size; ++i) {
    crc ^= static_cast<unsigned char>(data[i]);
    for (int bit = 0; bit < 8; ++bit) { crc = (crc >> 1U) ^ (0x82F63B78U & (0U - (crc & 1U))); }
  }
  return ~crc;
}

int write_all(int fd, const char* data, std::size_t size) {
  while (size > 0) {
    const auto n = ::write(fd, data, size);
    if (n < 0) {
      if (errno == EINTR) { continue; }
      return errno;
    }
    data += n;
    size -= static_cast<std::size_t>(n);
  }
  return 0;
}

// Reads a small file of /proc or /sys into `out`, NUL-ended; its size, or -1.
int slurp(const char* path, char* out, std::size_t room) {
  const int fd = ::open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) { return -1; }
  std::size_t size = 0;
  while (size + 1 < room) {
    const auto n = ::read(fd, out + size, room - 1 - size);
    if (n <= 0) { break; }
    size += static_cast<std::size_t>(n);
  }
  ::close(fd);
  out[size] = '\0';
  return static_cast<int>(size);
}

}  // namespace

int write_record(const char* name, const Text& body, Durable durable) {
  char header[64];
  std::snprintf(header, sizeof header, "METIER1 %zu %08x\n", body.size(),
                crc32c(body.c_str(), body.size()));
  char temporary[96];
  std::snprintf(temporary, sizeof temporary, ".%s.new", name);
  const int fd = ::open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0) { return errno; }
  int error = write_all(fd, header, std::strlen(header));
  if (error == 0) { error = write_all(fd, body.c_str(), body.size()); }
  if (error == 0 && durable == Durable::yes && ::fsync(fd) != 0) { error = errno; }
  ::close(fd);
  if (error == 0 && ::rename(temporary, name) != 0) { error = errno; }
  if (error != 0) {
    ::unlink(temporary);
    return error;
  }
  if (durable == Durable::no) { return 0; }
  const int folder = ::open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder >= 0) {
    if (::fsync(folder) != 0) { error = errno; }
    ::close(folder);
  }
  return error;
}

long long oom_kills(const char* file) {
  if (file[0] == '\0') { return 0; }
  char text[1024];
  if (slurp(file, text, sizeof text) < 0) { return 0; }
  const char* found = std::strstr(text, "oom_kill ");
  return found == nullptr ? 0 : std::strtoll(found + 9, nullptr, 10);
}

bool process_facts(int pid, int& parent, char& state, char (&name)[32]) {
  char path[48];
  std::snprintf(path, sizeof path, "/proc/%d/stat", pid);
  char text[1024];
  if (slurp(path, text, sizeof text) <= 0) { return false; }
  const char* open = std::strchr(text, '(');
  const char* close = std::strrchr(text, ')');
  if (open == nullptr || close == nullptr || close[1] == '\0') { return false; }
  std::size_t size = static_cast<std::size_t>(close - open - 1);
  if (size >= sizeof name) { size = sizeof name - 1; }
  std::memcpy(name, open + 1, size);
  name[size] = '\0';
  state = close[2];
  parent = static_cast<int>(std::strtol(close + 3, nullptr, 10));
  return true;
}

long long start_ticks(int pid) {
  char path[48];
  std::snprintf(path, sizeof path, "/proc/%d/stat", pid);
  char text[1024];
  if (slurp(path, text, sizeof text) <= 0) { return 0; }
  const char* at = std::strrchr(text, ')');
  for (int field = 2; at != nullptr && field < 22; ++field) { at = std::strchr(at + 1, ' '); }
  return at == nullptr ? 0 : std::strtoll(at, nullptr, 10);
}

const char* boot_id() {
  static char id[64];
  if (id[0] == '\0') {
    const int size = slurp("/proc/sys/kernel/random/boot_id", id, sizeof id);
    if (size > 0 && id[size - 1] == '\n') { id[size - 1] = '\0'; }
  }
  return id;
}

#ifdef METIER_FAILPOINTS_ENABLED
void failpoint(const char* name) {
  const char* armed = std::getenv("METIER_SHIM_FAILPOINT");
  if (armed != nullptr && equal(armed, name)) { ::kill(::getpid(), SIGKILL); }
}
#endif

}  // namespace shim
