// The shim's own parser: netstrings on a descriptor. Every refusal has a reason, and an accepted spec has a container.
#include <sys/mman.h>
#include <unistd.h>

#include "fuzz.h"
#include "spec.h"

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  using metier::fuzz::require;
  const int fd = ::memfd_create("spec", MFD_CLOEXEC);
  require(fd >= 0 && ::write(fd, data, size) == static_cast<ssize_t>(size), "memfd");
  ::lseek(fd, 0, SEEK_SET);
  shim::Spec spec;
  const char* why = nullptr;
  if (shim::read_spec(fd, spec, why)) {
    require(spec.containers.size() > 0, "accepted without a container");
    for (const auto& container : spec.containers) {
      require(container.args != nullptr && container.args->size() > 0, "nothing to run");
    }
  } else {
    require(why != nullptr && *why != '\0', "refused without a reason");
  }
  ::close(fd);
  return 0;
}
