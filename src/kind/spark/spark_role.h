// The two roles of a Spark function and what it says of their resources.
#pragma once

#include <array>
#include <string>
#include <string_view>

#include "model/function.h"
#include "model/python_text.h"

namespace metier {

struct Role {
  std::string_view name;            // "driver", "executor"
  std::string_view default_memory;  // MLRun's
};
inline constexpr std::array kRoles{Role{"driver", "2g"}, Role{"executor", "5g"}};

inline std::string field_of(const Role& role, std::string_view name) {
  return std::string(role.name) + "_" + std::string(name);
}

inline const JsonObject* role_part(const Function& function, const Role& role,
                                   std::string_view part) {
  const JsonObject* resources = object_in(function.spec(), field_of(role, "resources"));
  return resources == nullptr ? nullptr : object_in(*resources, part);
}

// What a role asks for, as texts; empty where the user said nothing.
inline std::string amount(const Function& function, const Role& role, std::string_view part,
                          std::string_view key) {
  const JsonObject* map = role_part(function, role, part);
  const Json* value = map == nullptr ? nullptr : map->if_contains(key);
  return value == nullptr || is_falsy(*value) ? std::string() : python_text(*value);
}

// MLRun writes its defaults into every function, so a user's own "1 cpu and 2g" looks the same as no wish.
inline bool asks_for_defaults(const Function& function, const Role& role) {
  return amount(function, role, "requests", "cpu") == "1" &&
         amount(function, role, "requests", "memory") == role.default_memory;
}

}  // namespace metier
