#include "engine/deadlines.h"

namespace metier {

void Deadlines::set(Due what, const std::string& key, Point at) {
  clear(what, key);
  at_[{what, key}] = at;
  order_.insert({at, what, key});
}

void Deadlines::clear(Due what, const std::string& key) {
  const auto have = at_.find({what, key});
  if (have == at_.end()) { return; }
  order_.erase({have->second, what, key});
  at_.erase(have);
}

void Deadlines::clear_all(const std::string& key) {
  for (const Due what : {Due::threshold, Due::lease, Due::retry, Due::grace, Due::clean}) {
    clear(what, key);
  }
}

std::optional<Deadlines::Point> Deadlines::next() const {
  if (order_.empty()) { return std::nullopt; }
  return order_.begin()->at;
}

std::optional<std::string> Deadlines::first(Due what) const {
  for (const Item& item : order_) {
    if (item.what == what) { return item.key; }
  }
  return std::nullopt;
}

std::vector<Deadlines::Item> Deadlines::take(Point now) {
  std::vector<Item> due;
  while (!order_.empty() && order_.begin()->at <= now) {
    due.push_back(*order_.begin());
    at_.erase({due.back().what, due.back().key});
    order_.erase(order_.begin());
  }
  return due;
}

void Deadlines::shift(Due what, std::chrono::steady_clock::duration by) {
  std::vector<Item> moved;
  for (const Item& item : order_) {
    if (item.what == what) { moved.push_back(item); }
  }
  for (const Item& item : moved) { set(item.what, item.key, item.at + by); }
}

}  // namespace metier
