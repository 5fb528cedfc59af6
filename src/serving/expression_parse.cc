#include <algorithm>
#include <array>
#include <charconv>
#include <optional>

#include "serving/expression_node.h"

namespace metier::serving {
namespace {

using Node = Expression::Node;
using NodePtr = std::unique_ptr<Node>;

struct Named {
  std::string_view name;
  Function function;
  int least, most;
};
constexpr std::array kFunctions = {
    Named{"len", Function::len, 1, 1},  Named{"abs", Function::abs, 1, 1},
    Named{"min", Function::min, 1, 99}, Named{"max", Function::max, 1, 99},
    Named{"sum", Function::sum, 1, 1},  Named{"round", Function::round, 1, 2},
    Named{"int", Function::int_, 1, 1}, Named{"float", Function::float_, 1, 1},
    Named{"str", Function::str_, 1, 1}, Named{"bool", Function::bool_, 1, 1},
    Named{"any", Function::any, 1, 1},  Named{"all", Function::all, 1, 1}};
constexpr std::array kMethods = {
    Named{"get", Function::get, 2, 3}, Named{"startswith", Function::startswith, 2, 2},
    Named{"endswith", Function::endswith, 2, 2}, Named{"replace", Function::replace, 3, 3}};

class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) { next(); }

  Result<NodePtr> parse() {
    NodePtr root = ternary();
    if (root != nullptr && kind_ != Kind::end) { refuse("after the end: " + std::string(token_)); }
    if (!problem_.empty() || root == nullptr) {
      return fail(Error{.kind = ErrorKind::unsupported,
                        .message = "expression " + quote(text_) + " is beyond the native subset (" +
                                   problem_ + ")",
                        .code = "NeedsPython"});
    }
    return root;
  }

 private:
  enum class Kind { end, name, number, text, symbol };

  void refuse(std::string why) {
    if (problem_.empty()) { problem_ = std::move(why); }
    kind_ = Kind::end;
    token_ = {};
    at_ = text_.size();
  }

  void next() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\t')) {
      ++at_;
    }
    const std::size_t start = at_;
    if (at_ == text_.size()) {
      kind_ = Kind::end;
      token_ = {};
      return;
    }
    const char c = text_[at_];
    const auto letter = [](char x) {
      return (x >= 'a' && x <= 'z') || (x >= 'A' && x <= 'Z') || x == '_';
    };
    const auto digit = [](char x) { return x >= '0' && x <= '9'; };
    if (letter(c)) {
      while (at_ < text_.size() && (letter(text_[at_]) || digit(text_[at_]))) { ++at_; }
      kind_ = Kind::name;
      if (at_ < text_.size() && (text_[at_] == '\'' || text_[at_] == '"')) {
        return refuse("prefixed text");
      }
    } else if (digit(c) || (c == '.' && at_ + 1 < text_.size() && digit(text_[at_ + 1]))) {
      while (at_ < text_.size() && (digit(text_[at_]) || letter(text_[at_]) || text_[at_] == '.' ||
                                    ((text_[at_] == '+' || text_[at_] == '-') &&
                                     (text_[at_ - 1] == 'e' || text_[at_ - 1] == 'E')))) {
        ++at_;
      }
      kind_ = Kind::number;
    } else if (c == '\'' || c == '"') {
      return text(c);
    } else {
      static constexpr std::array<std::string_view, 6> kTwo = {"**", "//", "==", "!=", "<=", ">="};
      at_ += std::ranges::find(kTwo, text_.substr(at_, 2)) != kTwo.end() ? 2 : 1;
      kind_ = Kind::symbol;
    }
    token_ = text_.substr(start, at_ - start);
  }

  void text(char end) {
    string_.clear();
    if (text_.substr(at_, 3) == std::string(3, end)) { return refuse("triple quotes"); }
    for (++at_; at_ < text_.size() && text_[at_] != end; ++at_) {
      char c = text_[at_];
      if (c == '\n') { return refuse("text over two lines"); }
      if (c == '\\') {
        if (++at_ == text_.size()) { break; }
        switch (text_[at_]) {
          case 'n': c = '\n'; break;
          case 't': c = '\t'; break;
          case 'r': c = '\r'; break;
          case '\\':
          case '\'':
          case '"': c = text_[at_]; break;
          default: return refuse("escape \\" + std::string(1, text_[at_]));
        }
      }
      string_ += c;
    }
    if (at_ == text_.size()) { return refuse("text without its end"); }
    ++at_;
    kind_ = Kind::text;
    token_ = "text";
  }

  bool is(std::string_view symbol) const {
    return (kind_ == Kind::symbol || kind_ == Kind::name) && token_ == symbol;
  }
  bool take(std::string_view symbol) {
    if (!is(symbol)) { return false; }
    next();
    return true;
  }
  bool expect(std::string_view symbol) {
    if (take(symbol)) { return true; }
    refuse("expected " + std::string(symbol));
    return false;
  }

  static NodePtr make(Op op, NodePtr a = nullptr, NodePtr b = nullptr) {
    auto node = std::make_unique<Node>();
    node->op = op;
    if (a != nullptr) { node->parts.push_back(std::move(a)); }
    if (b != nullptr) { node->parts.push_back(std::move(b)); }
    return node;
  }

  // Python's grammar nests; a text of thousands of brackets must not end the process.
  struct Deeper {
    explicit Deeper(int& depth) : depth(depth) { ++depth; }
    ~Deeper() { --depth; }
    Deeper(const Deeper&) = delete;
    Deeper& operator=(const Deeper&) = delete;
    int& depth;
  };

  NodePtr ternary() {
    const Deeper deeper(depth_);
    if (depth_ > 60) {
      refuse("it is nested too deeply");
      return nullptr;
    }
    NodePtr value = either();
    if (value == nullptr || !take("if")) { return value; }
    NodePtr test = either();
    if (test == nullptr || !expect("else")) { return nullptr; }
    NodePtr other = ternary();
    if (other == nullptr) { return nullptr; }
    NodePtr node = make(Op::choose, std::move(test), std::move(value));
    node->parts.push_back(std::move(other));
    return node;
  }
  NodePtr either() {
    NodePtr left = both();
    while (left != nullptr && take("or")) {
      NodePtr right = both();
      if (right == nullptr) { return nullptr; }
      left = make(Op::or_, std::move(left), std::move(right));
    }
    return left;
  }
  NodePtr both() {
    NodePtr left = negated();
    while (left != nullptr && take("and")) {
      NodePtr right = negated();
      if (right == nullptr) { return nullptr; }
      left = make(Op::and_, std::move(left), std::move(right));
    }
    return left;
  }
  NodePtr negated() {
    const Deeper deeper(depth_);
    if (depth_ > 60) {
      refuse("it is nested too deeply");
      return nullptr;
    }
    if (take("not")) {
      NodePtr value = negated();
      return value == nullptr ? nullptr : make(Op::not_, std::move(value));
    }
    return comparison();
  }

  std::optional<Op> comparing() {
    static constexpr std::array<std::pair<std::string_view, Op>, 7> kOps = {{{"==", Op::eq},
                                                                             {"!=", Op::ne},
                                                                             {"<=", Op::le},
                                                                             {">=", Op::ge},
                                                                             {"<", Op::lt},
                                                                             {">", Op::gt},
                                                                             {"in", Op::in}}};
    for (const auto& [symbol, op] : kOps) {
      if (take(symbol)) { return op; }
    }
    if (take("not")) { return expect("in") ? std::optional(Op::not_in) : std::nullopt; }
    if (take("is")) {
      const bool other = take("not");
      if (!expect("None")) { return std::nullopt; }
      return other ? Op::is_not_none : Op::is_none;
    }
    return std::nullopt;
  }

  NodePtr comparison() {
    NodePtr left = sum();
    if (left == nullptr) { return nullptr; }
    NodePtr chain;
    while (const auto op = comparing()) {
      if (*op == Op::is_none || *op == Op::is_not_none) {
        if (chain != nullptr) {
          refuse("a chain with `is`");
          return nullptr;
        }
        left = make(*op, std::move(left));
        return left;
      }
      NodePtr right = sum();
      if (right == nullptr) { return nullptr; }
      if (chain == nullptr) { chain = make(Op::compare, std::move(left)); }
      chain->compares.push_back(*op);
      chain->parts.push_back(std::move(right));
    }
    return chain != nullptr ? std::move(chain) : std::move(left);
  }
  NodePtr sum() {
    NodePtr left = product();
    while (left != nullptr && (is("+") || is("-"))) {
      const Op op = is("+") ? Op::add : Op::sub;
      next();
      NodePtr right = product();
      if (right == nullptr) { return nullptr; }
      left = make(op, std::move(left), std::move(right));
    }
    return left;
  }
  NodePtr product() {
    NodePtr left = factor();
    while (left != nullptr && (is("*") || is("/") || is("//") || is("%"))) {
      const Op op = is("*") ? Op::mul : is("/") ? Op::div : is("//") ? Op::floor : Op::mod;
      next();
      NodePtr right = factor();
      if (right == nullptr) { return nullptr; }
      left = make(op, std::move(left), std::move(right));
    }
    return left;
  }
  NodePtr factor() {
    const Deeper deeper(depth_);
    if (depth_ > 60) {
      refuse("it is nested too deeply");
      return nullptr;
    }
    if (is("-") || is("+")) {
      const Op op = is("-") ? Op::neg : Op::pos;
      next();
      NodePtr value = factor();
      return value == nullptr ? nullptr : make(op, std::move(value));
    }
    NodePtr base = postfix();
    if (base == nullptr || !take("**")) { return base; }
    NodePtr exponent = factor();
    return exponent == nullptr ? nullptr : make(Op::power, std::move(base), std::move(exponent));
  }

  NodePtr postfix() {
    NodePtr value = atom();
    while (value != nullptr) {
      if (take("[")) {
        value = subscript(std::move(value));
      } else if (take(".")) {
        value = member(std::move(value));
      } else if (is("(")) {
        refuse("a call of a value");
        return nullptr;
      } else {
        return value;
      }
    }
    return nullptr;
  }
  NodePtr subscript(NodePtr value) {
    NodePtr first, last;
    if (!is(":")) {
      first = ternary();
      if (first == nullptr) { return nullptr; }
    }
    if (take("]")) { return make(Op::index, std::move(value), std::move(first)); }
    if (!expect(":")) { return nullptr; }
    if (!is("]")) {
      last = ternary();
      if (last == nullptr) { return nullptr; }
    }
    if (!expect("]")) { return nullptr; }
    NodePtr node = make(Op::slice, std::move(value));
    node->parts.push_back(std::move(first));
    node->parts.push_back(std::move(last));
    return node;
  }
  NodePtr member(NodePtr value) {
    if (kind_ != Kind::name) {
      refuse("a member without a name");
      return nullptr;
    }
    const std::string name(token_);
    next();
    if (!take("(")) {
      if (value->op != Op::event || (name != "body" && name != "id" && name != "key")) {
        refuse("member " + name);
        return nullptr;
      }
      NodePtr node = make(Op::attribute);
      node->name = name;
      return node;
    }
    return arguments(kMethods, name, std::move(value));
  }
  template <class Table>
  NodePtr arguments(const Table& table, const std::string& name, NodePtr self) {
    const auto found = std::ranges::find(table, name, &Named::name);
    if (found == table.end()) {
      refuse("function " + name);
      return nullptr;
    }
    NodePtr node = make(Op::call);
    node->function = found->function;
    node->name = name;
    if (self != nullptr) { node->parts.push_back(std::move(self)); }
    while (!is(")")) {
      NodePtr value = ternary();
      if (value == nullptr) { return nullptr; }
      node->parts.push_back(std::move(value));
      if (!take(",")) { break; }
    }
    if (!expect(")")) { return nullptr; }
    const auto count = static_cast<int>(node->parts.size());
    if (count < found->least || count > found->most) {
      refuse("arguments of " + name);
      return nullptr;
    }
    return node;
  }

  NodePtr atom() {
    if (kind_ == Kind::number) { return number(); }
    if (kind_ == Kind::text) {
      NodePtr node = make(Op::constant);
      node->value = Json(string_);
      next();
      if (kind_ == Kind::text) {
        refuse("texts side by side");
        return nullptr;
      }
      return node;
    }
    if (take("(")) {
      NodePtr value = ternary();
      if (value == nullptr) { return nullptr; }
      return expect(")") ? std::move(value) : nullptr;
    }
    if (take("[")) { return list(); }
    if (take("{")) { return dict(); }
    if (kind_ == Kind::name) { return name(); }
    refuse(kind_ == Kind::end ? "it ends too early" : "unexpected " + std::string(token_));
    return nullptr;
  }
  NodePtr number() {
    NodePtr node = make(Op::constant);
    const char* end = token_.data() + token_.size();
    std::int64_t whole = 0;
    double real = 0;
    const bool leading = token_.size() > 1 && token_[0] == '0' &&
                         token_.find_first_of(".eE") == std::string_view::npos;
    if (const auto [p, e] = std::from_chars(token_.data(), end, whole);
        e == std::errc() && p == end && !leading) {
      node->value = whole;
    } else if (const auto [q, f] = std::from_chars(token_.data(), end, real);
               f == std::errc() && q == end &&
               token_.find_first_of(".eE") != std::string_view::npos) {
      node->value = real;
    } else {
      refuse("number " + std::string(token_));
      return nullptr;
    }
    next();
    return node;
  }
  NodePtr list() {
    NodePtr node = make(Op::list);
    while (!is("]")) {
      NodePtr value = ternary();
      if (value == nullptr) { return nullptr; }
      node->parts.push_back(std::move(value));
      if (!take(",")) { break; }
    }
    return expect("]") ? std::move(node) : nullptr;
  }
  NodePtr dict() {
    NodePtr node = make(Op::dict);
    while (!is("}")) {
      if (take("**")) {
        node->parts.push_back(nullptr);
      } else {
        NodePtr key = ternary();
        if (key == nullptr || !expect(":")) { return nullptr; }
        node->parts.push_back(std::move(key));
      }
      NodePtr value = ternary();
      if (value == nullptr) { return nullptr; }
      node->parts.push_back(std::move(value));
      if (!take(",")) { break; }
    }
    return expect("}") ? std::move(node) : nullptr;
  }
  NodePtr name() {
    const std::string name(token_);
    next();
    if (name == "event") { return make(Op::event); }
    if (name == "True" || name == "False" || name == "None") {
      NodePtr node = make(Op::constant);
      node->value = name == "None" ? Json(nullptr) : Json(name == "True");
      return node;
    }
    if (take("(")) { return arguments(kFunctions, name, nullptr); }
    refuse("name " + name);
    return nullptr;
  }

  std::string_view text_, token_;
  std::size_t at_ = 0;
  Kind kind_ = Kind::end;
  std::string string_, problem_;
  int depth_ = 0;
};

}  // namespace

Result<std::unique_ptr<Expression::Node>> parse_expression(std::string_view text) {
  return Parser(text).parse();
}

}  // namespace metier::serving
