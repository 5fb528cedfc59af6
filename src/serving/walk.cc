#include "serving/walk.h"

namespace metier::serving {

void Walk::start(Token token) {
  Item item{.step = -1, .from = -1, .token = token, .ran = true};
  if (follow(item, plan_.starts)) { loop(item); }
}

void Walk::resume(int step, Token token, Verdict verdict) {
  Item item{.step = step, .from = -1, .token = token, .ran = true};
  if (settle(item, verdict)) {
    loop(item);
  } else if (!stack_.empty()) {
    item = stack_.back();
    stack_.pop_back();
    loop(item);
  }
}

void Walk::loop(Item item) {
  for (;;) {
    const Verdict verdict = item.ran ? Verdict::next : host_.run(item.step, item.token, item.from);
    if (settle(item, verdict)) { continue; }
    if (stack_.empty()) { return; }
    item = stack_.back();
    stack_.pop_back();
  }
}

// True: `item` has become what runs next.
bool Walk::settle(Item& item, Verdict verdict) {
  const PlanStep& step = plan_.steps[static_cast<std::size_t>(item.step)];
  switch (verdict) {
    case Verdict::next:
      if (step.responder) { host_.respond(item.token); }
      return follow(item, step.next);
    case Verdict::some:
      outlets_.clear();
      host_.outlets(outlets_);
      if (outlets_.empty()) { break; }
      if (step.responder) { host_.respond(item.token); }
      return follow(item, outlets_);
    case Verdict::drop: break;
    case Verdict::many:
      tokens_.clear();
      host_.take(tokens_);
      for (auto token = tokens_.rbegin(); token != tokens_.rend(); ++token) {
        stack_.push_back({.step = item.step, .from = item.from, .token = *token, .ran = true});
      }
      break;
    case Verdict::parked: return false;
    case Verdict::failed:
      if (step.error >= 0) {
        host_.recover(item.step, item.token);
        item = {.step = step.error, .from = item.step, .token = item.token, .ran = false};
        return true;
      }
      host_.fail(item.step, item.token);
      return false;
    case Verdict::ended: host_.respond(item.token); break;
  }
  host_.drop(item.token);
  return false;
}

bool Walk::follow(Item& item, const std::vector<int>& next) {
  if (next.empty()) {
    if (plan_.sync) { host_.respond(item.token); }
    host_.drop(item.token);
    return false;
  }
  for (std::size_t i = next.size(); i-- > 1;) {
    stack_.push_back(
        {.step = next[i], .from = item.step, .token = host_.branch(item.token), .ran = false});
  }
  item = {.step = next[0], .from = item.step, .token = item.token, .ran = false};
  return true;
}

}  // namespace metier::serving
