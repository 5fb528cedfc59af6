// libFuzzer target: any bytes, in any two pieces, give one verdict and no crash.
#include "net/parser.h"

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  using namespace metier::net;
  const std::string_view all(reinterpret_cast<const char*>(data), size);
  const Limits limits{.body_bytes = 4096, .header_bytes = 2048, .headers = 20, .target_bytes = 256};
  const auto run = [&](std::size_t cut) {
    RequestParser parser(limits);
    std::string log;
    for (auto piece : {all.substr(0, cut), all.substr(cut)}) {
      while (true) {
        const auto before = piece.size();
        const auto parsed = parser.feed(piece);
        if (parsed == Parsed::failed) { return log + "failed"; }
        if (parsed == Parsed::need_more) { break; }
        if (parsed == Parsed::message) {
          log +=
              parser.request().method + parser.request().target + "|" + parser.request().body + "|";
          parser.begin();
        }
        if (piece.size() == before && parsed == Parsed::message && piece.empty()) { break; }
      }
    }
    return log;
  };
  if (run(size) != run(size / 2)) { __builtin_trap(); }
  return 0;
}
