#include "main/functions_of_node.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <netdb.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <set>

#include "base/digest.h"
#include "main/environments_of_pods.h"
#include "main/held_sockets.h"
#include "main/processor_check.h"
#include "net/url.h"
#include "realtime/health.h"
#include "resource/pod.h"

namespace metier {
namespace {

constexpr std::string_view kPrefix = "f/";

struct HostPort {
  std::string host;
  std::string port;
};
HostPort split(const std::string& address) {
  const std::size_t colon = address.rfind(':');
  return {address.substr(0, colon), address.substr(colon + 1)};
}

Result<Fd> listen_on(const std::string& host, const std::string& port) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  if (const int error = ::getaddrinfo(host.c_str(), port.c_str(), &hints, &found); error != 0) {
    return fail(invalid("--listen", fmt::format("{}: {}", host, ::gai_strerror(error))));
  }
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> free_it(found, ::freeaddrinfo);
  Fd fd(::socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) { return fail(errno_error("socket", errno)); }
  const int on = 1;
  ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (::bind(fd.get(), found->ai_addr, found->ai_addrlen) != 0) {
    const int why = errno;
    if (why == EADDRINUSE || why == EACCES) {
      return fail(Error{.kind = ErrorKind::conflict,
                        .message = fmt::format("{}:{} {}", host, port,
                                               why == EACCES ? "may not be taken by this user"
                                                             : "is taken by another program"),
                        .field = "port",
                        .fix = "choose another port, or leave it out",
                        .code = "PortTaken"});
    }
    return fail(errno_error(fmt::format("{}:{}", host, port), why));
  }
  if (::listen(fd.get(), 4096) != 0) { return fail(errno_error("listen", errno)); }
  return fd;
}

// "127.0.0.1:8080" of a bound socket.
std::string address_of(int fd) {
  sockaddr_storage name{};
  socklen_t size = sizeof name;
  if (::getsockname(fd, reinterpret_cast<sockaddr*>(&name), &size) != 0) { return {}; }
  char text[INET6_ADDRSTRLEN] = {};
  if (name.ss_family == AF_INET6) {
    const auto* six = reinterpret_cast<const sockaddr_in6*>(&name);
    ::inet_ntop(AF_INET6, &six->sin6_addr, text, sizeof text);
    return fmt::format("[{}]:{}", text, ntohs(six->sin6_port));
  }
  const auto* four = reinterpret_cast<const sockaddr_in*>(&name);
  ::inet_ntop(AF_INET, &four->sin_addr, text, sizeof text);
  return fmt::format("{}:{}", text, ntohs(four->sin_port));
}

// The address of an earlier life, by the function's own status.
std::string address_before(const Resource& function, const char* urls) {
  const JsonArray* before =
      function.status.is_object() ? array_in(function.status.get_object(), urls) : nullptr;
  if (before == nullptr || before->empty() || !before->front().is_string()) { return {}; }
  return std::string(std::string_view(before->front().get_string()));
}

}  // namespace

FunctionsOfNode::FunctionsOfNode(Executor loop, const ObjectStore& objects, net::Client& client,
                                 Options options)
    : loop_(loop),
      objects_(objects),
      client_(client),
      options_(std::move(options)),
      scope_(loop),
      cron_ticks_(loop, system_clock(), system_random(), options_.data + "/functions", cron_calls(),
                  options_.log) {
  cron_ticks_.start();
}
FunctionsOfNode::~FunctionsOfNode() = default;

std::string FunctionsOfNode::socket_name(const ResourceKey& function, bool outside) const {
  // Who knows the name may take the socket: it ends with a secret.
  const std::string name = fmt::format("{}{}/{}{}", kPrefix, function.name_space, function.name,
                                       outside ? "/outside" : "");
  return name + "#" + options_.secret(name);
}

void FunctionsOfNode::adopt(const std::string& name, Fd socket) {
  if (name.starts_with(kPrefix)) { adopted_[name] = std::move(socket); }
}

void FunctionsOfNode::forget_strangers() {
  std::set<std::string> wanted;
  for (const Resource& function : objects_.list({.kind = "NuclioFunction"})) {
    wanted.insert(socket_name(key_of(function), false));
    wanted.insert(socket_name(key_of(function), true));
  }
  std::erase_if(adopted_, [&](const auto& held) {
    if (wanted.contains(held.first)) { return false; }
    if (options_.gate != nullptr) { options_.gate->drop(held.first); }
    return true;
  });
}

std::string FunctionsOfNode::control_path(const std::string& name_space,
                                          const std::string& pod) const {
  return fmt::format("{}/functions/{}.sock", options_.data,
                     sha256_hex(name_space + "/" + pod).substr(0, 12));
}

Result<FunctionsOfNode::Socket> FunctionsOfNode::keep(const Resource& function, bool outside,
                                                      const std::string& host,
                                                      const std::string& port) {
  Socket out{.name = socket_name(key_of(function), outside)};
  if (const auto kept = adopted_.find(out.name); kept != adopted_.end()) {
    const HostPort now = split(address_of(kept->second.get()));
    // A name may stand for any address: then the port decides.
    const bool same_host =
        now.host == host || host.find_first_not_of("0123456789.:[]") != std::string::npos;
    if (same_host && (port == "0" || now.port == port)) { out.fd = std::move(kept->second); }
    adopted_.erase(kept);
  }
  if (!out.fd) {
    auto made = listen_on(host, port);
    if (!made && made.error().code == "PortTaken") {
      // Gate and server died together: processors of this function still have its socket.
      auto rescued = rescue_socket(host, port, options_.program);
      const JsonObject* http = http_trigger(function.spec());
      const std::string trigger =
          std::string(http == nullptr ? std::string_view() : string_in(*http, "name")) +
          (outside ? "-external" : "");
      for (const Resource& pod :
           objects_.list({.kind = "Pod", .owner_uid = function.metadata.uid})) {
        if (rescued) { break; }
        rescued =
            rescue_from_control(control_path(pod.metadata.name_space, pod.metadata.name), trigger);
      }
      if (rescued && split(address_of(rescued->get())).port == port) {
        options_.log.info("took a function's socket back from its processor",
                          {{"address", Json(host + ":" + port)}});
        made = std::move(*rescued);
      }
    }
    if (!made) { return fail(std::move(made.error())); }
    out.fd = std::move(*made);
  }
  auto held = options_.gate->hold(out.name, out.fd.get());
  if (!held) {
    options_.log.warn("the gate does not hold a function's socket",
                      {{"socket", Json(host + ":" + port)}, {"error", Json(held.error().text())}});
  }
  return out;
}

Result<FunctionSocket> FunctionsOfNode::hold(const Resource& function, const std::string& service,
                                             int node_port) {
  const ResourceKey key = key_of(function);
  if (const auto known = held_.find(key);
      known != held_.end() && known->second.node_port == node_port) {
    return known->second.where;
  }
  auto inside = options_.reach(function.metadata.name_space, service);
  if (!inside) {
    return fail(ErrorKind::unavailable, "its Service has no address yet: " + inside.error().text());
  }
  if (const auto known = held_.find(key); known != held_.end()) {
    // Other ports are wanted: what stays the same is taken over.
    tell_when_waiting(key, false);
    keep_for_later(known->second);
    held_.erase(known);
  }
  Held held{.node_port = node_port};
  held.where.address = *inside;
  if (node_port >= 0) { held.where.external = *inside; }
  if (options_.gate != nullptr) {
    const HostPort at = split(*inside);
    METIER_TRY(socket, keep(function, false, at.host, at.port));
    held.inside = std::move(socket);
    if (node_port >= 0 && !options_.listen.empty()) {
      std::string port = std::to_string(node_port);
      // A port that was chosen once stays, so that its callers find it again.
      const std::string before = address_before(function, "externalInvocationUrls");
      if (node_port == 0 && !before.empty() && before != *inside) { port = split(before).port; }
      auto outside = keep(function, true, options_.listen, port);
      if (!outside && node_port == 0 && port != "0") {
        outside = keep(function, true, options_.listen, "0");  // another program has it now
      }
      if (!outside) {
        keep_for_later(held);
        return fail(std::move(outside.error()));
      }
      held.where.external = options_.listen + ":" + split(address_of(outside->fd.get())).port;
      held.outside = std::move(*outside);
    } else if (node_port > 0 && node_port != std::strtol(at.port.c_str(), nullptr, 10)) {
      // The port that was asked for, on loopback: there is no other address without --listen.
      auto outside = keep(function, true, "127.0.0.1", std::to_string(node_port));
      if (!outside) {
        keep_for_later(held);
        return fail(std::move(outside.error()));
      }
      held.where.external = "127.0.0.1:" + std::to_string(node_port);
      held.outside = std::move(*outside);
    }
  }
  const std::string gone = socket_name(key, true);
  if (!held.outside.fd && adopted_.erase(gone) > 0 && options_.gate != nullptr) {
    options_.gate->drop(gone);
  }
  held_[key] = std::move(held);
  write_addresses(key.name_space);
  return held_[key].where;
}

// The gate has them too: closing ours would leave the address taken, by nobody that a user could end.
void FunctionsOfNode::keep_for_later(Held& held) {
  for (Socket* socket : {&held.inside, &held.outside}) {
    if (socket->fd) { adopted_[socket->name] = std::move(socket->fd); }
  }
}

std::string FunctionsOfNode::addresses_file(const std::string& name_space) const {
  return fmt::format("{}/functions/addresses-{}.json", options_.data, name_space);
}

// Pods have in their hosts file what was there when they began: whom a function calls may have come later.
void FunctionsOfNode::write_addresses(const std::string& name_space) {
  JsonObject addresses;
  for (const Resource& function :
       objects_.list({.name_space = name_space, .kind = "NuclioFunction"})) {
    const auto known = held_.find(key_of(function));
    std::string address = known == held_.end() ? address_before(function, "internalInvocationUrls")
                                               : known->second.where.address;
    if (!address.empty()) { addresses[function.metadata.name] = std::move(address); }
  }
  const std::string file = addresses_file(name_space);
  auto made = make_folders(options_.data + "/functions", 0711);
  if (made) { made = write_file(file + ".tmp", dump_json(addresses), 0644); }
  if (!made || ::rename((file + ".tmp").c_str(), file.c_str()) != 0) {
    options_.log.warn(
        "functions do not find each other by name",
        {{"file", Json(file)},
         {"error", Json(made ? std::string(std::strerror(errno)) : made.error().text())}});
  }
}

void FunctionsOfNode::release(const ResourceKey& function) {
  cron_ticks_.set(function, {});
  for (const bool outside : {false, true}) {
    const std::string name = socket_name(function, outside);
    if (adopted_.erase(name) > 0 && options_.gate != nullptr) { options_.gate->drop(name); }
  }
  const auto known = held_.find(function);
  if (known == held_.end()) { return; }
  tell_when_waiting(function, false);
  if (options_.gate != nullptr) {
    options_.gate->drop(known->second.inside.name);
    if (known->second.outside.fd) { options_.gate->drop(known->second.outside.name); }
  }
  held_.erase(known);
}

void FunctionsOfNode::crons(const ResourceKey& function,
                            std::map<std::string, JsonObject> triggers) {
  if (!triggers.empty()) {
    if (auto made = make_folders(options_.data + "/functions", 0711); !made) {
      options_.log.error("no cron trigger can be kept", {{"error", Json(made.error().text())}});
    }
  }
  cron_ticks_.set(function, std::move(triggers));
}

CronTicks::Calls FunctionsOfNode::cron_calls() {
  return {.processors =
              [this](const ResourceKey& function) {
                std::vector<CronTicks::Processor> out;
                const auto object = objects_.get(function);
                if (!object) { return out; }
                for (const Resource& pod :
                     objects_.list({.kind = "Pod", .owner_uid = object->metadata.uid})) {
                  const PodStatus status = pod_status_from_json(pod.status);
                  if (status.phase != PodPhase::running) { continue; }
                  const bool ready = !pod.metadata.other.contains("deletionTimestamp") &&
                                     std::ranges::any_of(status.conditions, [](const Condition& c) {
                                       return c.type == "Ready" && c.status;
                                     });
                  out.push_back({pod.metadata.name, ready});
                }
                return out;
              },
          .fire = [this](const std::string& name_space, const std::string& pod,
                         const std::string& trigger, const std::string& id,
                         bool replace) { return fire(name_space, pod, trigger, id, replace); },
          .wake = [this](const ResourceKey& function) { options_.look_again(function); }};
}

Result<std::string> FunctionsOfNode::metrics_url(const std::string& name_space,
                                                 const std::string& pod) const {
  const auto object = objects_.get({name_space, "Pod", pod});
  const std::string address(object ? string_at(object->status, "podIP") : std::string_view());
  if (address.empty()) { return fail(ErrorKind::unavailable, "the pod has no address yet"); }
  return fmt::format("http://{}:{}", address, kMetricsPort);
}

Async<Result<int>> FunctionsOfNode::fire(std::string name_space, std::string pod,
                                         std::string trigger, std::string id, bool replace) {
  const auto url = metrics_url(name_space, pod);
  if (!url) { co_return fail(url.error()); }
  net::ClientRequest request;
  request.method = "POST";
  request.url = fmt::format("{}/triggers/{}?id={}{}", *url, net::percent_encode(trigger), id,
                            replace ? "&replace=true" : "");
  request.timeout = std::chrono::seconds(45);  // its processor answers before that, or is gone
  auto answer = co_await client_.send(std::move(request));
  if (!answer) { co_return fail(std::move(answer.error())); }
  const bool runs = std::ranges::any_of(answer->headers, [](const auto& header) {
    return net::same_name(header.first, realtime::kTickRuns);
  });
  if (runs) { co_return fail(ErrorKind::timed_out, "the tick's handler runs still"); }
  co_return answer->status;
}

bool FunctionsOfNode::waiting(const ResourceKey& function) {
  if (cron_ticks_.waiting(function)) { return true; }
  const auto known = held_.find(function);
  if (known == held_.end()) { return false; }
  std::array<pollfd, 2> waits{
      {{known->second.inside.fd.get(), POLLIN, 0}, {known->second.outside.fd.get(), POLLIN, 0}}};
  if (::poll(waits.data(), waits.size(), 0) <= 0) { return false; }
  return std::ranges::any_of(waits, [](const pollfd& w) { return (w.revents & POLLIN) != 0; });
}

void FunctionsOfNode::tell_when_waiting(const ResourceKey& function, bool wanted) {
  const auto known = held_.find(function);
  if (known == held_.end() || !known->second.inside.fd || known->second.watched == wanted) {
    return;
  }
  known->second.watched = wanted;
  known->second.watch = ++watches_;
  if (!wanted) {
    if (known->second.stop) { known->second.stop->notify(); }
    return;
  }
  scope_.spawn("wake " + function.name, watch(function, known->second.watch));
}

Async<void> FunctionsOfNode::watch(ResourceKey function, std::uint64_t number) {
  using Descriptor = asio::posix::basic_stream_descriptor<Executor>;
  const auto known = held_.find(function);
  if (known == held_.end() || known->second.watch != number) { co_return; }
  auto stop = std::make_shared<Signal>(loop_);
  auto seen = std::make_shared<bool>(false);
  known->second.stop = stop;
  const std::uint64_t generation = stop->generation();
  std::vector<std::shared_ptr<Descriptor>> descriptors;
  for (const Socket* socket : {&known->second.inside, &known->second.outside}) {
    if (!socket->fd) { continue; }
    const int copy = ::fcntl(socket->fd.get(), F_DUPFD_CLOEXEC, 3);
    if (copy < 0) { continue; }
    auto descriptor = std::make_shared<Descriptor>(loop_, copy);
    descriptor->async_wait(asio::posix::descriptor_base::wait_read,
                           [seen, stop, descriptor](boost::system::error_code error) {
                             *seen = *seen || !error;
                             stop->notify();
                           });
    descriptors.push_back(std::move(descriptor));
  }
  co_await stop->wait(generation);
  boost::system::error_code ignored;
  for (const auto& descriptor : descriptors) { descriptor->close(ignored); }
  const auto still = held_.find(function);
  if (still == held_.end() || still->second.watch != number) { co_return; }
  still->second.watched = false;
  still->second.stop.reset();
  if (*seen) { options_.look_again(function); }
}

namespace {

Async<Result<std::string>> text_at(net::Client& client, std::string url) {
  net::ClientRequest request;
  request.url = url;
  request.timeout = std::chrono::milliseconds(1000);
  request.body_limit = 4U << 20U;
  auto answer = co_await client.send(std::move(request));
  if (!answer) { co_return fail(std::move(answer.error())); }
  if (answer->status != 200) {
    co_return fail(ErrorKind::unavailable, fmt::format("{} answered {}", url, answer->status));
  }
  co_return std::move(answer->body);
}

}  // namespace

Async<Result<ProcessorSample>> FunctionsOfNode::sample(const std::string& name_space,
                                                       const std::string& pod) {
  const auto url = metrics_url(name_space, pod);
  if (!url) { co_return fail(url.error()); }
  auto text = co_await text_at(client_, *url + "/metrics");
  if (!text) { co_return fail(std::move(text.error())); }
  co_return sample_from(*text);
}

Async<Result<std::vector<ProcessorProblem>>> FunctionsOfNode::problems(
    const std::string& name_space, const std::string& pod) {
  const auto url = metrics_url(name_space, pod);
  if (!url) { co_return fail(url.error()); }
  auto text = co_await text_at(client_, *url + "/problems");
  if (!text) { co_return fail(std::move(text.error())); }
  const auto said = parse_json(*text, {.bytes = 1U << 20U, .depth = 4, .nodes = 4096});
  std::vector<ProcessorProblem> out;
  for (const Json& one : said && said->is_array() ? said->as_array() : JsonArray{}) {
    ProcessorProblem problem{std::string(string_at(one, "code")),
                             std::string(string_at(one, "message"))};
    if (!problem.code.empty()) { out.push_back(std::move(problem)); }
  }
  co_return out;
}

Async<Result<std::string>> processor_metrics(net::Client& client, std::string address) {
  return text_at(client, fmt::format("http://{}:{}/metrics", address, kMetricsPort));
}

ProcessorSample sample_from(std::string_view text) {
  ProcessorSample out;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line.empty() || line.front() == '#') { continue; }
    const std::string_view name = line.substr(0, line.find_first_of("{ "));
    double* into = nullptr;
    if (name == "metier_processor_handler_seconds_sum") { into = &out.busy_seconds; }
    if (name == "nuclio_processor_handled_events_total") { into = &out.events; }
    if (name == "metier_processor_workers") { into = &out.workers; }
    if (name == "metier_processor_workers_busy") { into = &out.busy_now; }
    if (name == "metier_processor_in_flight_events" || name == "metier_processor_queued_events") {
      into = &out.in_flight;
    }
    const std::size_t space = line.rfind(' ');
    if (into == nullptr || space == std::string_view::npos) { continue; }
    double value = 0;
    std::from_chars(line.data() + space + 1, line.data() + line.size(), value);
    *into += value;
  }
  return out;
}

double FunctionsOfNode::free_cpus() {
  if (options_.all_cpus_are_free) { return static_cast<double>(::sysconf(_SC_NPROCESSORS_ONLN)); }
  std::ifstream stat("/proc/stat");
  std::string word;
  double user = 0, nice = 0, system = 0, idle = 0, wait = 0;
  stat >> word >> user >> nice >> system >> idle >> wait;
  const auto at = std::chrono::steady_clock::now();
  const double passed = std::chrono::duration<double>(at - idle_at_).count();
  if (idle_at_ == std::chrono::steady_clock::time_point{}) {
    free_ = static_cast<double>(::sysconf(_SC_NPROCESSORS_ONLN));
  } else if (passed < 0.5) {
    return free_;
  } else {
    free_ = (idle + wait - idle_before_) / static_cast<double>(::sysconf(_SC_CLK_TCK)) / passed;
  }
  idle_before_ = idle + wait;
  idle_at_ = at;
  return free_;
}

std::optional<std::string> FunctionsOfNode::substitute(const std::string& runtime) {
  if (!runtime.starts_with("python:")) { return std::nullopt; }
  if (find_python(runtime.substr(7), "")) { return std::nullopt; }
  const std::string used = default_python("");
  return used.empty() ? std::string("none") : used;
}

Result<void> FunctionsOfNode::prepare(const Resource& pod, Ambient& ambient) {
  const auto named = pod.metadata.annotations.find(kFunctionAnnotation);
  if (named == pod.metadata.annotations.end()) { return {}; }
  const ResourceKey key{pod.metadata.name_space, "NuclioFunction", named->second};
  const auto function = objects_.get(key);
  if (!function) {
    return fail(Error{.kind = ErrorKind::not_found,
                      .message = "its function " + quote(key.name) + " is not there any more",
                      .code = "FunctionMissing"});
  }
  const JsonObject& spec = function->spec();
  if (ambient.python.empty() && string_in(spec, "runtime", "python").starts_with("python")) {
    return fail(Error{.kind = ErrorKind::not_found,
                      .message = std::string(kNoPython),
                      .fix = std::string(kNoPythonFix),
                      .code = "EnvironmentFailed"});
  }
  const std::string folder = options_.data + "/functions";
  METIER_CHECK(make_folders(folder, 0711));
  ProcessorPlace place{.python = ambient.python, .lib = options_.lib, .pod = pod.metadata.name};
  place.pod_ip = string_at(pod.status, "podIP");
  const JsonObject* build = object_in(spec, "build");
  const std::string encoded(build == nullptr ? std::string_view()
                                             : string_in(*build, "functionSourceCode"));
  if (!encoded.empty()) {
    METIER_TRY(code, base64_decode(encoded));
    const std::string file = code_file(spec);
    if (file.empty() || file.front() == '/' || file.find("..") != std::string::npos) {
      return fail(invalid("spec.handler", quote(file) + " is no name of a module"));
    }
    // One folder a content: processors of all replicas and generations share what is the same.
    place.path = folder + "/code-" + sha256_hex(file + "\n" + code).substr(0, 32);
    const std::string path = place.path + "/" + file;
    struct stat found{};
    if (::stat(path.c_str(), &found) != 0) {
      METIER_CHECK(make_folders(std::filesystem::path(path).parent_path().string(), 0755));
      const bool native = std::string_view(code).starts_with(
          "\x7f"
          "ELF");
      const unsigned mode = native || file.ends_with(".sh") ? 0755 : 0644;
      // In one step: whoever finds it trusts what is in it.
      const std::string part = path + ".tmp";
      METIER_CHECK(write_file(part, code, mode));
      for (auto above = std::filesystem::path(path).parent_path(); above != folder;
           above = above.parent_path()) {
        ::chmod(above.c_str(), 0755);
      }
      ::chmod(part.c_str(), mode);
      if (::rename(part.c_str(), path.c_str()) != 0) { return fail(errno_error(path, errno)); }
    }
  } else if (const auto context = pod.metadata.annotations.find("metier.dev/context");
             context != pod.metadata.annotations.end()) {
    place.path = context->second;
  }
  if (http_trigger(spec) != nullptr) {
    const auto held = held_.find(key);
    if (held == held_.end()) {
      return fail(Error{.kind = ErrorKind::unavailable,
                        .message = "its function has no address yet",
                        .code = "WaitingForAddress"});
    }
    place.address = held->second.where.address;
    if (options_.gate != nullptr) {
      place.gate = options_.data + "/gate.sock";
      place.socket = held->second.inside.name;
      if (held->second.outside.fd) { place.external_socket = held->second.outside.name; }
    }
  }
  JsonObject config = processor_document(*function, place);
  const JsonObject* security = object_in(pod.spec(), "securityContext");
  const auto user = security == nullptr ? std::nullopt : int_in(*security, "runAsUser");
  const std::string control = control_path(key.name_space, pod.metadata.name);
  if (control.size() < 104 && (!user || *user == static_cast<std::int64_t>(::geteuid()))) {
    config["control"] = control;  // who runs as another user may make nothing here
  }
  // The file may hold passwords of triggers: it is its pod's alone.
  const std::string file = fmt::format("{}/{}.{}.json", folder, key.name_space, pod.metadata.name);
  METIER_CHECK(write_file(file, dump_json(config), 0600));
  if (user && ::geteuid() == 0 &&
      ::chown(file.c_str(), static_cast<uid_t>(*user), static_cast<gid_t>(*user)) != 0) {
    return fail(errno_error(file, errno));
  }
  ambient.env.emplace_back("METIER_PROGRAM", options_.program);
  ambient.env.emplace_back("METIER_PROCESSOR_CONFIG", file);
  ambient.env.emplace_back("METIER_FUNCTION_ADDRESSES", addresses_file(key.name_space));
  return {};
}

Async<void> FunctionsOfNode::close() {
  for (auto& [key, held] : held_) {
    held.watch = ++watches_;
    if (held.stop) { held.stop->notify(); }
  }
  co_await cron_ticks_.close();
  auto closed = co_await scope_.close(std::chrono::seconds(1));
  static_cast<void>(closed);
}

}  // namespace metier
