// The processor's own request reader: any bytes, in any two pieces, give the same messages and the same verdict.
#include "realtime/triggers/http/request.h"

#include <algorithm>
#include <cstring>

#include "fuzz.h"

using namespace metier;
using namespace metier::realtime;

namespace {

std::string read_all(const HttpOptions& options, std::string_view bytes, std::size_t cut) {
  HttpRequest request(options);
  std::string log;
  std::size_t given = 0;
  while (given < bytes.size()) {
    const HttpRequest::Room room = request.room();
    fuzz::require(room.size > 0, "there is room to read");
    const std::size_t end = given < cut ? cut : bytes.size();
    const std::size_t size = std::min(room.size, end - given);
    std::memcpy(room.at, bytes.data() + given, size);
    given += size;
    Parsed parsed = request.took(size);
    while (parsed != Parsed::need_more) {
      if (parsed == Parsed::failed) {
        fuzz::require(request.status() >= 400 && request.status() <= 599, "a refusal's status");
        fuzz::require(!request.reason().empty(), "a refusal without a reason");
        return log + "refused " + std::to_string(request.status());
      }
      if (parsed == Parsed::message) {
        fuzz::require(request.body().size() <= options.body_bytes, "a body within its limit");
        log.append(request.method()).append(" ").append(request.path()).append("?");
        log.append(request.query()).append("#").append(request.body());
        for (const HeaderView& header : request.headers()) {
          fuzz::require(header.name.find_first_of("\r\n: ") == std::string_view::npos,
                        "a header's name", header.name);
          fuzz::require(header.value.find_first_of("\r\n") == std::string_view::npos,
                        "a header's value", header.value);
          log.append("|").append(header.name).append("=").append(header.value);
        }
        log += request.keep_alive() ? "\n" : "close\n";
        request.next();
        if (!request.has_more()) { break; }
      }
      parsed = request.go_on();
    }
  }
  return log;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  const std::string_view bytes = fuzz::text_of(data, size);
  HttpOptions options;
  options.head_bytes = 1024;
  options.body_bytes = 2048;
  options.headers = 16;
  options.target_bytes = 256;
  const std::string whole = read_all(options, bytes, bytes.size());
  const std::string cut = read_all(options, bytes, size / 2);
  // A head that is both too large and no HTTP is refused for what is seen first.
  const auto too_large = [](const std::string& log) {
    return log.ends_with("refused 431") || log.ends_with("refused 414");
  };
  const auto told = [](const std::string& log) { return log.substr(0, log.rfind(' ')); };
  const bool same = too_large(whole) || too_large(cut) ? told(whole) == told(cut) : whole == cut;
  fuzz::require(same, "the same wherever the bytes are cut", whole + " / " + cut);
  return 0;
}
