// The 127.N network of one server among those of this machine.
#pragma once

#include <string_view>

#include "base/files.h"

namespace metier {

// Held as long as the object lives; the kernel gives it back when the process dies.
class LoopbackNetwork final {
 public:
  // The network that belongs to the seed (a data folder), so that a server finds its own again; the next free one when
  // another server of this machine has it. Where claims cannot be made it is the seed's.
  explicit LoopbackNetwork(std::string_view seed);
  unsigned number() const { return number_; }  // 64 … 191: the second byte of its addresses

 private:
  unsigned number_ = 64;
  Fd claim_;
};

}  // namespace metier
