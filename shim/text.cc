#include "text.h"

#include <unistd.h>
#include <cstdlib>
#include <cstring>
#include <ctime>

namespace shim {

void* grown(void* old, std::size_t bytes) {
  void* memory = std::realloc(old, bytes);
  if (memory == nullptr) { ::_exit(112); }
  return memory;
}

Text::~Text() { std::free(data_); }

void Text::grow(std::size_t more) {
  if (size_ + more + 1 <= room_) { return; }
  room_ = (size_ + more + 1) * 2;
  data_ = static_cast<char*>(grown(data_, room_));
}

Text& Text::add(const char* bytes, std::size_t size) {
  grow(size);
  std::memcpy(data_ + size_, bytes, size);
  size_ += size;
  data_[size_] = '\0';
  return *this;
}

Text& Text::add(const char* text) { return add(text, std::strlen(text)); }

Text& Text::add(long long number) {
  char digits[24];
  std::size_t at = sizeof digits;
  const bool negative = number < 0;
  unsigned long long rest = negative ? 0ULL - static_cast<unsigned long long>(number)
                                     : static_cast<unsigned long long>(number);
  do {
    digits[--at] = static_cast<char>('0' + rest % 10);
    rest /= 10;
  } while (rest != 0);
  if (negative) { digits[--at] = '-'; }
  return add(digits + at, sizeof digits - at);
}

Text& Text::json(const char* text) {
  add("\"", 1);
  for (const char* c = text; *c != '\0'; ++c) {
    const auto byte = static_cast<unsigned char>(*c);
    if (*c == '"' || *c == '\\') {
      add("\\", 1).add(c, 1);
    } else if (byte < 0x20 || byte >= 0x7f) {
      add("?", 1);
    } else {
      add(c, 1);
    }
  }
  return add("\"", 1);
}

long long number_of(const char* text) {
  return text == nullptr ? 0 : std::strtoll(text, nullptr, 10);
}
bool equal(const char* a, const char* b) { return std::strcmp(a, b) == 0; }

std::int64_t wall_us() {
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  return static_cast<std::int64_t>(now.tv_sec) * 1'000'000 + now.tv_nsec / 1000;
}
std::int64_t steady_ms() {
  timespec now{};
  ::clock_gettime(CLOCK_BOOTTIME, &now);
  return static_cast<std::int64_t>(now.tv_sec) * 1000 + now.tv_nsec / 1'000'000;
}

}  // namespace shim
