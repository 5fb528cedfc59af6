// Expressions of graph steps: the part of Python that has no side effects and the same meaning everywhere, so that they can run outside
// the user's interpreter. `"(event['x'] + 1)"`, `"({**event, 'late': event.get('delay', 0) > 15})"`.
//
// Names: event, True, False, None. Literals, lists, dicts with `**`; indexing, slices, arithmetic, comparisons (chained), in, and, or,
// not, is None, `a if c else b`; len abs min max sum round int float str bool any all; .get .startswith .endswith .replace.
// Everything else is Python's own to run: compile says `unsupported`.
#pragma once

#include <expected>
#include <memory>
#include <string>
#include <string_view>

#include "base/json.h"

namespace metier::serving {

// What Python would raise: class and text.
struct Raised {
  std::string type;
  std::string message;
};

// What an expression sees. Without `body` only `event` itself is there; with it `event.body`, `event.id` and `event.key`.
struct Scope {
  const Json& event;
  std::string_view id, key;
  bool whole = false;
};

class Expression {
 public:
  struct Node;  // in expression.cc
  Expression(Expression&&) noexcept;
  Expression& operator=(Expression&&) noexcept;
  ~Expression();
  // Errors: unsupported for valid or invalid Python beyond the subset.
  static Result<Expression> compile(std::string_view text);
  std::expected<Json, Raised> evaluate(const Scope& scope) const;
  // It says nothing but `event`: the value is what it was given, and need not be copied.
  bool is_event() const;
  std::expected<bool, Raised> truth(const Scope& scope) const;

 private:
  explicit Expression(std::unique_ptr<Node> root);
  std::unique_ptr<Node> root_;
};

}  // namespace metier::serving
