// Ticks come from outside (Trigger::fire), one per function whatever its replicas; this makes them events. The same id twice is one
// event: who asks again gets the answer of the first.
#include "realtime/triggers/cron/cron.h"

#include <fmt/format.h>

#include <algorithm>
#include <deque>
#include <list>

#include "base/cron.h"
#include "base/text.h"

namespace metier::realtime {
namespace {

constexpr int kDeliveries = 3;
constexpr std::size_t kRemembered = 256;

class CronTrigger final : public Trigger {
 public:
  explicit CronTrigger(const TriggerSite& site) : name_(site.trigger.name), log_(site.log) {
    const JsonObject* event = object_in(site.trigger.attributes, "event");
    if (event == nullptr) { return; }
    if (const Json* body = event->if_contains("body"); body != nullptr && !body->is_null()) {
      body_ =
          body->is_string() ? std::string(std::string_view(body->get_string())) : dump_json(*body);
    }
    const JsonObject* headers = object_in(*event, "headers");
    for (const auto& header : headers == nullptr ? JsonObject{} : *headers) {
      headers_.emplace_back(header.key(),
                            header.value().is_string()
                                ? std::string(std::string_view(header.value().get_string()))
                                : dump_json(header.value()));
    }
    for (const auto& [name, value] : headers_) {
      views_.push_back({name, value});
      if (lower_case(name) == "content-type") { content_type_ = value; }
    }
  }

  Result<void> start(EventTarget& target) override {
    target_ = &target;
    return {};
  }

  void fire(const std::string& id, bool replace, std::function<void(int)> done) override {
    if (const auto known = std::ranges::find(ended_, id, &Ended::id); known != ended_.end()) {
      return done(known->status);
    }
    if (const auto running = std::ranges::find(running_, id, [](const auto& t) { return t->id; });
        running != running_.end()) {
      (*running)->calls.push_back(std::move(done));
      return;
    }
    if (stopped_) { return done(503); }
    if (replace) {
      std::vector<Tick*> before;
      for (auto& tick : running_) { before.push_back(tick.get()); }
      for (Tick* tick : before) { target_->cancel(tick->event.id, *tick); }
    }
    running_.push_back(std::make_unique<Tick>(*this, id, next_slot_++));
    running_.back()->calls.push_back(std::move(done));
    ++fired_;
    target_->deliver(running_.back()->event, *running_.back());
  }

  void stop(std::function<void()> done) override {
    stopped_ = std::move(done);
    if (running_.empty()) { stopped_(); }
  }
  void metrics(MetricsWriter& out) const override {
    out.counter("metier_cron_ticks_total", "Ticks given to the handler",
                {{"trigger_kind", "cron"}, {"trigger_id", name_}}, fired_);
  }
  std::string describe() const override {
    return fmt::format("{} ticks, {} running", fired_, running_.size());
  }

 private:
  struct Tick final : ResponseSink {
    Tick(CronTrigger& trigger, std::string its_id, std::uint32_t slot)
        : owner(trigger), id(std::move(its_id)) {
      event.id = {slot, 1};
      event.uid = id;
      event.trigger_kind = "cron";
      event.trigger_name = owner.name_;
      event.headers = owner.views_;
      event.body = owner.body_;
      event.content_type = owner.content_type_;
    }
    void head(const ResponseHead& head) noexcept override { status = head.status; }
    bool chunk(std::string_view) noexcept override { return true; }
    void end() noexcept override { owner.ended(*this); }
    void fail(const Failure& failure) noexcept override {
      // It had not ended: another worker gets it, unless it seems to be what kills them.
      if (failure.reason == FailReason::worker_died && ++deliveries < kDeliveries) {
        return owner.target_->deliver(event, *this);
      }
      status = failure.status;
      owner.log_.warn("a tick failed", {{"status", Json(status)}, {"why", Json(failure.message)}});
      owner.ended(*this);
    }
    CronTrigger& owner;
    std::string id;
    Event event;
    int status = 200;
    int deliveries = 0;
    std::vector<std::function<void(int)>> calls;
  };
  struct Ended {
    std::string id;
    int status;
  };

  void ended(Tick& tick) {
    const auto at = std::ranges::find(running_, &tick, [](const auto& t) { return t.get(); });
    const std::unique_ptr<Tick> mine = std::move(*at);
    running_.erase(at);
    if (mine->status != 503) {  // 503: it never began, the caller comes again
      ended_.push_back({mine->id, mine->status});
      if (ended_.size() > kRemembered) { ended_.pop_front(); }
    }
    for (auto& call : mine->calls) { call(mine->status); }
    if (stopped_ && running_.empty()) { stopped_(); }
  }

  std::string name_;
  Logger log_;
  std::string body_, content_type_;
  std::vector<std::pair<std::string, std::string>> headers_;
  std::vector<HeaderView> views_;
  EventTarget* target_ = nullptr;
  std::list<std::unique_ptr<Tick>> running_;
  std::deque<Ended> ended_;
  std::function<void()> stopped_;
  std::uint32_t next_slot_ = 0;
  std::uint64_t fired_ = 0;
};

Result<void> check(const TriggerConfig& trigger) {
  const auto schedule = string_in(trigger.attributes, "schedule");
  if (schedule.empty()) { return {}; }
  if (auto parsed = CronSchedule::parse(schedule); !parsed) {
    return fail(std::move(parsed.error()).at("triggers." + trigger.name + ".attributes"));
  }
  return {};
}

}  // namespace

const TriggerKind& cron_trigger_kind() {
  static const TriggerKind kKind{
      .name = "cron",
      .check = check,
      .make = [](const TriggerSite& site) -> Result<std::unique_ptr<Trigger>> {
        return std::make_unique<CronTrigger>(site);
      }};
  return kKind;
}

}  // namespace metier::realtime
