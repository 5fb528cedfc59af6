// Places for a pod's mounts that the host does not have. They are made in the pod's own mount namespace: the nearest
// folder that exists is covered by a small file system in memory in which everything that is in it appears again, and
// the missing names beside it. When all mounts are made the cover is read-only: what a program writes there fails
// instead of getting lost. Nothing of it is on the host.
//
// Made for real, as the pod's user: a place in another mount, in the working folder, or in a folder that everybody may
// write to (/tmp), whose files have to outlive the pod.
#pragma once

#include "spec.h"

namespace shim {

class Targets {
 public:
  Targets(const Spec& spec, const char* cwd) : spec_(spec), cwd_(cwd) {}
  // False with errno; `where` is what it was about.
  bool make(const char* target, bool folder);
  void mounted(const char* target) { mounted_.push() = target; }
  bool seal();
  const char* where() const { return where_; }

 private:
  bool cover(const char* folder);
  bool cover_root();
  bool fill(int from, const char* to);
  bool made_for_real(const char* parent, unsigned mode) const;

  const Spec& spec_;
  const char* cwd_;
  List<const char*> mounted_;
  List<const char*> covers_;
  List<unsigned long long> devices_;
  char where_[4096] = "";
};

}  // namespace shim
