#include "realtime/python_template.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <spawn.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>

extern char** environ;

namespace metier::realtime {

std::vector<std::string> handler_environment(const ProcessorConfig& config) {
  std::map<std::string, std::string> values;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view text(*entry);
    const std::size_t equals = text.find('=');
    if (equals != std::string_view::npos) {
      values[std::string(text.substr(0, equals))] = text.substr(equals + 1);
    }
  }
  for (const auto& [name, value] : config.env) { values[name] = value; }
  values["NUCLIO_FUNCTION_NAME"] = config.name;
  values["NUCLIO_FUNCTION_DESCRIPTION"] = config.description;
  values["NUCLIO_FUNCTION_VERSION"] = config.version;
  values["NUCLIO_FUNCTION_HANDLER"] = config.handler;
  values["NUCLIO_HANDLER"] = config.handler;
  values["NUCLIO_PROJECT_NAME"] = config.project;
  if (!config.instance.empty()) { values["NUCLIO_FUNCTION_INSTANCE"] = config.instance; }
  std::vector<std::string> lines;
  for (const auto& [name, value] : values) { lines.push_back(name + "=" + value); }
  return lines;
}

PythonTemplate::PythonTemplate(Loop& loop, const ProcessorConfig& config, Logger log, Calls calls)
    : loop_(loop), config_(config), log_(std::move(log)), calls_(std::move(calls)) {}
PythonTemplate::~PythonTemplate() { stop(); }

// Takes over a child that METIER_TEMPLATE names, once; false: there is none, or it has ended.
bool PythonTemplate::adopt() {
  const char* named = std::getenv("METIER_TEMPLATE");
  int control = -1;
  pid_t pid = -1;
  const bool given = named != nullptr && std::sscanf(named, "%d:%d", &control, &pid) == 2;
  ::unsetenv("METIER_TEMPLATE");
  if (!given || control < 3 || pid <= 1 || ::fcntl(control, F_SETFD, FD_CLOEXEC) != 0) {
    return false;
  }
  Fd socket(control);
  if (::waitpid(pid, nullptr, WNOHANG) != 0) { return false; }
  control_ = std::move(socket);
  pid_ = pid;
  return true;
}

Result<void> PythonTemplate::spawn(const std::string& folder,
                                   const std::vector<std::string>& environment) {
  int pair[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) {
    return fail(errno_error("socketpair", errno));
  }
  control_.reset(pair[0]);
  Fd theirs(pair[1]);
  std::vector<char*> envp;
  for (const std::string& line : environment) { envp.push_back(const_cast<char*>(line.data())); }
  envp.push_back(nullptr);
  std::array<std::string, 4> words{config_.python, "-u", "-m", "metier_worker"};
  std::array<char*, 5> argv{words[0].data(), words[1].data(), words[2].data(), words[3].data(),
                            nullptr};

  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_adddup2(&actions, theirs.get(), 3);
  if (theirs.get() == 3) {  // dup2 to itself keeps CLOEXEC in some versions of libc
    ::fcntl(theirs.get(), F_SETFD, 0);
  }
  if (!folder.empty()) { ::posix_spawn_file_actions_addchdir_np(&actions, folder.c_str()); }
  posix_spawnattr_t attributes;
  ::posix_spawnattr_init(&attributes);
  sigset_t none;
  ::sigemptyset(&none);
  ::posix_spawnattr_setsigmask(&attributes, &none);
  // A group of its own: a terminal's Ctrl-C is for the processor, which drains.
  ::posix_spawnattr_setpgroup(&attributes, 0);
  ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETPGROUP);
  const int error = ::posix_spawnp(&pid_, argv[0], &actions, &attributes, argv.data(), envp.data());
  ::posix_spawn_file_actions_destroy(&actions);
  ::posix_spawnattr_destroy(&attributes);
  if (error != 0) {
    pid_ = -1;
    control_.reset();
    return fail(errno_error(
        error == ENOENT && !folder.empty() && ::access(folder.c_str(), X_OK) != 0 ? folder
                                                                                  : config_.python,
        error));
  }
  return {};
}

Result<void> PythonTemplate::start() {
  std::string folder = config_.path;
  struct stat status{};
  if (!folder.empty() && ::stat(folder.c_str(), &status) == 0 && !S_ISDIR(status.st_mode)) {
    const std::size_t slash = folder.rfind('/');
    folder = slash == std::string::npos ? "." : folder.substr(0, slash);
  }
  const bool adopted = adopt();
  std::vector<std::string> environment = handler_environment(config_);
  std::string python_path = config_.lib;
  JsonObject own;        // what the template itself overrides, given back to the workers
  JsonObject variables;  // of an adopted template: what the processor adds to the pod's own
  if (adopted) {
    for (const auto& [name, value] : config_.env) { variables[name] = value; }
  }
  for (std::string& line : environment) {
    if (line.starts_with("PYTHONPATH=")) { python_path += ":" + line.substr(11); }
    const std::size_t equals = line.find('=');
    const std::string name = line.substr(0, equals);
    if (name.ends_with("_NUM_THREADS") || name == "JE_ARROW_MALLOC_CONF") {
      own[name] = line.substr(equals + 1);
    }
    if (adopted && name.starts_with("NUCLIO_")) { variables[name] = line.substr(equals + 1); }
  }
  if (!adopted) {
    std::erase_if(environment,
                  [](const std::string& line) { return line.starts_with("PYTHONPATH="); });
    environment.push_back("PYTHONPATH=" + python_path);
    METIER_CHECK(spawn(folder, environment));
  }
  ready_ = false;
  METIER_CHECK(loop_.watch(control_.get(), EPOLLIN | EPOLLRDHUP, *this));
  JsonObject init;
  init["op"] = "init";
  init["handler"] = config_.handler;
  init["path"] = config_.path;
  init["namespace"] = config_.ns;
  init["log_level"] = config_.log_level;
  init["memory"] = config_.worker_memory_bytes;
  JsonObject functions;
  for (const auto& [name, url] : config_.functions) { functions[name] = url; }
  init["functions"] = std::move(functions);
  init["environment"] = std::move(own);
  if (adopted) {
    init["variables"] = std::move(variables);
    init["folder"] = folder;
  }
  const std::string text = dump_json(init);
  if (::send(control_.get(), text.data(), text.size(), MSG_NOSIGNAL) < 0) {
    return fail(errno_error("the template process", errno));
  }
  return {};
}

Result<void> PythonTemplate::fork(int worker, const JsonObject& spec, const std::vector<int>& fds) {
  JsonObject message = spec;
  message["op"] = "fork";
  message["worker"] = worker;
  const std::string text = dump_json(message);
  iovec part{const_cast<char*>(text.data()), text.size()};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(4 * sizeof(int))> room{};
  msghdr packet{};
  packet.msg_iov = &part;
  packet.msg_iovlen = 1;
  packet.msg_control = room.data();
  packet.msg_controllen = room.size();
  cmsghdr* header = CMSG_FIRSTHDR(&packet);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(4 * sizeof(int));
  std::memcpy(CMSG_DATA(header), fds.data(), 4 * sizeof(int));
  if (::sendmsg(control_.get(), &packet, MSG_NOSIGNAL) < 0) {
    return fail(errno_error("the template process", errno));
  }
  return {};
}

void PythonTemplate::reap(pid_t pid) {
  if (!control_) { return; }
  const std::string text = fmt::format(R"({{"op":"reap","pid":{}}})", pid);
  [[maybe_unused]] const auto sent = ::send(control_.get(), text.data(), text.size(), MSG_NOSIGNAL);
}

void PythonTemplate::on_ready(std::uint32_t events) noexcept {
  if ((events & EPOLLIN) != 0) { receive(); }
  if ((events & (EPOLLHUP | EPOLLRDHUP | EPOLLERR)) != 0 && control_) { ended(); }
}

void PythonTemplate::receive() {
  std::string buffer(1U << 18U, '\0');
  while (control_) {
    const ssize_t size = ::recv(control_.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
    if (size <= 0) { return; }
    // The template holds the user's module: what it says is checked like anything from outside.
    auto parsed = parse_json(std::string_view(buffer).substr(0, static_cast<std::size_t>(size)));
    if (!parsed || !parsed->is_object()) { continue; }
    const JsonObject& message = parsed->get_object();
    const std::string_view op = string_in(message, "op");
    if (op == "ready") {
      ready_ = true;
      calls_.ready(Started{.native = bool_in(message, "native", true),
                           .cold = bool_in(message, "cold"),
                           .import_ms = int_in(message, "import_ms").value_or(0)});
    } else if (op == "failed") {
      calls_.ready(fail(Error{.kind = ErrorKind::user_code,
                              .message = std::string(string_in(message, "message"))}));
    } else if (op == "forked") {
      calls_.forked(static_cast<int>(int_in(message, "worker").value_or(-1)),
                    static_cast<pid_t>(int_in(message, "pid").value_or(-1)));
    } else if (op == "exit") {
      calls_.exited(static_cast<pid_t>(int_in(message, "pid").value_or(-1)),
                    static_cast<int>(int_in(message, "status").value_or(0)));
    }
  }
}

void PythonTemplate::ended() {
  loop_.forget(control_.get(), *this);
  control_.reset();
  const bool was_ready = ready_;
  ready_ = false;
  int status = 0;
  if (pid_ > 0) {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, &status, 0);
  }
  pid_ = -1;
  if (!was_ready) {
    calls_.ready(fail(
        ErrorKind::user_code,
        fmt::format("the interpreter {} ended while it imported the handler ({})", config_.python,
                    WIFSIGNALED(status) ? fmt::format("signal {}", WTERMSIG(status))
                                        : fmt::format("exit code {}", WEXITSTATUS(status)))));
  } else {
    calls_.died();
  }
}

void PythonTemplate::stop() {
  if (control_) {
    loop_.forget(control_.get(), *this);
    control_.reset();
  }
  if (pid_ > 0) {
    for (int i = 0; i < 50; ++i) {  // it ends at the end of file, in a moment
      if (::waitpid(pid_, nullptr, WNOHANG) != 0) {
        pid_ = -1;
        return;
      }
      ::usleep(2000);
    }
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    pid_ = -1;
  }
}

}  // namespace metier::realtime
