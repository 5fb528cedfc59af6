#include "cluster/embedded/scheduler.h"

#include <fmt/format.h>

#include <algorithm>

namespace metier {
namespace {

bool is_gpu(std::string_view resource) {
  return resource.ends_with("/gpu") || resource.find("gpu") != std::string_view::npos;
}

std::string amount_text(std::string_view resource, std::int64_t milli) {
  const auto amount = Quantity::from_milli(std::max<std::int64_t>(milli, 0));
  if (resource == "cpu") { return amount.cpu_text(); }
  if (resource == "memory" || resource == "ephemeral-storage" ||
      resource.starts_with("hugepages-")) {
    return human_bytes(amount.units());
  }
  return fmt::format("{}", amount.units());
}

std::string code_of(std::string_view resource) {
  if (resource == "cpu") { return "InsufficientCpu"; }
  if (resource == "memory") { return "InsufficientMemory"; }
  if (resource == "pods") { return "InsufficientPods"; }
  // What is none of these this node never has: it is refused as such before it waits.
  return is_gpu(resource) ? "InsufficientGpu" : "NeverFits";
}

// Requests and priority as one text: equal texts are interchangeable.
std::string signature(const PodRequest& request) {
  std::string out = fmt::format("{}|", request.priority);
  for (const auto& [name, amount] : request.requests) {
    out += fmt::format("{}={},", name, amount.milli());
  }
  // The rule for owners that hold something makes pods of different owners different.
  return out + request.owner;
}

std::int64_t plus(std::int64_t a, std::int64_t b) {
  std::int64_t out = 0;
  return __builtin_add_overflow(a, b, &out) ? INT64_MAX : out;
}

}  // namespace

Scheduler::Scheduler(NodeCapacity capacity) : capacity_(std::move(capacity)) {
  for (const auto& [resource, numbers] : capacity_.devices) {
    capacity_.allocatable[resource] =
        Quantity::from_units(static_cast<std::int64_t>(numbers.size()));
    free_devices_[resource].insert(numbers.begin(), numbers.end());
  }
}

std::string_view Scheduler::resource_of(std::string_view code) {
  if (code == "InsufficientCpu") { return "cpu"; }
  if (code == "InsufficientMemory") { return "memory"; }
  if (code == "InsufficientPods") { return "pods"; }
  return code == "InsufficientGpu" ? "nvidia.com/gpu" : "";
}

std::int64_t Scheduler::used(std::string_view resource) const {
  const auto found = used_.find(resource);
  return found == used_.end() ? 0 : found->second;
}

std::optional<WaitCause> Scheduler::never_fits(const Amounts& requests) const {
  for (const auto& [resource, amount] : requests) {
    if (amount.milli() == 0) { continue; }
    const auto has = capacity_.allocatable.find(resource);
    const std::int64_t most = has == capacity_.allocatable.end() ? 0 : has->second.milli();
    if (amount.milli() > most) {
      return WaitCause{.code = "NeverFits",
                       .reason = fmt::format("asks for {} of {}; this node has {}",
                                             amount_text(resource, amount.milli()), resource,
                                             most == 0 ? "none" : amount_text(resource, most))};
    }
  }
  return std::nullopt;
}

std::optional<WaitCause> Scheduler::lacks(const Amounts& requests) const {
  for (const auto& [resource, amount] : requests) {
    if (amount.milli() == 0) { continue; }
    const auto has = capacity_.allocatable.find(resource);
    const std::int64_t all = has == capacity_.allocatable.end() ? 0 : has->second.milli();
    std::int64_t free = all - used(resource);
    if (const auto devices = free_devices_.find(resource); devices != free_devices_.end()) {
      free = std::min(free, static_cast<std::int64_t>(devices->second.size()) * 1000);
    }
    if (amount.milli() > free) {
      return WaitCause{
          .code = code_of(resource),
          .reason = fmt::format("asks for {} of {}; {} of {} is free",
                                amount_text(resource, amount.milli()), resource,
                                amount_text(resource, free), amount_text(resource, all))};
    }
  }
  return std::nullopt;
}

void Scheduler::count(const Amounts& requests, int sign) {
  for (const auto& [resource, amount] : requests) {
    auto& sum = used_[resource];
    sum = sign > 0 ? plus(sum, amount.milli()) : sum - amount.milli();
  }
}

void Scheduler::add(PodRequest request) {
  if (waiting_.contains(request.id) || running_.contains(request.id)) { return; }
  request.requests["pods"] = Quantity::from_units(1);
  const Order order{.priority = request.priority, .number = next_++};
  queue(std::move(request), order);
}

void Scheduler::queue(PodRequest request, Order order) {
  const auto id = request.id;
  std::string bucket;
  if (!request.gang.empty() && !gangs_[request.gang].placed) {
    gangs_[request.gang].members.emplace(order.number, id);
  } else {
    bucket = signature(request);
    auto& entry = buckets_[bucket];
    entry.priority = order.priority;
    entry.pods.emplace(order.number, id);
  }
  waiting_.emplace(
      id, Waiting{.request = std::move(request), .order = order, .bucket = std::move(bucket)});
}

void Scheduler::unqueue(const std::string& id) {
  const auto found = waiting_.find(id);
  if (found == waiting_.end()) { return; }
  const auto& [request, order, bucket] = found->second;
  if (bucket.empty()) {
    if (const auto gang = gangs_.find(request.gang); gang != gangs_.end()) {
      gang->second.members.erase(order.number);
    }
  } else if (const auto entry = buckets_.find(bucket); entry != buckets_.end()) {
    const bool first =
        !entry->second.pods.empty() && entry->second.pods.begin()->first == order.number;
    entry->second.pods.erase(order.number);
    if (first) { entry->second.passed = 0; }
    if (entry->second.pods.empty()) { buckets_.erase(entry); }
  }
  waiting_.erase(found);
}

void Scheduler::adopt(PodRequest request, const Devices& devices) {
  unqueue(request.id);
  if (running_.contains(request.id)) { return; }
  request.requests["pods"] = Quantity::from_units(1);
  count(request.requests, 1);
  for (const auto& [resource, numbers] : devices) {
    for (const int number : numbers) { free_devices_[resource].erase(number); }
  }
  if (!request.owner.empty()) { ++owners_[request.owner]; }
  if (!request.gang.empty()) {
    auto& gang = gangs_[request.gang];
    gang.holding.insert(request.id);
    if (!gang.placed) {
      gang.placed = true;
      release_members(request.gang);
    }
  }
  const auto id = request.id;
  running_.emplace(id, Running{.request = std::move(request), .devices = devices});
}

// Members that still wait when their gang runs are single pods from now on.
void Scheduler::release_members(const std::string& name) {
  auto& gang = gangs_[name];
  for (const auto& [number, id] : std::exchange(gang.members, {})) {
    const auto found = waiting_.find(id);
    auto [request, order, bucket] = std::move(found->second);
    waiting_.erase(found);
    queue(std::move(request), order);
  }
}

void Scheduler::set_gang(const std::string& name, int min_member) {
  if (min_member <= 0) {
    const auto found = gangs_.find(name);
    if (found == gangs_.end()) { return; }
    found->second.min_member = 0;
    if (found->second.members.empty() && found->second.holding.empty()) { gangs_.erase(found); }
    gang_causes_.erase(name);
    gang_passed_.erase(name);
    return;
  }
  gangs_[name].min_member = min_member;
}

void Scheduler::remove(const std::string& id) {
  std::string gang_name;
  if (const auto found = running_.find(id); found != running_.end()) {
    auto& [request, devices] = found->second;
    count(request.requests, -1);
    for (const auto& [resource, numbers] : devices) {
      const auto& all = capacity_.devices[resource];
      for (const int number : numbers) {
        // A device that was taken out of the node while its pod ran does not come back.
        if (std::ranges::find(all, number) != all.end()) { free_devices_[resource].insert(number); }
      }
    }
    if (const auto owner = owners_.find(request.owner);
        owner != owners_.end() && --owner->second == 0) {
      owners_.erase(owner);
    }
    gang_name = request.gang;
    running_.erase(found);
  } else if (const auto waits = waiting_.find(id); waits != waiting_.end()) {
    gang_name = waits->second.request.gang;
    unqueue(id);
  }
  const auto gang = gangs_.find(gang_name);
  if (gang_name.empty() || gang == gangs_.end()) { return; }
  gang->second.holding.erase(id);
  if (gang->second.holding.empty()) { gang->second.placed = false; }
  if (gang->second.min_member == 0 && gang->second.members.empty() &&
      gang->second.holding.empty()) {
    gangs_.erase(gang);
  }
}

Amounts Scheduler::gang_requests(const Gang& gang) const {
  Amounts out;
  int left = gang.min_member;
  for (const auto& [number, id] : gang.members) {
    if (left-- == 0) { break; }
    for (const auto& [resource, amount] : waiting_.at(id).request.requests) {
      out[resource] = Quantity::from_milli(plus(out[resource].milli(), amount.milli()));
    }
  }
  return out;
}

void Scheduler::hold(const std::string& id, std::vector<Placement>& out) {
  auto request = waiting_.at(id).request;
  unqueue(id);
  Placement placement{.id = id, .devices = {}};
  for (const auto& [resource, amount] : request.requests) {
    const auto pool = free_devices_.find(resource);
    if (pool == free_devices_.end()) { continue; }
    for (std::int64_t i = 0; i < amount.units(); ++i) {
      const auto first = pool->second.begin();
      placement.devices[resource].push_back(*first);
      pool->second.erase(first);
    }
  }
  count(request.requests, 1);
  if (!request.owner.empty()) { ++owners_[request.owner]; }
  if (!request.gang.empty()) { gangs_[request.gang].holding.insert(id); }
  running_.emplace(id, Running{.request = std::move(request), .devices = placement.devices});
  out.push_back(std::move(placement));
}

std::vector<Placement> Scheduler::place() {
  std::vector<Placement> out;
  if (paused_) { return out; }
  std::set<Candidate> candidates;
  for (const auto& [name, bucket] : buckets_) {
    candidates.insert({.order = {.priority = bucket.priority, .number = bucket.pods.begin()->first},
                       .bucket = name,
                       .gang = {}});
  }
  for (const auto& [name, gang] : gangs_) {
    if (!gang_waits(gang)) { continue; }
    auto order = waiting_.at(gang.members.begin()->second).order;
    for (const auto& [number, id] : gang.members) {
      order.priority = std::max(order.priority, waiting_.at(id).order.priority);
    }
    candidates.insert({.order = order, .bucket = {}, .gang = name});
  }
  std::vector<int*> passed_over;
  bool closed =
      false;  // somebody was passed too often: only pods of owners that hold something go on
  while (!candidates.empty()) {
    const auto candidate = *candidates.begin();
    candidates.erase(candidates.begin());
    const auto before = out.size();
    if (!candidate.gang.empty()) {
      auto& gang = gangs_.at(candidate.gang);
      auto cause = lacks(gang_requests(gang));
      if (!cause && !closed) {
        std::vector<std::string> ids;
        for (const auto& [number, id] : gang.members) {
          if (static_cast<int>(ids.size()) < gang.min_member) { ids.push_back(id); }
        }
        for (const auto& id : ids) { hold(id, out); }
        gang.placed = true;
        gang_causes_.erase(candidate.gang);
        gang_passed_.erase(candidate.gang);
        std::vector<std::string> rest;
        for (const auto& [number, id] : gang.members) { rest.push_back(id); }
        release_members(candidate.gang);
        for (const auto& id : rest) {
          const auto& waits = waiting_.at(id);
          const auto& bucket = buckets_.at(waits.bucket);
          candidates.insert(
              {.order = {.priority = bucket.priority, .number = bucket.pods.begin()->first},
               .bucket = waits.bucket,
               .gang = {}});
        }
      } else {
        if (auto never = never_fits(gang_requests(gang))) { cause = std::move(never); }
        if (cause) {
          cause->reason = fmt::format("the gang of {} {}", gang.min_member, cause->reason);
        }
        const bool hopeless = cause && cause->code == "NeverFits";
        gang_causes_[candidate.gang] = cause.value_or(WaitCause{
            .code = "QueueOrder", .reason = "waits behind an earlier pod that has waited longer"});
        int& passed = gang_passed_[candidate.gang];
        if (!hopeless) {
          closed = closed || passed >= kMostPasses;
          passed_over.push_back(&passed);
        }
      }
    } else {
      auto& bucket = buckets_.at(candidate.bucket);
      const auto& id = bucket.pods.begin()->second;
      const auto& request = waiting_.at(id).request;
      auto cause = lacks(request.requests);
      const bool may_pass = !closed || (!request.owner.empty() && owners_.contains(request.owner));
      if (!cause && may_pass) {
        const std::string gang_name = request.gang;
        hold(std::string(id), out);
        // The last that its gang's waiting members lacked.
        if (const auto gang = gangs_.find(gang_name);
            !gang_name.empty() && gang != gangs_.end() && gang_waits(gang->second)) {
          candidates.insert({.order = waiting_.at(gang->second.members.begin()->second).order,
                             .bucket = {},
                             .gang = gang_name});
        }
        if (const auto again = buckets_.find(candidate.bucket); again != buckets_.end()) {
          candidates.insert({.order = {.priority = again->second.priority,
                                       .number = again->second.pods.begin()->first},
                             .bucket = candidate.bucket,
                             .gang = {}});
        }
      } else {
        if (auto never = never_fits(request.requests)) { cause = std::move(never); }
        const bool hopeless =
            cause && cause->code == "NeverFits";  // it must not keep others waiting
        bucket.cause = cause.value_or(WaitCause{
            .code = "QueueOrder", .reason = "waits behind an earlier pod that has waited longer"});
        if (!hopeless) {
          closed = closed || bucket.passed >= kMostPasses;
          passed_over.push_back(&bucket.passed);
        }
      }
    }
    if (out.size() > before) {
      for (int* passed : passed_over) { ++*passed; }
    }
  }
  return out;
}

std::optional<WaitCause> Scheduler::cause(const std::string& id) const {
  const auto found = waiting_.find(id);
  if (found == waiting_.end()) { return std::nullopt; }
  if (paused_) {
    return WaitCause{
        .code = "QueuePaused",
        .reason = "the queue is paused" + (pause_reason_.empty() ? "" : ": " + pause_reason_)};
  }
  const auto& waits = found->second;
  if (!waits.bucket.empty()) { return buckets_.at(waits.bucket).cause; }
  const auto& gang = gangs_.at(waits.request.gang);
  if (gang.min_member == 0) {
    return WaitCause{.code = "GangIncomplete", .reason = "its PodGroup does not exist yet"};
  }
  if (!gang_waits(gang)) {
    return WaitCause{.code = "GangIncomplete",
                     .reason = fmt::format("{} of the {} pods of its gang exist", present(gang),
                                           gang.min_member)};
  }
  const auto cause = gang_causes_.find(waits.request.gang);
  return cause == gang_causes_.end() ? WaitCause{} : cause->second;
}

std::optional<QueueEntry> Scheduler::position(const std::string& id) const {
  const auto found = waiting_.find(id);
  if (found == waiting_.end()) { return std::nullopt; }
  QueueEntry out{.position = 1,
                 .length = static_cast<int>(waiting_.size()),
                 .cause = cause(id).value_or(WaitCause{})};
  for (const auto& [other, waits] : waiting_) {
    if (waits.order < found->second.order) { ++out.position; }
  }
  return out;
}

std::vector<std::pair<std::string, Quantity>> Scheduler::holders(std::string_view resource,
                                                                 std::size_t most) const {
  std::vector<std::pair<std::string, Quantity>> out;
  for (const auto& [id, running] : running_) {
    const auto amount = running.request.requests.find(resource);
    if (amount != running.request.requests.end() && amount->second.milli() > 0) {
      out.emplace_back(running.request.name, amount->second);
    }
  }
  std::ranges::sort(out, [](const auto& a, const auto& b) {
    return a.second != b.second ? a.second > b.second : a.first < b.first;
  });
  if (out.size() > most) { out.resize(most); }
  return out;
}

bool Scheduler::others_want_room_of(std::string_view owner) const {
  std::set<std::string_view> wanted;  // resources
  const auto note = [&](const WaitCause& cause, const auto& pods) {
    const auto resource = resource_of(cause.code);
    if (resource.empty()) { return; }
    for (const auto& [number, id] : pods) {
      if (waiting_.at(id).request.owner != owner) {
        wanted.insert(resource);
        return;
      }
    }
  };
  for (const auto& [name, bucket] : buckets_) { note(bucket.cause, bucket.pods); }
  for (const auto& [name, cause] : gang_causes_) {
    const auto gang = gangs_.find(name);
    const auto mine = [&](const auto& member) {
      return waiting_.at(member.second).request.owner == owner;
    };
    if (gang != gangs_.end() && std::ranges::none_of(gang->second.members, mine)) {
      note(cause, gang->second.members);
    }
  }
  if (wanted.empty()) { return false; }
  return std::ranges::any_of(running_, [&](const auto& entry) {
    const PodRequest& request = entry.second.request;
    return request.owner == owner && std::ranges::any_of(wanted, [&](std::string_view resource) {
             const auto amount = request.requests.find(resource);
             return amount != request.requests.end() && amount->second.milli() > 0;
           });
  });
}

Amounts Scheduler::free() const {
  Amounts out;
  for (const auto& [resource, amount] : capacity_.allocatable) {
    out[resource] =
        Quantity::from_milli(std::max<std::int64_t>(amount.milli() - used(resource), 0));
  }
  return out;
}

}  // namespace metier
