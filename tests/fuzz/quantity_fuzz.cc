// Quantities, and the other small texts of a command line: printed and read again they are the same.
#include "base/quantity.h"

#include "base/clock.h"
#include "fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  using namespace metier;
  const auto text = fuzz::text_of(data, size);
  if (const auto quantity = Quantity::parse(text)) {
    const auto cpu = Quantity::parse(quantity->cpu_text());
    fuzz::require(cpu && *cpu == *quantity, "cpu text", quantity->cpu_text());
    const auto bytes = Quantity::parse(quantity->bytes_text());
    fuzz::require(bytes && bytes->units() == quantity->units(), "bytes text",
                  quantity->bytes_text());
    static_cast<void>(human_bytes(quantity->units()));
  } else {
    fuzz::require_sentence(quantity.error());
  }
  if (const auto time = from_iso(text)) {
    const auto again = from_iso(to_iso(*time));
    fuzz::require(again && *again == *time, "time", to_iso(*time));
  }
  return 0;
}
