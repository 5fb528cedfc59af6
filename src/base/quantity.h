// Kubernetes quantities: "500m", "2", "1.5Gi", "12e6". Exact in thousandths; source: Kubernetes'
// apimachinery resource.Quantity.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace metier {

class Quantity {
 public:
  Quantity() = default;
  // Errors: invalid, with the accepted forms as fix. Negative values parse; who needs positive checks it.
  static Result<Quantity> parse(std::string_view text);
  static Quantity from_milli(std::int64_t milli) { return Quantity(milli); }
  static Quantity from_units(std::int64_t units) { return Quantity(units * 1000); }

  std::int64_t milli() const { return milli_; }  // thousandths: millicores of a cpu quantity
  // Rounded up: bytes of a memory quantity.
  std::int64_t units() const { return milli_ / 1000 + (milli_ % 1000 > 0 ? 1 : 0); }
  std::string cpu_text() const;    // "500m", "2"
  std::string bytes_text() const;  // "1.5Gi", "231Mi", "12"
  auto operator<=>(const Quantity&) const = default;

 private:
  explicit Quantity(std::int64_t milli) : milli_(milli) {}
  std::int64_t milli_ = 0;
};

// "231 MiB", "1.0 GiB": sizes for people, powers of two.
std::string human_bytes(std::int64_t bytes);

}  // namespace metier
