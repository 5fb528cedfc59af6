#include "serving/json_members.h"

#include <algorithm>
#include <bit>
#include <cstdint>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace metier::serving {
namespace {

constexpr int kDepth = 60;
constexpr std::size_t kMembers = 64;

bool digit(char c) { return c >= '0' && c <= '9'; }
std::uint8_t byte(char c) { return static_cast<std::uint8_t>(c); }

class Scanner {
 public:
  explicit Scanner(std::string_view text) : at_(text.data()), end_(text.data() + text.size()) {}

  bool object(std::vector<JsonMember>& members) {
    space();
    if (at_ >= end_ || *at_ != '{') { return false; }
    ++at_;
    space();
    if (at_ < end_ && *at_ == '}') {
      ++at_;
    } else if (!own_members(members)) {
      return false;
    }
    space();
    return at_ == end_;
  }

 private:
  void space() {
    while (at_ < end_ && (*at_ == ' ' || *at_ == '\n' || *at_ == '\r' || *at_ == '\t')) { ++at_; }
  }
  bool take(char c) {
    if (at_ >= end_ || *at_ != c) { return false; }
    ++at_;
    return true;
  }

  bool own_members(std::vector<JsonMember>& members) {
    for (;;) {
      const char* key = at_ + 1;
      if (!text()) { return false; }
      const std::string_view name(key, static_cast<std::size_t>(at_ - key) - 1);
      if (name.contains('\\') || !colon()) { return false; }
      const char* begin = at_;
      if (!value()) { return false; }
      const std::string_view found(begin, static_cast<std::size_t>(at_ - begin));
      const auto earlier = std::ranges::find(members, name, &JsonMember::key);
      if (earlier != members.end()) {
        earlier->value = found;
      } else if (members.size() == kMembers) {
        return false;
      } else {
        members.push_back({.key = name, .value = found});
      }
      space();
      if (take('}')) { return true; }
      if (!take(',')) { return false; }
      space();
    }
  }

  bool colon() {
    space();
    if (!take(':')) { return false; }
    space();
    return true;
  }

  // One value with all that it holds. `kinds` has a bit for each container that is open: 1 for an object.
  bool value() {
    std::uint64_t kinds = 0;
    int depth = 0;
    for (;;) {
      if (depth > 0 && (kinds & 1U) == 0) { numbers(); }
      if (at_ >= end_) { return false; }
      const char first = *at_;
      if (first == '[' || first == '{') {
        if (++depth > kDepth) { return false; }
        const bool keyed = first == '{';
        kinds = kinds << 1U | (keyed ? 1U : 0U);
        ++at_;
        space();
        if (!take(keyed ? '}' : ']')) {
          if (keyed && (!text() || !colon())) { return false; }
          continue;
        }
        kinds >>= 1U;
        --depth;
      } else if (first == '"' ? !text() : digit(first) || first == '-' ? !number() : !word()) {
        return false;
      }
      // a value has ended
      for (;;) {
        if (depth == 0) { return true; }
        space();
        const bool keyed = (kinds & 1U) != 0;
        if (take(',')) {
          space();
          if (keyed && (!text() || !colon())) { return false; }
          break;
        }
        if (!take(keyed ? '}' : ']')) { return false; }
        kinds >>= 1U;
        --depth;
      }
    }
  }

  bool word() {
    for (const std::string_view word : {"true", "false", "null"}) {
      if (std::string_view(at_, static_cast<std::size_t>(end_ - at_)).starts_with(word)) {
        at_ += word.size();
        return true;
      }
    }
    return false;
  }

  bool digits() {
    const char* first = at_;
    while (at_ < end_ && digit(*at_)) { ++at_; }
    return at_ > first;
  }
  bool number() {
    take('-');
    if (!take('0') && !digits()) { return false; }
    if (take('.') && !digits()) { return false; }
    if (take('e') || take('E')) {
      if (!take('+')) { take('-'); }
      return digits();
    }
    return true;
  }

  // A text with its quotes.
  bool text() {
    if (!take('"')) { return false; }
    for (;;) {
      plain();
      if (at_ >= end_) { return false; }
      const std::uint8_t c = byte(*at_);
      if (c == '"') {
        ++at_;
        return true;
      }
      if (c < 0x20 || !(c == '\\' ? escape() : wide())) { return false; }
    }
  }
  // Over ASCII that stands for itself.
  void plain() {
#if defined(__SSE2__)
    while (end_ - at_ >= 16) {
      const __m128i block = _mm_loadu_si128(reinterpret_cast<const __m128i*>(at_));
      // Signed: bytes of 0x80 and more are below 0x20 as well.
      const __m128i stops = _mm_or_si128(_mm_cmplt_epi8(block, _mm_set1_epi8(0x20)),
                                         _mm_or_si128(_mm_cmpeq_epi8(block, _mm_set1_epi8('"')),
                                                      _mm_cmpeq_epi8(block, _mm_set1_epi8('\\'))));
      const auto mask = static_cast<std::uint32_t>(_mm_movemask_epi8(stops));
      if (mask != 0) {
        at_ += std::countr_zero(mask);
        return;
      }
      at_ += 16;
    }
#endif
    while (at_ < end_ && byte(*at_) >= 0x20 && byte(*at_) < 0x80 && *at_ != '"' && *at_ != '\\') {
      ++at_;
    }
  }
  bool escape() {
    ++at_;
    if (at_ >= end_) { return false; }
    if (std::string_view("\"\\/bfnrt").contains(*at_)) {
      ++at_;
      return true;
    }
    if (*at_ != 'u' || end_ - at_ < 5) { return false; }
    std::uint32_t point = 0;
    for (int i = 1; i <= 4; ++i) {
      const char c = at_[i];
      const char low = static_cast<char>(c | 0x20);
      if (!digit(c) && (low < 'a' || low > 'f')) { return false; }
      point = point * 16 + static_cast<std::uint32_t>(digit(c) ? c - '0' : low - 'a' + 10);
    }
    at_ += 5;
    return point < 0xd800 || point > 0xdfff;  // of halves, a reader of values decides
  }
  // One code point of two to four bytes.
  bool wide() {
    const std::uint8_t lead = byte(*at_);
    const int more = lead >= 0xf0 ? 3 : lead >= 0xe0 ? 2 : 1;
    if (lead < 0xc2 || lead > 0xf4 || end_ - at_ <= more) { return false; }
    for (int i = 1; i <= more; ++i) {
      if ((byte(at_[i]) & 0xc0U) != 0x80U) { return false; }
    }
    const std::uint8_t second = byte(at_[1]);
    if ((lead == 0xe0 && second < 0xa0) || (lead == 0xed && second > 0x9f) ||
        (lead == 0xf0 && second < 0x90) || (lead == 0xf4 && second > 0x8f)) {
      return false;
    }
    at_ += more + 1;
    return true;
  }

  // Over numbers of a list, up to the last one of those that 64 bytes hold whole with their commas; again, while there are such. What
  // it does not know (exponents, line breaks, what is wrong) it leaves: whoever reads one by one decides.
  void numbers() {
#if defined(__SSE2__)
    while (end_ - at_ >= 64 && (digit(*at_) || *at_ == '-')) {
      std::uint64_t digits = 0, zeros = 0, dots = 0, minus = 0, commas = 0, spaces = 0;
      for (unsigned i = 0; i < 4; ++i) {
        const __m128i block = _mm_loadu_si128(reinterpret_cast<const __m128i*>(at_) + i);
        const auto mask = [&](__m128i found) {
          return static_cast<std::uint64_t>(static_cast<std::uint32_t>(_mm_movemask_epi8(found)))
                 << (16 * i);
        };
        const auto is = [&](char c) { return mask(_mm_cmpeq_epi8(block, _mm_set1_epi8(c))); };
        const __m128i less = _mm_sub_epi8(block, _mm_set1_epi8('0'));
        digits |= mask(_mm_cmpeq_epi8(_mm_min_epu8(less, _mm_set1_epi8(9)), less));
        zeros |= is('0');
        dots |= is('.');
        minus |= is('-');
        commas |= is(',');
        spaces |= is(' ');
      }
      const std::uint64_t other = ~(digits | dots | minus | commas | spaces);
      const std::uint64_t before = other == 0 ? ~0ULL : (other & -other) - 1;
      const std::uint64_t ends = commas & before;
      if (ends == 0) { return; }
      const int last = 63 - std::countl_zero(ends);
      const std::uint64_t region = ~0ULL >> (63 - last);
      const auto behind = [](std::uint64_t bits) { return bits << 1U; };
      digits &= region;
      zeros &= region;
      dots &= region;
      minus &= region;
      spaces &= region;
      const std::uint64_t first = 1 | behind(ends | spaces);  // where a number may begin
      const std::uint64_t whole = digits & (first | behind(minus));
      const std::uint64_t run_ends = (digits + (behind(dots) & digits)) & ~digits;
      const std::uint64_t wrong = (spaces & ~behind(ends | spaces)) | (minus & ~first) |
                                  (behind(minus) & ~digits) | (dots & ~behind(digits)) |
                                  (behind(dots) & ~digits) | (ends & ~behind(digits)) |
                                  (run_ends & dots) | (behind(whole & zeros) & digits);
      if (wrong != 0) { return; }
      at_ += last + 1;
      space();
    }
#endif
  }

  const char* at_;
  const char* end_;
};

}  // namespace

std::optional<std::vector<JsonMember>> json_members(std::string_view text) {
  std::vector<JsonMember> out;
  if (!Scanner(text).object(out)) { return std::nullopt; }
  return out;
}

}  // namespace metier::serving
