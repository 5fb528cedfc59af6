// What is due when, on the steady clock. Plain: who owns it asks for what is due. One deadline per (what, key);
// setting it again moves it.
#pragma once

#include <chrono>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <vector>

namespace metier {

enum class Due { threshold, lease, retry, grace, clean };

class Deadlines final {
 public:
  using Point = std::chrono::steady_clock::time_point;
  struct Item {
    Point at;
    Due what;
    std::string key;
    auto operator<=>(const Item&) const = default;
  };

  void set(Due what, const std::string& key, Point at);
  void clear(Due what, const std::string& key);
  void clear_all(const std::string& key);
  std::optional<Point> next() const;
  std::optional<std::string> first(Due what) const;  // key of the earliest of that sort
  // Takes out everything that is due.
  std::vector<Item> take(Point now);
  // After the program itself was stopped: nobody is late because we slept.
  void shift(Due what, std::chrono::steady_clock::duration by);
  bool has(Due what, const std::string& key) const { return at_.contains({what, key}); }

 private:
  std::set<Item> order_;
  std::map<std::pair<Due, std::string>, Point> at_;
};

}  // namespace metier
