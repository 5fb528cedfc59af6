// The tree of an expression: what the parser makes and evaluation walks.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "serving/expression.h"

namespace metier::serving {

enum class Op : std::uint8_t {
  constant,
  event,
  list,
  dict,
  spread,
  index,
  slice,
  attribute,
  neg,
  pos,
  not_,
  add,
  sub,
  mul,
  div,
  floor,
  mod,
  power,
  eq,
  ne,
  lt,
  le,
  gt,
  ge,
  in,
  not_in,
  is_none,
  is_not_none,
  compare,
  and_,
  or_,
  choose,
  call,
};

enum class Function : std::uint8_t {
  len,
  abs,
  min,
  max,
  sum,
  round,
  int_,
  float_,
  str_,
  bool_,
  any,
  all,
  get,
  startswith,
  endswith,
  replace,
};

struct Expression::Node {
  Op op = Op::constant;
  Function function = Function::len;
  Json value;                // a constant
  std::string name;          // an attribute, a method
  std::vector<Op> compares;  // of a chained comparison
  std::vector<std::unique_ptr<Node>>
      parts;  // null: an omitted bound of a slice, a spread of a dict
};

// Errors: NeedsPython for what is beyond the subset, valid Python or not.
Result<std::unique_ptr<Expression::Node>> parse_expression(std::string_view text);

}  // namespace metier::serving
