#include "serving/expression.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <limits>
#include <optional>
#include <vector>

#include "serving/expression_node.h"
#include "serving/python_value.h"

namespace metier::serving {
namespace {

using Node = Expression::Node;

// A value of the event, or one that was made.
struct Value {
  const Json* ref = nullptr;
  Json own;
  Value() = default;
  Value(const Json& borrowed) : ref(&borrowed) {}  // NOLINT: a value of the event is a Value
  static Value made(Json value) {
    Value out;
    out.own = std::move(value);
    return out;
  }
  const Json& get() const { return ref != nullptr ? *ref : own; }
  Json take() && { return ref != nullptr ? *ref : std::move(own); }
};

using Out = std::expected<Value, Raised>;

std::unexpected<Raised> raise(std::string type, std::string message) {
  return std::unexpected(Raised{std::move(type), std::move(message)});
}

class Machine {
 public:
  explicit Machine(const Scope& scope) : scope_(scope) {}

  Out run(const Node& node) const {
    switch (node.op) {
      case Op::constant: return Value(node.value);
      case Op::event: return Value(scope_.event);
      case Op::attribute: return attribute(node.name);
      case Op::list: return list(node);
      case Op::dict: return dict(node);
      case Op::spread: break;
      case Op::index: return index(node);
      case Op::slice: return slice(node);
      case Op::neg:
      case Op::pos: return sign(node);
      case Op::not_: {
        const Out value = run(*node.parts[0]);
        return value ? Out(Value::made(!is_true(value->get()))) : value;
      }
      case Op::is_none:
      case Op::is_not_none: {
        const Out value = run(*node.parts[0]);
        return value ? Out(Value::made(value->get().is_null() == (node.op == Op::is_none))) : value;
      }
      case Op::and_:
      case Op::or_: {
        Out left = run(*node.parts[0]);
        if (!left || is_true(left->get()) == (node.op == Op::or_)) { return left; }
        return run(*node.parts[1]);
      }
      case Op::choose: {
        const Out test = run(*node.parts[0]);
        if (!test) { return test; }
        return run(*node.parts[is_true(test->get()) ? 1 : 2]);
      }
      case Op::compare: return compare(node);
      case Op::call: return call(node);
      default: break;
    }
    const Out a = run(*node.parts[0]);
    if (!a) { return a; }
    const Out b = run(*node.parts[1]);
    if (!b) { return b; }
    return arithmetic(node.op, a->get(), b->get());
  }

 private:
  Out attribute(std::string_view name) const {
    if (name == "body") { return Value(scope_.event); }
    const std::string_view text = name == "id" ? scope_.id : scope_.key;
    return Value::made(Json(text));
  }
  Out list(const Node& node) const {
    JsonArray out;
    for (const auto& part : node.parts) {
      Out value = run(*part);
      if (!value) { return value; }
      out.push_back(std::move(*value).take());
    }
    return Value::made(std::move(out));
  }
  Out dict(const Node& node) const {
    JsonObject out;
    for (std::size_t i = 0; i + 1 < node.parts.size(); i += 2) {
      if (node.parts[i] == nullptr) {
        const Out given = run(*node.parts[i + 1]);
        if (!given) { return given; }
        if (!given->get().is_object()) {
          return raise("TypeError",
                       fmt::format("'{}' object is not a mapping", python_type(given->get())));
        }
        for (const auto& member : given->get().get_object()) { out[member.key()] = member.value(); }
        continue;
      }
      const Out key = run(*node.parts[i]);
      if (!key) { return key; }
      Out value = run(*node.parts[i + 1]);
      if (!value) { return value; }
      // json.dumps gives other keys as text, too
      if (key->get().is_structured()) {
        return raise("TypeError", fmt::format("unhashable type: '{}'", python_type(key->get())));
      }
      out[key->get().is_string() ? std::string_view(key->get().get_string())
                                 : std::string_view(json_key(key->get()))] =
          std::move(*value).take();
    }
    return Value::made(std::move(out));
  }
  Out index(const Node& node) const {
    const Out base = run(*node.parts[0]);
    if (!base) { return base; }
    const Out at = run(*node.parts[1]);
    if (!at) { return at; }
    const Json& from = base->get();
    const bool kept = base->ref != nullptr;  // members of the event live as long as it does
    if (const auto* object = from.if_object()) {
      const Json* found =
          at->get().is_string() ? object->if_contains(at->get().get_string()) : nullptr;
      if (found == nullptr) { return raise("KeyError", repr(at->get())); }
      return kept ? Value(*found) : Value::made(*found);
    }
    if (!from.is_array() && !from.is_string()) {
      return raise("TypeError", fmt::format("'{}' object is not subscriptable", python_type(from)));
    }
    const auto position = whole(at->get());
    const bool text = from.is_string();
    if (!position) {
      return raise(
          "TypeError",
          text ? fmt::format("string indices must be integers, not '{}'", python_type(at->get()))
               : fmt::format("list indices must be integers or slices, not {}",
                             python_type(at->get())));
    }
    const std::vector<std::size_t> points =
        text ? code_points(from.get_string()) : std::vector<std::size_t>();
    const auto size = static_cast<std::int64_t>(text ? points.size() - 1 : from.get_array().size());
    const std::int64_t i = *position < 0 ? *position + size : *position;
    if (i < 0 || i >= size) {
      return raise("IndexError", text ? "string index out of range" : "list index out of range");
    }
    const auto u = static_cast<std::size_t>(i);
    if (text) {
      return Value::made(
          Json(std::string_view(from.get_string()).substr(points[u], points[u + 1] - points[u])));
    }
    return kept ? Value(from.get_array()[u]) : Value::made(from.get_array()[u]);
  }
  Out slice(const Node& node) const {
    const Out base = run(*node.parts[0]);
    if (!base) { return base; }
    const Json& from = base->get();
    if (!from.is_array() && !from.is_string()) {
      return raise("TypeError", from.is_object() ? "unhashable type: 'slice'"
                                                 : fmt::format("'{}' object is not subscriptable",
                                                               python_type(from)));
    }
    const std::vector<std::size_t> points =
        from.is_string() ? code_points(from.get_string()) : std::vector<std::size_t>();
    const auto size =
        static_cast<std::int64_t>(from.is_string() ? points.size() - 1 : from.get_array().size());
    std::array<std::int64_t, 2> bounds = {0, size};
    for (std::size_t i = 0; i < 2; ++i) {
      if (node.parts[i + 1] == nullptr) { continue; }
      const Out bound = run(*node.parts[i + 1]);
      if (!bound) { return bound; }
      if (bound->get().is_null()) { continue; }
      const auto number = whole(bound->get());
      if (!number) {
        return raise("TypeError",
                     "slice indices must be integers or None or have an __index__ method");
      }
      bounds[i] = std::clamp<std::int64_t>(*number < 0 ? *number + size : *number, 0, size);
    }
    const auto first = static_cast<std::size_t>(bounds[0]);
    const auto last = static_cast<std::size_t>(std::max(bounds[0], bounds[1]));
    if (from.is_string()) {
      return Value::made(Json(
          std::string_view(from.get_string()).substr(points[first], points[last] - points[first])));
    }
    JsonArray out;
    for (std::size_t i = first; i < last; ++i) { out.push_back(from.get_array()[i]); }
    return Value::made(std::move(out));
  }
  Out sign(const Node& node) const {
    const Out value = run(*node.parts[0]);
    if (!value) { return value; }
    const Json& given = value->get();
    if (given.is_double()) {
      return Value::made(node.op == Op::neg ? -given.get_double() : given.get_double());
    }
    const auto number = whole(given);
    if (!number) {
      return raise("TypeError", fmt::format("bad operand type for unary {}: '{}'",
                                            node.op == Op::neg ? '-' : '+', python_type(given)));
    }
    if (*number == std::numeric_limits<std::int64_t>::min()) { return too_large(); }
    return Value::made(node.op == Op::neg ? -*number : *number);
  }

  static std::unexpected<Raised> too_large() {
    return raise("OverflowError", "a whole number beyond 64 bits");
  }

  static Out arithmetic(Op op, const Json& a, const Json& b) {
    const auto wholes = std::pair{whole(a), whole(b)};
    if (wholes.first && wholes.second) { return integers(op, *wholes.first, *wholes.second); }
    const auto reals = std::pair{real(a), real(b)};
    if (reals.first && reals.second) { return doubles(op, *reals.first, *reals.second); }
    if (op == Op::add && a.is_string() && b.is_string()) {
      std::string out(a.get_string());
      return Value::made(Json(out += std::string_view(b.get_string())));
    }
    if (op == Op::add && a.is_array() && b.is_array()) {
      JsonArray out = a.get_array();
      out.insert(out.end(), b.get_array().begin(), b.get_array().end());
      return Value::made(std::move(out));
    }
    if (op == Op::mul && (a.is_string() || a.is_array()) && wholes.second) {
      return repeated(a, *wholes.second);
    }
    if (op == Op::mul && (b.is_string() || b.is_array()) && wholes.first) {
      return repeated(b, *wholes.first);
    }
    if (op == Op::add && a.is_string()) {
      return raise("TypeError",
                   fmt::format("can only concatenate str (not \"{}\") to str", python_type(b)));
    }
    if (op == Op::add && a.is_array()) {
      return raise("TypeError",
                   fmt::format("can only concatenate list (not \"{}\") to list", python_type(b)));
    }
    static constexpr std::array<std::string_view, 7> kSigns = {"+",  "-", "*",          "/",
                                                               "//", "%", "** or pow()"};
    return raise(
        "TypeError",
        fmt::format("unsupported operand type(s) for {}: '{}' and '{}'",
                    kSigns[static_cast<std::size_t>(op) - static_cast<std::size_t>(Op::add)],
                    python_type(a), python_type(b)));
  }
  static Out repeated(const Json& value, std::int64_t times) {
    times = std::max<std::int64_t>(times, 0);
    const std::size_t size =
        value.is_string() ? value.get_string().size() : value.get_array().size();
    if (size > 0 && static_cast<std::size_t>(times) > (64U << 20U) / size) {
      return raise("MemoryError", "the repeated value would be too large");
    }
    if (value.is_string()) {
      std::string out;
      for (std::int64_t i = 0; i < times; ++i) { out += std::string_view(value.get_string()); }
      return Value::made(Json(out));
    }
    JsonArray out;
    for (std::int64_t i = 0; i < times; ++i) {
      out.insert(out.end(), value.get_array().begin(), value.get_array().end());
    }
    return Value::made(std::move(out));
  }
  static Out integers(Op op, std::int64_t a, std::int64_t b) {
    std::int64_t out = 0;
    switch (op) {
      case Op::add:
        if (__builtin_add_overflow(a, b, &out)) { return too_large(); }
        return Value::made(out);
      case Op::sub:
        if (__builtin_sub_overflow(a, b, &out)) { return too_large(); }
        return Value::made(out);
      case Op::mul:
        if (__builtin_mul_overflow(a, b, &out)) { return too_large(); }
        return Value::made(out);
      case Op::div:
        if (b == 0) { return raise("ZeroDivisionError", "division by zero"); }
        return Value::made(static_cast<double>(a) / static_cast<double>(b));
      case Op::floor:
      case Op::mod: {
        if (b == 0) {
          return raise("ZeroDivisionError", op == Op::floor ? "integer division or modulo by zero"
                                                            : "integer modulo by zero");
        }
        if (b == -1) {
          if (op == Op::mod) { return Value::made(std::int64_t{0}); }
          if (__builtin_sub_overflow(std::int64_t{0}, a, &out)) { return too_large(); }
          return Value::made(out);
        }
        std::int64_t quotient = a / b, rest = a % b;
        if (rest != 0 && (rest < 0) != (b < 0)) { rest += b, --quotient; }
        return Value::made(op == Op::floor ? quotient : rest);
      }
      default: break;
    }
    if (b < 0) {
      if (a == 0) { return raise("ZeroDivisionError", "0.0 cannot be raised to a negative power"); }
      return Value::made(std::pow(static_cast<double>(a), static_cast<double>(b)));
    }
    out = 1;
    for (std::int64_t base = a; b > 0; b >>= 1) {
      if ((b & 1) != 0 && __builtin_mul_overflow(out, base, &out)) { return too_large(); }
      if (b > 1 && __builtin_mul_overflow(base, base, &base)) { return too_large(); }
    }
    return Value::made(out);
  }
  static Out doubles(Op op, double a, double b) {
    switch (op) {
      case Op::add: return Value::made(a + b);
      case Op::sub: return Value::made(a - b);
      case Op::mul: return Value::made(a * b);
      case Op::div:
        if (b == 0) { return raise("ZeroDivisionError", "float division by zero"); }
        return Value::made(a / b);
      case Op::floor:
      case Op::mod: {
        if (b == 0) {
          return raise("ZeroDivisionError",
                       op == Op::mod ? "float modulo" : "float floor division by zero");
        }
        double rest = std::fmod(a, b);  // as CPython's float_divmod
        double quotient = (a - rest) / b;
        if (rest != 0) {
          if ((b < 0) != (rest < 0)) { rest += b, quotient -= 1.0; }
        } else {
          rest = std::copysign(0.0, b);
        }
        if (op == Op::mod) { return Value::made(rest); }
        if (quotient == 0) { return Value::made(std::copysign(0.0, a / b)); }
        double floored = std::floor(quotient);
        if (quotient - floored > 0.5) { floored += 1.0; }
        return Value::made(floored);
      }
      default: break;
    }
    if (a == 0 && b < 0) {
      return raise("ZeroDivisionError", "0.0 cannot be raised to a negative power");
    }
    if (a < 0 && b != std::floor(b)) {
      return raise("ValueError", "a complex number is no JSON value");
    }
    const double out = std::pow(a, b);
    if (std::isinf(out) && std::isfinite(a) && std::isfinite(b)) {
      return raise("OverflowError", "(34, 'Numerical result out of range')");
    }
    return Value::made(out);
  }

  Out compare(const Node& node) const {
    Out left = run(*node.parts[0]);
    for (std::size_t i = 0; left && i < node.compares.size(); ++i) {
      Out right = run(*node.parts[i + 1]);
      if (!right) { return right; }
      const auto holds = compared(node.compares[i], left->get(), right->get());
      if (!holds) { return std::unexpected(holds.error()); }
      if (!*holds) { return Value::made(false); }
      left = std::move(right);
    }
    return left ? Out(Value::made(true)) : left;
  }
  static std::expected<bool, Raised> compared(Op op, const Json& a, const Json& b) {
    if (op == Op::eq || op == Op::ne) { return equal(a, b) == (op == Op::eq); }
    if (op == Op::in || op == Op::not_in) {
      const auto inside = contains(b, a);
      if (!inside) { return inside; }
      return *inside == (op == Op::in);
    }
    const auto order = ordered(a, b);
    if (!order) {
      static constexpr std::array<std::string_view, 4> kSigns = {"<", "<=", ">", ">="};
      return std::unexpected(Raised{
          "TypeError",
          fmt::format("'{}' not supported between instances of '{}' and '{}'",
                      kSigns[static_cast<std::size_t>(op) - static_cast<std::size_t>(Op::lt)],
                      python_type(a), python_type(b))});
    }
    switch (op) {
      case Op::lt: return *order == std::partial_ordering::less;
      case Op::le:
        return *order == std::partial_ordering::less || *order == std::partial_ordering::equivalent;
      case Op::gt: return *order == std::partial_ordering::greater;
      default:
        return *order == std::partial_ordering::greater ||
               *order == std::partial_ordering::equivalent;
    }
  }
  static std::expected<bool, Raised> contains(const Json& in, const Json& what) {
    if (const auto* object = in.if_object()) {
      if (what.is_structured()) {
        return std::unexpected(
            Raised{"TypeError", fmt::format("unhashable type: '{}'", python_type(what))});
      }
      return what.is_string() && object->contains(what.get_string());
    }
    if (const auto* array = in.if_array()) {
      return std::ranges::any_of(*array, [&](const Json& item) { return equal(item, what); });
    }
    if (const auto* text = in.if_string()) {
      if (!what.is_string()) {
        return std::unexpected(
            Raised{"TypeError", fmt::format("'in <string>' requires string as left operand, not {}",
                                            python_type(what))});
      }
      return std::string_view(*text).contains(std::string_view(what.get_string()));
    }
    return std::unexpected(
        Raised{"TypeError", fmt::format("argument of type '{}' is not iterable", python_type(in))});
  }

  Out call(const Node& node) const {
    std::vector<Value> given;
    given.reserve(node.parts.size());
    for (const auto& part : node.parts) {
      Out value = run(*part);
      if (!value) { return value; }
      given.push_back(std::move(*value));
    }
    const Json& first = given[0].get();
    switch (node.function) {
      case Function::len: return length(first);
      case Function::abs: {
        if (first.is_double()) { return Value::made(std::abs(first.get_double())); }
        const auto number = whole(first);
        if (!number) {
          return raise("TypeError",
                       fmt::format("bad operand type for abs(): '{}'", python_type(first)));
        }
        if (*number == std::numeric_limits<std::int64_t>::min()) { return too_large(); }
        return Value::made(std::abs(*number));
      }
      case Function::min:
      case Function::max: return extreme(given, node.function == Function::min);
      case Function::sum: {
        const auto* items = first.if_array();
        if (items == nullptr) { return raise("TypeError", not_iterable(first)); }
        Value total = Value::made(std::int64_t{0});
        for (const Json& item : *items) {
          Out next = arithmetic(Op::add, total.get(), item);
          if (!next) { return next; }
          total = std::move(*next);
        }
        return total;
      }
      case Function::round: return rounded(first, given.size() > 1 ? &given[1].get() : nullptr);
      case Function::int_: return to_int(first);
      case Function::float_: return to_float(first);
      case Function::str_: return Value::made(Json(str(first)));
      case Function::bool_: return Value::made(is_true(first));
      case Function::any:
      case Function::all: {
        const auto* items = first.if_array();
        if (items == nullptr) { return raise("TypeError", not_iterable(first)); }
        const bool any = node.function == Function::any;
        const bool found =
            std::ranges::any_of(*items, [&](const Json& item) { return is_true(item) == any; });
        return Value::made(found == any);
      }
      case Function::get: {
        if (!first.is_object()) { return no_attribute(first, "get"); }
        if (given[1].get().is_structured()) {
          return raise("TypeError",
                       fmt::format("unhashable type: '{}'", python_type(given[1].get())));
        }
        const Json* found = given[1].get().is_string()
                                ? first.get_object().if_contains(given[1].get().get_string())
                                : nullptr;
        if (found != nullptr) {
          return given[0].ref != nullptr ? Value(*found) : Value::made(*found);
        }
        return given.size() > 2 ? Value::made(given[2].get()) : Value::made(nullptr);
      }
      case Function::startswith:
      case Function::endswith: {
        if (!first.is_string()) { return no_attribute(first, node.name); }
        if (!given[1].get().is_string()) {
          return raise("TypeError",
                       fmt::format("{} first arg must be str or a tuple of str, not {}", node.name,
                                   python_type(given[1].get())));
        }
        const std::string_view text = first.get_string(), part = given[1].get().get_string();
        return Value::made(node.function == Function::startswith ? text.starts_with(part)
                                                                 : text.ends_with(part));
      }
      case Function::replace: return replaced(given);
    }
    return raise("SystemError", "no such function");
  }
  static std::string not_iterable(const Json& value) {
    return fmt::format("'{}' object is not iterable", python_type(value));
  }
  static std::unexpected<Raised> no_attribute(const Json& value, std::string_view name) {
    return raise("AttributeError",
                 fmt::format("'{}' object has no attribute '{}'", python_type(value), name));
  }
  static Out length(const Json& value) {
    if (value.is_string()) {
      return Value::made(static_cast<std::int64_t>(code_points(value.get_string()).size() - 1));
    }
    if (value.is_array()) {
      return Value::made(static_cast<std::int64_t>(value.get_array().size()));
    }
    if (value.is_object()) {
      return Value::made(static_cast<std::int64_t>(value.get_object().size()));
    }
    return raise("TypeError", fmt::format("object of type '{}' has no len()", python_type(value)));
  }
  static Out extreme(const std::vector<Value>& given, bool least) {
    std::vector<const Json*> items;
    if (given.size() > 1) {
      for (const Value& value : given) { items.push_back(&value.get()); }
    } else if (const auto* array = given[0].get().if_array()) {
      for (const Json& item : *array) { items.push_back(&item); }
    } else {
      return raise("TypeError", not_iterable(given[0].get()));
    }
    const std::string_view name = least ? "min" : "max";
    if (items.empty()) {
      return raise("ValueError", fmt::format("{}() arg is an empty sequence", name));
    }
    const Json* best = items[0];
    for (std::size_t i = 1; i < items.size(); ++i) {
      const auto better = compared(least ? Op::lt : Op::gt, *items[i], *best);
      if (!better) { return std::unexpected(better.error()); }
      if (*better) { best = items[i]; }
    }
    return Value::made(*best);
  }
  static Out rounded(const Json& value, const Json* digits) {
    const auto places =
        digits == nullptr || digits->is_null() ? std::optional<std::int64_t>() : whole(*digits);
    if (digits != nullptr && !digits->is_null() && !places) {
      return raise("TypeError", fmt::format("'{}' object cannot be interpreted as an integer",
                                            python_type(*digits)));
    }
    if (const auto number = whole(value)) {
      if (!places || *places >= 0) { return Value::made(*number); }
      return raise("ValueError", "round() of a whole number to negative digits is Python's");
    }
    if (!value.is_double()) {
      return raise("TypeError",
                   fmt::format("type {} doesn't define __round__ method", python_type(value)));
    }
    const double number = value.get_double();
    if (places) {
      if (!std::isfinite(number) || *places > 300) { return Value::made(number); }
      if (*places < 0) { return raise("ValueError", "round() to negative digits is Python's"); }
      return Value::made(std::strtod(fmt::format("{:.{}f}", number, *places).c_str(), nullptr));
    }
    return integral(std::nearbyint(number), number);
  }
  static Out integral(double rounded, double given) {
    if (std::isnan(given)) { return raise("ValueError", "cannot convert float NaN to integer"); }
    if (std::isinf(given)) {
      return raise("OverflowError", "cannot convert float infinity to integer");
    }
    if (rounded < -9.2e18 || rounded > 9.2e18) { return too_large(); }
    return Value::made(static_cast<std::int64_t>(rounded));
  }
  static Out to_int(const Json& value) {
    if (const auto number = whole(value)) { return Value::made(*number); }
    if (value.is_double()) { return integral(std::trunc(value.get_double()), value.get_double()); }
    if (!value.is_string()) {
      return raise(
          "TypeError",
          fmt::format("int() argument must be a string, a bytes-like object or a real number, "
                      "not '{}'",
                      python_type(value)));
    }
    const std::string_view text = trimmed(value.get_string());
    std::int64_t out = 0;
    const char* start = text.data() + (text.starts_with('+') ? 1 : 0);
    const auto [end, error] = std::from_chars(start, text.data() + text.size(), out);
    if (error == std::errc::result_out_of_range) { return too_large(); }
    if (error != std::errc() || end != text.data() + text.size()) {
      return raise("ValueError", "invalid literal for int() with base 10: " + repr(value));
    }
    return Value::made(out);
  }
  static Out to_float(const Json& value) {
    if (const auto number = real(value)) { return Value::made(*number); }
    if (!value.is_string()) {
      return raise("TypeError",
                   fmt::format("float() argument must be a string or a real number, not '{}'",
                               python_type(value)));
    }
    const auto number = parsed_float(trimmed(value.get_string()));
    if (!number) {
      return raise("ValueError", "could not convert string to float: " + repr(value));
    }
    return Value::made(*number);
  }
  static Out replaced(const std::vector<Value>& given) {
    if (!given[0].get().is_string()) { return no_attribute(given[0].get(), "replace"); }
    for (std::size_t i = 1; i < 3; ++i) {
      if (!given[i].get().is_string()) {
        return raise("TypeError", fmt::format("replace() argument {} must be str, not {}", i,
                                              python_type(given[i].get())));
      }
    }
    const std::string_view text = given[0].get().get_string(), old = given[1].get().get_string(),
                           put = given[2].get().get_string();
    if (old.empty()) { return raise("ValueError", "replace() of an empty text is Python's"); }
    std::string out;
    std::size_t at = 0;
    for (std::size_t found = text.find(old); found != std::string_view::npos;
         found = text.find(old, at)) {
      out += text.substr(at, found - at);
      out += put;
      at = found + old.size();
    }
    return Value::made(Json(out += text.substr(at)));
  }

  const Scope& scope_;
};

}  // namespace

Expression::Expression(std::unique_ptr<Node> root) : root_(std::move(root)) {}
Expression::Expression(Expression&&) noexcept = default;
Expression& Expression::operator=(Expression&&) noexcept = default;
Expression::~Expression() = default;

Result<Expression> Expression::compile(std::string_view text) {
  METIER_TRY(root, parse_expression(text));
  return Expression(std::move(root));
}

bool Expression::is_event() const { return root_->op == Op::event; }

std::expected<Json, Raised> Expression::evaluate(const Scope& scope) const {
  Out out = Machine(scope).run(*root_);
  if (!out) { return std::unexpected(std::move(out.error())); }
  return std::move(*out).take();
}

std::expected<bool, Raised> Expression::truth(const Scope& scope) const {
  const Out out = Machine(scope).run(*root_);
  if (!out) { return std::unexpected(out.error()); }
  return is_true(out->get());
}

}  // namespace metier::serving