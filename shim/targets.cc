#include "targets.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace shim {
namespace {

constexpr std::size_t kPath = 4096;
constexpr int kMostEntries = 16384;
constexpr unsigned long kFlags = MS_NOSUID | MS_NODEV;
constexpr const char* kStage =
    "root";  // in the pod's folder, which is the working folder until exec

bool inside(const char* path, const char* folder) {
  const auto size = std::strlen(folder);
  if (size == 1) { return false; }  // everything is in "/": that says nothing
  return std::strncmp(path, folder, size) == 0 && (path[size] == '\0' || path[size] == '/');
}

bool bind(int source, const char* target) {
  char path[40];
  std::snprintf(path, sizeof path, "/proc/self/fd/%d", source);
  return ::mount(path, target, nullptr, MS_BIND | MS_REC, nullptr) == 0;
}

bool make_file(const char* path) {
  const int fd = ::open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0644);
  if (fd >= 0) { ::close(fd); }
  return fd >= 0;
}

// The entry `name` of `from` again as `path`: a link as a link, everything else bound.
bool repeat(int from, const char* name, const char* path) {
  const int entry = ::openat(from, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
  if (entry < 0) { return errno == ENOENT; }  // gone meanwhile
  struct stat info{};
  bool done = ::fstat(entry, &info) == 0;
  if (done && S_ISLNK(info.st_mode)) {
    char text[kPath];
    const auto size = ::readlinkat(from, name, text, sizeof text - 1);
    done = size >= 0;
    if (done) {
      text[size] = '\0';
      done = ::symlink(text, path) == 0;
    }
  } else if (done) {
    done =
        (S_ISDIR(info.st_mode) ? ::mkdir(path, 0755) == 0 : make_file(path)) && bind(entry, path);
  }
  const int error = errno;
  ::close(entry);
  errno = error;
  return done;
}

bool mount_cover(const char* path, const struct stat& like) {
  char options[64];
  std::snprintf(options, sizeof options, "mode=%04o,size=4m", like.st_mode & 07777U);
  if (::mount("metier", path, "tmpfs", kFlags, options) != 0) { return false; }
  [[maybe_unused]] const auto n =
      ::chown(path, like.st_uid, like.st_gid);  // not every namespace can
  return true;
}

}  // namespace

bool Targets::made_for_real(const char* parent, unsigned mode) const {
  if ((mode & S_IWOTH) != 0 || inside(parent, cwd_)) { return true; }
  for (const char* target : mounted_) {
    if (inside(parent, target)) { return true; }
  }
  return false;
}

bool Targets::fill(int from, const char* to) {
  const int copy = ::openat(from, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR* list = copy < 0 ? nullptr : ::fdopendir(copy);
  if (list == nullptr) { return false; }
  bool done = true;
  int entries = 0;
  while (const dirent* entry = done ? ::readdir(list) : nullptr) {
    const char* name = entry->d_name;
    if (equal(name, ".") || equal(name, "..")) { continue; }
    if (std::snprintf(where_, sizeof where_, "%s/%s", to, name) >=
            static_cast<int>(sizeof where_) ||
        ++entries > kMostEntries) {
      errno = E2BIG;
      done = false;
    } else {
      done = repeat(from, name, where_);
    }
  }
  const int error = errno;
  ::closedir(list);
  errno = error;
  return done;
}

bool Targets::cover(const char* folder) {
  std::snprintf(where_, sizeof where_, "%s", folder);
  const int from = ::open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
  struct stat info{};
  if (from < 0 || ::fstat(from, &info) != 0 || !mount_cover(folder, info)) { return false; }
  const bool done = fill(from, folder);
  const int error = errno;
  ::close(from);
  errno = error;
  return done;
}

// Nothing can be mounted over "/": the new root is made in the pod's folder and takes its place.
bool Targets::cover_root() {
  std::snprintf(where_, sizeof where_, "/");
  struct stat info{};
  if (::stat("/", &info) != 0) { return false; }
  char stage[kPath];
  if (::getcwd(stage, sizeof stage - 8) == nullptr) { return false; }
  std::strcat(stage, "/");
  std::strcat(stage, kStage);
  if (::mkdir(stage, 0700) != 0 && errno != EEXIST) { return false; }
  if (!mount_cover(stage, info)) { return false; }
  // The folder that the stage is in is bound again too: without a copy of the stage in it.
  if (::mount(nullptr, stage, nullptr, MS_UNBINDABLE, nullptr) != 0) { return false; }
  const int from = ::open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
  const bool filled = from >= 0 && fill(from, stage);
  if (!filled) { return false; }
  ::close(from);
  std::snprintf(where_, sizeof where_, "/");
  if (::chdir(stage) != 0 || ::syscall(SYS_pivot_root, ".", ".") != 0) { return false; }
  // The old root lies on the new one now; both are ".".
  if (::mount(nullptr, ".", nullptr, MS_REC | MS_SLAVE, nullptr) != 0 ||
      ::umount2(".", MNT_DETACH) != 0) {
    return false;
  }
  return ::chdir("/") == 0;
}

bool Targets::make(const char* target, bool folder) {
  struct stat info{};
  if (::stat(target, &info) == 0) { return true; }
  char path[kPath];
  if (std::snprintf(path, sizeof path, "%s", target) >= static_cast<int>(sizeof path)) {
    errno = ENAMETOOLONG;
    return false;
  }
  // The nearest folder that is there.
  char parent[kPath];
  std::memcpy(parent, path, sizeof path);
  do {
    char* slash = std::strrchr(parent, '/');
    if (slash == nullptr) {
      errno = EINVAL;
      return false;
    }
    slash[slash == parent ? 1 : 0] = '\0';
  } while (::stat(parent, &info) != 0 && !equal(parent, "/"));
  bool covered = false;
  for (const auto device : devices_) { covered = covered || device == info.st_dev; }
  const bool real = !covered && made_for_real(parent, info.st_mode);
  if (!covered && !real) {
    if (equal(parent, "/") ? !cover_root() : !cover(parent)) { return false; }
    if (::stat(parent, &info) != 0) { return false; }
    devices_.push() = info.st_dev;
    covers_.push() = ::strdup(parent);
  }
  std::snprintf(where_, sizeof where_, "%s", target);
  const auto own = [&](const char* made) {
    if (real && spec_.has_identity) {
      [[maybe_unused]] const auto n = ::lchown(made, spec_.uid, spec_.gid);
    }
  };
  for (char* at = path + 1; *at != '\0'; ++at) {
    if (*at != '/') { continue; }
    *at = '\0';
    if (::mkdir(path, 0755) == 0) {
      own(path);
    } else if (errno != EEXIST) {
      return false;
    }
    *at = '/';
  }
  if (folder ? ::mkdir(path, 0755) != 0 && errno != EEXIST : !make_file(path)) { return false; }
  own(path);
  return true;
}

bool Targets::seal() {
  for (const char* folder : covers_) {
    std::snprintf(where_, sizeof where_, "%s", folder);
    if (::mount(nullptr, folder, nullptr, MS_REMOUNT | MS_BIND | MS_RDONLY | kFlags, nullptr) !=
        0) {
      return false;
    }
  }
  return true;
}

}  // namespace shim
