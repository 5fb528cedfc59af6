// Structure-aware mutation for targets whose input is JSON: half of the mutations change the parsed tree (a value of
// another type, a key taken from elsewhere, a member dropped, doubled or nested deeper), the others are libFuzzer's own
// bytes. Included by one target's source file only: it defines LLVMFuzzerCustomMutator.
#pragma once

#include <array>
#include <cstring>
#include <random>

#include "base/json.h"

extern "C" std::size_t LLVMFuzzerMutate(unsigned char* data, std::size_t size, std::size_t most);

namespace metier::fuzz {

class TreeMutator final {
 public:
  explicit TreeMutator(unsigned seed) : random_(seed) {}

  void mutate(Json& root) {
    std::vector<Json*> nodes;
    collect(root, nodes);
    auto& target = *nodes[pick(nodes.size())];
    const Json other = *nodes[pick(nodes.size())];
    switch (pick(8)) {
      case 0: target = scalar(); return;
      case 1: target = other; return;
      case 2: target = JsonArray{target, other}; return;
      case 3: target = JsonObject{{key_of(root), target}}; return;
      case 4: change_text(target); return;
      default: change_members(root, target, other); return;
    }
  }

 private:
  std::size_t pick(std::size_t n) { return n == 0 ? 0 : random_() % n; }

  static void collect(Json& value, std::vector<Json*>& out) {
    out.push_back(&value);
    if (auto* array = value.if_array()) {
      for (auto& item : *array) { collect(item, out); }
    } else if (auto* object = value.if_object()) {
      for (auto& [key, item] : *object) { collect(item, out); }
    }
  }

  static void keys_of(const Json& value, std::vector<std::string>& out) {
    if (const auto* array = value.if_array()) {
      for (const auto& item : *array) { keys_of(item, out); }
    } else if (const auto* object = value.if_object()) {
      for (const auto& [key, item] : *object) {
        out.emplace_back(key);
        keys_of(item, out);
      }
    }
  }

  std::string key_of(const Json& root) {
    std::vector<std::string> keys;
    keys_of(root, keys);
    return keys.empty() ? "spec" : keys[pick(keys.size())];
  }

  Json scalar() {
    static const std::array<Json, 20> kValues{Json(nullptr),
                                              Json(true),
                                              Json(0),
                                              Json(-1),
                                              Json(1),
                                              Json(INT64_MAX),
                                              Json(UINT64_MAX),
                                              Json(INT64_MIN),
                                              Json(1e308),
                                              Json(0.1),
                                              Json(""),
                                              Json("/"),
                                              Json("../x"),
                                              Json("500m"),
                                              Json("2Gi"),
                                              Json("a-b"),
                                              Json("9"
                                                   "9999999999999999999Ei"),
                                              Json("\xc3\xa9"),
                                              Json(JsonArray{}),
                                              Json(JsonObject{})};
    return kValues[pick(kValues.size())];
  }

  void change_text(Json& target) {
    std::array<unsigned char, 256> bytes{};
    std::size_t size = 0;
    if (const auto* text = target.if_string()) {
      size = std::min<std::size_t>(text->size(), 128);
      std::memcpy(bytes.data(), text->data(), size);
    }
    size = LLVMFuzzerMutate(bytes.data(), size, bytes.size());
    target = Json(std::string_view(reinterpret_cast<const char*>(bytes.data()), size));
  }

  void change_members(const Json& root, Json& target, const Json& other) {
    if (auto* object = target.if_object()) {
      if (!object->empty() && pick(3) == 0) {
        object->erase(object->begin() + static_cast<std::ptrdiff_t>(pick(object->size())));
      } else {
        (*object)[key_of(root)] = pick(2) == 0 ? other : scalar();
      }
    } else if (auto* array = target.if_array()) {
      if (!array->empty() && pick(3) == 0) {
        array->erase(array->begin() + static_cast<std::ptrdiff_t>(pick(array->size())));
      } else {
        array->push_back(array->empty() || pick(3) == 0 ? scalar() : Json((*array)[0]));
      }
    } else {
      target = scalar();
    }
  }

  std::minstd_rand random_;
};

}  // namespace metier::fuzz

extern "C" std::size_t LLVMFuzzerCustomMutator(unsigned char* data, std::size_t size,
                                               std::size_t most, unsigned seed) {
  if (seed % 2 == 0) { return LLVMFuzzerMutate(data, size, most); }
  auto parsed = metier::parse_json({reinterpret_cast<const char*>(data), size});
  if (!parsed) { return LLVMFuzzerMutate(data, size, most); }
  metier::fuzz::TreeMutator mutator(seed / 2);
  for (unsigned i = 0; i <= seed / 2 % 3; ++i) { mutator.mutate(*parsed); }
  const auto text = metier::dump_json(*parsed);
  if (text.size() > most) { return LLVMFuzzerMutate(data, size, most); }
  std::memcpy(data, text.data(), text.size());
  return text.size();
}
