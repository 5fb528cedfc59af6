#include "cluster/embedded/address_book.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>

namespace metier {
namespace {

bool selects(const Labels& selector, const Labels& labels) {
  if (selector.empty()) { return false; }
  return std::ranges::all_of(selector, [&](const auto& want) {
    const auto found = labels.find(want.first);
    return found != labels.end() && found->second == want.second;
  });
}

// name, name.project, name.project.svc, name.project.svc.cluster.local
void add_names(std::string& out, const std::string& address, const std::string& name,
               const std::string& name_space) {
  out += fmt::format("{} {} {}.{} {}.{}.svc {}.{}.svc.cluster.local\n", address, name, name,
                     name_space, name, name_space, name, name_space);
}

}  // namespace

Result<std::string> AddressBook::fresh() {
  for (unsigned tried = 0; tried < 65534; ++tried) {
    const unsigned n = next_;
    next_ = next_ % 65534 + 1;
    auto address = fmt::format("127.{}.{}.{}", network_, n / 256, n % 256);
    if (used_.insert(address).second) { return address; }
  }
  return fail(Error{.kind = ErrorKind::exhausted,
                    .message = "all 65,534 addresses for pods are taken",
                    .field = {},
                    .fix = "remove pods or services",
                    .code = {}});
}

std::string AddressBook::put_service(const Resource& resource, const std::string& address) {
  auto& service = services_[resource.metadata.name_space][resource.metadata.name];
  service.name = resource.metadata.name;
  service.held = resource.metadata.annotations.contains("metier.dev/held-socket");
  service.selector.clear();
  service.ports.clear();
  const auto& spec = resource.spec();
  if (const auto* selector = object_in(spec, "selector")) {
    for (const auto& [key, value] : *selector) {
      if (value.is_string()) {
        service.selector.emplace(std::string_view(key), std::string_view(value.get_string()));
      }
    }
  }
  if (const auto* ports = array_in(spec, "ports")) {
    for (const auto& entry : *ports) {
      if (!entry.is_object()) { continue; }
      const auto& object = entry.get_object();
      ServicePort port{.name = std::string(string_in(object, "name")),
                       .port = static_cast<int>(int_in(object, "port").value_or(0)),
                       .target = {}};
      port.target = string_in(object, "targetPort");
      if (port.target.empty()) {
        port.target = std::to_string(int_in(object, "targetPort").value_or(port.port));
      }
      service.ports.push_back(std::move(port));
    }
  }
  if (string_in(spec, "clusterIP") == "None") { return {}; }
  if (service.address.empty()) {
    if (!address.empty()) {
      service.address = address;
      used_.insert(address);
    } else if (auto made = fresh()) {
      service.address = *made;
    }
  }
  return service.address;
}

void AddressBook::remove_service(const ResourceKey& key) {
  const auto project = services_.find(key.name_space);
  if (project == services_.end()) { return; }
  const auto found = project->second.find(key.name);
  if (found == project->second.end()) { return; }
  const auto address = found->second.address;
  project->second.erase(found);
  if (project->second.empty()) { services_.erase(project); }
  const auto holders = holders_.find(key.name_space);
  const bool held =
      holders != holders_.end() && std::ranges::any_of(holders->second, [&](const auto& entry) {
        return entry.second.address == address;
      });
  if (!held) { used_.erase(address); }
}

bool AddressBook::has_services(const std::string& name_space) const {
  return services_.contains(name_space);
}

void AddressBook::hold(const Pod& pod, const std::string& id, const std::string& address) {
  Holder holder{.address = address,
                .name_space = pod.metadata.name_space,
                .name = pod.metadata.name,
                .hostname = pod.hostname,
                .subdomain = pod.subdomain,
                .labels = pod.metadata.labels,
                .ports = {}};
  for (const auto& container : pod.containers) {
    for (const auto& port : container.ports) {
      if (!port.name.empty()) { holder.ports.emplace(port.name, port.port); }
    }
  }
  used_.insert(address);
  project_of_[id] = pod.metadata.name_space;
  holders_[pod.metadata.name_space][id] = std::move(holder);
}

Result<std::string> AddressBook::take(const Pod& pod, const std::string& id, bool in_gang) {
  const auto& project = pod.metadata.name_space;
  if (const auto known = holders_.find(project);
      known != holders_.end() && known->second.contains(id)) {
    return known->second.at(id).address;
  }
  bool needed = in_gang || std::ranges::any_of(pod.containers, [](const Container& container) {
                  return !container.ports.empty();
                });
  std::string address;
  if (const auto services = services_.find(project); services != services_.end()) {
    for (const auto& [name, service] : services->second) {
      if (!selects(service.selector, pod.metadata.labels)) { continue; }
      needed = true;
      if (service.held || !address.empty() || service.address.empty()) { continue; }
      const auto holders = holders_.find(project);
      const bool held =
          holders != holders_.end() && std::ranges::any_of(holders->second, [&](const auto& entry) {
            return entry.second.address == service.address;
          });
      if (!held) { address = service.address; }
    }
  }
  if (!needed) { return std::string(); }
  if (address.empty()) {
    METIER_TRY(made, fresh());
    address = made;
  }
  hold(pod, id, address);
  return address;
}

void AddressBook::adopt(const Pod& pod, const std::string& id, const std::string& address) {
  if (!address.empty()) { hold(pod, id, address); }
}

void AddressBook::release(const std::string& id) {
  const auto project = project_of_.find(id);
  if (project == project_of_.end()) { return; }
  const auto name_space = project->second;
  project_of_.erase(project);
  auto& holders = holders_[name_space];
  const auto address = holders.at(id).address;
  holders.erase(id);
  if (holders.empty()) { holders_.erase(name_space); }
  const auto services = services_.find(name_space);
  const bool of_service =
      services != services_.end() && std::ranges::any_of(services->second, [&](const auto& entry) {
        return entry.second.address == address;
      });
  if (!of_service) { used_.erase(address); }
}

const AddressBook::Holder* AddressBook::first_of(const std::string& name_space,
                                                 const Service& service) const {
  const auto project = holders_.find(name_space);
  if (service.held || project == holders_.end()) { return nullptr; }
  const Holder* out = nullptr;
  for (const auto& [id, holder] : project->second) {
    if (!selects(service.selector, holder.labels)) { continue; }
    if (holder.address == service.address) { return &holder; }
    if (out == nullptr) { out = &holder; }
  }
  return out;
}

std::string AddressBook::hosts(const Pod& pod, const std::string& address) const {
  const auto& project = pod.metadata.name_space;
  if (address.empty() && !has_services(project)) { return {}; }
  std::string out = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n";
  if (const auto holders = holders_.find(project); holders != holders_.end()) {
    for (const auto& [id, holder] : holders->second) {
      const auto& host = holder.hostname.empty() ? holder.name : holder.hostname;
      out += fmt::format("{} {}", holder.address, host);
      if (host != holder.name) { out += " " + holder.name; }
      if (!holder.subdomain.empty()) {
        const auto full = fmt::format("{}.{}", host, holder.subdomain);
        out += fmt::format(" {} {}.{} {}.{}.svc {}.{}.svc.cluster.local", full, full, project, full,
                           project, full, project);
      }
      out += '\n';
    }
  }
  const auto services = services_.find(project);
  if (services == services_.end()) { return out; }
  for (const auto& [name, service] : services->second) {
    if (service.address.empty()) {  // headless: the addresses of its pods
      const auto holders = holders_.find(project);
      if (holders == holders_.end()) { continue; }
      for (const auto& [id, holder] : holders->second) {
        if (selects(service.selector, holder.labels)) {
          add_names(out, holder.address, name, project);
        }
      }
      continue;
    }
    const auto* holder = first_of(project, service);
    add_names(out, holder == nullptr ? service.address : holder->address, name, project);
  }
  return out;
}

std::vector<std::pair<std::string, std::string>> AddressBook::service_env(
    const std::string& name_space) const {
  std::vector<std::pair<std::string, std::string>> out;
  const auto services = services_.find(name_space);
  if (services == services_.end()) { return out; }
  for (const auto& [name, service] : services->second) {
    const auto* holder = first_of(name_space, service);
    const auto& address = holder == nullptr ? service.address : holder->address;
    if (address.empty()) { continue; }
    std::string variable = "METIER_";
    for (const char c : name) {
      variable += c == '-' || c == '.'
                      ? '_'
                      : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
    }
    out.emplace_back(variable + "_ADDR", address);
  }
  return out;
}

Result<std::string> AddressBook::reach(const std::string& name_space, const std::string& name,
                                       const std::string& wanted) const {
  const auto services = services_.find(name_space);
  if (services == services_.end() || !services->second.contains(name)) {
    return fail(Error{.kind = ErrorKind::not_found,
                      .message = fmt::format("no service {} in {}", quote(name), quote(name_space)),
                      .field = {},
                      .fix = {},
                      .code = {}});
  }
  const auto& service = services->second.at(name);
  const ServicePort* port = nullptr;
  for (const auto& candidate : service.ports) {
    if ((wanted.empty() && service.ports.size() == 1) || candidate.name == wanted ||
        std::to_string(candidate.port) == wanted) {
      port = &candidate;
    }
  }
  if (port == nullptr) {
    return fail(
        Error{.kind = ErrorKind::not_found,
              .message = fmt::format("service {} has no port {}", quote(name), quote(wanted)),
              .field = {},
              .fix = {},
              .code = {}});
  }
  const auto* holder = first_of(name_space, service);
  auto target = port->target;
  if (holder != nullptr && holder->ports.contains(target)) {
    target = std::to_string(holder->ports.at(target));
  }
  const auto& address = holder == nullptr ? service.address : holder->address;
  if (address.empty()) {
    return fail(Error{.kind = ErrorKind::unavailable,
                      .message = fmt::format("service {} has no running pod", quote(name)),
                      .field = {},
                      .fix = "wait until one is ready",
                      .code = "NotReady"});
  }
  if (target.find_first_not_of("0123456789") != std::string::npos) {
    target = std::to_string(port->port);
  }
  return fmt::format("{}:{}", address, target);
}

}  // namespace metier
