#include "base/quantity.h"

#include <fmt/format.h>

#include <array>
#include <cmath>
#include <utility>

namespace metier {
namespace {

constexpr std::string_view kForms =
    "write a number with an optional suffix: 500m, 2, 1.5, 128Mi, 2G (10^9), 2Gi (2^30), 12e6";

std::unexpected<Error> not_a_quantity(std::string_view text) {
  auto error = invalid("", fmt::format("{} is not a quantity", quote(text)), std::string(kForms));
  if (text.ends_with("B") && text.size() > 2) {
    error.fix = fmt::format("leave the B away: {}, or {}i for powers of two",
                            text.substr(0, text.size() - 1), text.substr(0, text.size() - 1));
  }
  return fail(std::move(error));
}

// Factor of a suffix in thousandths, or 0. "m" is one thousandth of a unit; "u" and "n" round up to it.
double factor_of(std::string_view suffix) {
  static constexpr std::array<std::pair<std::string_view, double>, 16> kSuffixes{
      {{"", 1e3},
       {"n", 1e-6},
       {"u", 1e-3},
       {"m", 1},
       {"k", 1e6},
       {"M", 1e9},
       {"G", 1e12},
       {"T", 1e15},
       {"P", 1e18},
       {"E", 1e21},
       {"Ki", 1024e3},
       {"Mi", 1048576e3},
       {"Gi", 1073741824e3},
       {"Ti", 1099511627776e3},
       {"Pi", 1125899906842624e3},
       {"Ei", 1152921504606846976e3}}};
  for (const auto& [name, factor] : kSuffixes) {
    if (name == suffix) { return factor; }
  }
  return 0;
}

}  // namespace

Result<Quantity> Quantity::parse(std::string_view text) {
  std::size_t i = 0;
  const bool negative = text.starts_with('-');
  if (negative || text.starts_with('+')) { ++i; }
  const auto start = i;
  std::size_t digits = 0;
  std::size_t dots = 0;
  while (i < text.size() && ((text[i] >= '0' && text[i] <= '9') || text[i] == '.')) {
    text[i] == '.' ? ++dots : ++digits;
    ++i;
  }
  if (digits == 0 || dots > 1 || digits > 40) { return not_a_quantity(text); }
  const std::string number(text.substr(start, i - start));
  auto suffix = text.substr(i);
  long double value = std::strtold(number.c_str(), nullptr);
  double factor = factor_of(suffix);
  if (factor == 0 && suffix.size() >= 2 && (suffix[0] == 'e' || suffix[0] == 'E')) {
    const std::string exponent(suffix.substr(1));
    char* end = nullptr;
    const long power = std::strtol(exponent.c_str(), &end, 10);
    if (*end != '\0' || power > 18 || power < -18 || exponent.find(' ') != std::string::npos) {
      return not_a_quantity(text);
    }
    value *= std::pow(10.0L, power);
    factor = 1e3;
  }
  if (factor == 0) { return not_a_quantity(text); }
  const long double milli = std::ceil(value * static_cast<long double>(factor) - 1e-9L);
  if (milli > 9.2e18L) {
    return fail(invalid("", fmt::format("{} is larger than any machine", quote(text)),
                        "ask for less than 8Pi"));
  }
  const auto whole = static_cast<std::int64_t>(milli);
  return Quantity(negative ? -whole : whole);
}

std::string Quantity::cpu_text() const {
  return milli_ % 1000 == 0 ? fmt::format("{}", milli_ / 1000) : fmt::format("{}m", milli_);
}

std::string Quantity::bytes_text() const {
  const auto bytes = units();
  static constexpr std::array<std::pair<std::string_view, std::int64_t>, 4> kUnits{
      {{"Ti", 1LL << 40U}, {"Gi", 1LL << 30U}, {"Mi", 1LL << 20U}, {"Ki", 1LL << 10U}}};
  for (const auto& [name, size] : kUnits) {
    if (bytes >= size && bytes % size == 0) { return fmt::format("{}{}", bytes / size, name); }
  }
  return fmt::format("{}", bytes);
}

std::string human_bytes(std::int64_t bytes) {
  static constexpr std::array<std::string_view, 5> kNames{"B", "KiB", "MiB", "GiB", "TiB"};
  double value = static_cast<double>(bytes);
  std::size_t i = 0;
  while (value >= 1024 && i + 1 < kNames.size()) {
    value /= 1024;
    ++i;
  }
  if (i == 0) { return fmt::format("{} B", bytes); }
  return value < 10 ? fmt::format("{:.1f} {}", value, kNames[i])
                    : fmt::format("{:.0f} {}", value, kNames[i]);
}

}  // namespace metier
