// Loopback addresses for pods and Services, and the names they have in pods' hosts files. Pure.
//  - A pod gets an address only when somebody may need to reach it: it declares ports, belongs to a gang, or
//    a Service selects it. A loopback address is not isolation.
//  - A Service with annotation metier.dev/held-socket keeps its address for itself: its socket is held for its pods.
//  - A Service with an address gets one when it is created; the first live pod that it selects takes it as
//    its own, so that the name resolves before and after the pod starts. Further pods have their own.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "resource/pod.h"
#include "resource/resource.h"

namespace metier {

struct ServicePort {
  std::string name;
  int port = 0;
  std::string target;  // number or name of the container's port
};

class AddressBook final {
 public:
  // Of the network 127.N.
  explicit AddressBook(unsigned network) : network_(network) {}

  // A Service as it is now. `address` is the one it had before, or empty; gives its address (empty: headless).
  std::string put_service(const Resource& service, const std::string& address);
  void remove_service(const ResourceKey& key);
  bool has_services(const std::string& name_space) const;

  // An address for a pod, or empty when it needs none. Errors: exhausted.
  Result<std::string> take(const Pod& pod, const std::string& id, bool in_gang);
  // A pod that already runs keeps its address.
  void adopt(const Pod& pod, const std::string& id, const std::string& address);
  void release(const std::string& id);

  // Text of a pod's hosts file: its own name, Services and pods with addresses of its project.
  std::string hosts(const Pod& pod, const std::string& address) const;
  // METIER_<SERVICE>_ADDR of each Service of the project.
  std::vector<std::pair<std::string, std::string>> service_env(const std::string& name_space) const;
  // "host:port" of a Service's port (its name or number, empty: the only one). Errors: not_found.
  Result<std::string> reach(const std::string& name_space, const std::string& service,
                            const std::string& port) const;

 private:
  struct Service {
    std::string name;
    std::string address;  // empty: headless
    bool held = false;    // its socket is held for its pods, which never have its address
    Labels selector;
    std::vector<ServicePort> ports;
  };
  struct Holder {  // a pod with an address
    std::string address;
    std::string name_space;
    std::string name;
    std::string hostname;
    std::string subdomain;
    Labels labels;
    std::map<std::string, int> ports;
  };

  Result<std::string> fresh();
  const Holder* first_of(const std::string& name_space, const Service& service) const;
  void hold(const Pod& pod, const std::string& id, const std::string& address);

  unsigned network_;
  unsigned next_ = 1;
  std::map<std::string, std::map<std::string, Service>> services_;  // project → name
  std::map<std::string, std::map<std::string, Holder>> holders_;    // project → pod id
  std::unordered_map<std::string, std::string> project_of_;         // pod id → project
  std::set<std::string> used_;                                      // by Services or pods
};

}  // namespace metier
