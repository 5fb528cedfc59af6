// Verbs that set things up: apply, build, server, env, secret.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <filesystem>

#include "base/files.h"
#include "base/programs.h"
#include "base/text.h"
#include "base/yaml.h"
#include "cli/embedded_header.h"
#include "cli/outcome.h"
#include "cli/secrets.h"
#include "net/url.h"

namespace metier::cli {
namespace {

namespace fs = std::filesystem;

// A word as a shell reads it back.
std::string shell_word(std::string_view word) {
  const auto plain = [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 ||
           std::string_view("_-./=+:,@%").find(c) != std::string_view::npos;
  };
  if (!word.empty() && std::ranges::all_of(word, plain)) { return std::string(word); }
  std::string out = "'";
  for (const char c : word) { out += c == '\'' ? std::string("'\\''") : std::string(1, c); }
  return out + "'";
}

Result<int> run_program(std::vector<std::string> words) {
  std::vector<char*> argv;
  for (auto& word : words) { argv.push_back(word.data()); }
  argv.push_back(nullptr);
  const pid_t child = ::fork();
  if (child < 0) { return fail(errno_error("fork", errno)); }
  if (child == 0) {
    ::signal(SIGPIPE, SIG_DFL);
    ::execvp(argv[0], argv.data());
    ::_exit(127);
  }
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {}
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

// The header that belongs to this binary, in the data folder: what is installed may be another version's.
Result<std::string> include_folder(const Environment& environment) {
  METIER_TRY(places, find_places(environment, ::geteuid() == 0));
  const auto folder = places.data + "/include";
  for (const PublicHeader& header : embedded_headers()) {
    const auto file = folder + "/metier/" + std::string(header.name);
    const auto known = read_file(file);
    if (known && *known == header.text) { continue; }
    METIER_CHECK(make_folders(folder + "/metier", 0755));
    METIER_CHECK(write_file(file, header.text, 0644));
  }
  return folder;
}

// The only line of a small file; empty when it is not there or not ours to read.
std::string line_of(const std::string& file) {
  auto text = read_file(file, 4096);
  if (!text) { return {}; }
  return text->substr(0, std::min(text->find('\n'), text->size()));
}

Result<Json> apply_objects(Command& command, JsonArray objects) {
  return command.session.call(
      "POST", "/api/metier/v1/objects?project=" + net::percent_encode(command.project),
      JsonObject{{"items", std::move(objects)}});
}

// One key of a Secret: set (a text) or removed (null). Its other keys stay, and their values are not read.
Result<void> patch_secret(Command& command, const std::string& name, const std::string& key,
                          Json value) {
  METIER_CHECK(command.session.call(
      "PATCH",
      fmt::format("/api/metier/v1/objects/Secret/{}?project={}", net::percent_encode(name),
                  net::percent_encode(command.project)),
      JsonObject{{"stringData", JsonObject{{key, std::move(value)}}}}));
  return {};
}

void say_done(Command& command, std::string_view what, const std::string& name,
              const std::string& key) {
  if (command.screen.style().quiet) { return; }
  command.screen.say(fmt::format("{} secret {}{}{} is {} in project {}",
                                 command.screen.glyph(Role::good), name, key.empty() ? "" : ":",
                                 key, what, command.project));
}

Result<int> secret_set(Command& command, const std::string& name, const std::string& key) {
  METIER_TRY(value, secret_value(command, key.empty() ? name : name + ":" + key));
  if (key.empty()) {
    METIER_CHECK(command.session.call(
        "POST", fmt::format("/api/v1/projects/{}/secrets", command.project),
        JsonObject{{"provider", "kubernetes"}, {"secrets", JsonObject{{name, value}}}}));
  } else {
    METIER_CHECK(patch_secret(command, name, key, boost::json::string(value)));
  }
  say_done(command, "set", name, key);
  return 0;
}

Result<int> secret_list(Command& command) {
  METIER_TRY(own, project_secrets(command));
  JsonArray names;
  for (const auto& name : own) { names.push_back(boost::json::string(name)); }
  METIER_TRY(known, secret_keys(command));
  for (const auto& [name, listed] : known) {
    for (const auto& key : listed) { names.push_back(boost::json::string(name + ":" + key)); }
  }
  if (command.output == "json") {
    command.screen.json(JsonObject{{"project", command.project}, {"secrets", names}});
    return 0;
  }
  for (const auto& name : names) { command.screen.out(printable(value_text(name)) + "\n"); }
  if (names.empty() && !command.screen.style().quiet) {
    command.screen.say(fmt::format("No secrets in project {} yet. Set one: metier secret set NAME",
                                   command.project));
  }
  return 0;
}

// A name is a key of the project's own secret, a Secret with keys, or both.
Result<void> delete_secret(Command& command, const std::string& name) {
  METIER_TRY(own, project_secrets(command));
  METIER_TRY(known, secret_keys(command));
  const bool is_own = std::ranges::find(own, name) != own.end();
  if (!is_own && !known.contains(name)) {
    return fail(
        Error{.kind = ErrorKind::not_found,
              .message = fmt::format("no secret {} in project {}", quote(name), command.project),
              .fix = "see: metier secret list -P " + command.project});
  }
  if (is_own) {
    METIER_CHECK(command.session.call(
        "DELETE",
        fmt::format("/api/v1/projects/{}/secrets?provider=kubernetes&secret={}", command.project,
                    net::percent_encode(name)),
        nullptr));
  }
  if (known.contains(name)) {
    METIER_CHECK(command.session.call(
        "DELETE",
        fmt::format("/api/metier/v1/objects/Secret/{}?project={}", net::percent_encode(name),
                    net::percent_encode(command.project)),
        nullptr));
  }
  return {};
}

Result<int> secret_delete(Command& command, const std::string& name, const std::string& key) {
  if (!command.arguments.has("--yes") && ::isatty(STDIN_FILENO) == 0) {
    return fail(invalid("secret", "a deleted secret cannot be brought back", "give --yes"));
  }
  if (!command.arguments.has("--yes")) {
    command.screen.say("delete secret " + name + (key.empty() ? "" : ":" + key) + "? [y/N]");
    char answer = 0;
    if (::read(STDIN_FILENO, &answer, 1) != 1 || (answer != 'y' && answer != 'Y')) { return 4; }
  }
  if (key.empty()) {
    METIER_CHECK(delete_secret(command, name));
  } else {
    METIER_CHECK(patch_secret(command, name, key, nullptr));
  }
  say_done(command, "deleted", name, key);
  return 0;
}

}  // namespace

Result<std::string> secret_value(Command& command, const std::string& name) {
  const auto file = command.arguments.value("--from-file");
  if (!file.empty() && file != "-") {
    auto text = read_file(file, 1U << 20U);
    if (!text) { return fail(std::move(text).error().at("--from-file")); }
    return std::move(*text);
  }
  const bool terminal = ::isatty(STDIN_FILENO) != 0;
  termios before{};
  if (terminal) {
    const auto prompt = fmt::format("value of {} (not shown): ", name);
    [[maybe_unused]] const auto n = ::write(STDERR_FILENO, prompt.data(), prompt.size());
    ::tcgetattr(STDIN_FILENO, &before);
    auto silent = before;
    silent.c_lflag &= ~static_cast<tcflag_t>(ECHO);
    ::tcsetattr(STDIN_FILENO, TCSANOW, &silent);
  }
  std::string value;
  std::array<char, 4096> piece{};
  ssize_t n = 0;
  while ((n = ::read(STDIN_FILENO, piece.data(), piece.size())) > 0) {
    value.append(piece.data(), static_cast<std::size_t>(n));
    if (value.size() > (1U << 20U)) {
      return fail(ErrorKind::too_large, "a secret is at most 1 MiB");
    }
    if (terminal && value.ends_with('\n')) { break; }
  }
  if (terminal) {
    ::tcsetattr(STDIN_FILENO, TCSANOW, &before);
    command.screen.say("");
  }
  if (value.ends_with('\n')) { value.pop_back(); }
  if (value.empty()) {
    return fail(invalid("secret", "the value is empty", "type it, or give --from-file FILE"));
  }
  return value;
}

Result<std::vector<std::string>> project_secrets(Command& command) {
  METIER_TRY(answer, command.session.get(fmt::format(
                         "/api/v1/projects/{}/secret-keys?provider=kubernetes", command.project)));
  std::vector<std::string> out;
  const auto* keys = answer.is_object() ? array_in(answer.as_object(), "secret_keys") : nullptr;
  for (const auto& key : keys == nullptr ? JsonArray{} : *keys) { out.push_back(value_text(key)); }
  return out;
}

Result<std::map<std::string, std::vector<std::string>>> secret_keys(Command& command) {
  METIER_TRY(objects, command.session.get("/api/metier/v1/objects?kind=Secret&project=" +
                                          net::percent_encode(command.project)));
  std::map<std::string, std::vector<std::string>> out;
  const auto* items = objects.is_object() ? array_in(objects.as_object(), "items") : nullptr;
  for (const auto& item : items == nullptr ? JsonArray{} : *items) {
    auto& keys = out[std::string(string_at(item, "metadata.name"))];
    const auto* metadata = item.is_object() ? object_in(item.as_object(), "metadata") : nullptr;
    const auto* annotations = metadata == nullptr ? nullptr : object_in(*metadata, "annotations");
    const auto listed = parse_json(
        annotations == nullptr ? "[]" : string_in(*annotations, "metier.dev/keys", "[]"));
    for (const auto& key : listed && listed->is_array() ? listed->as_array() : JsonArray{}) {
      keys.push_back(value_text(key));
    }
  }
  return out;
}

// MLRun's own document of a project; what belongs into it can stand behind it in the same file.
Result<void> apply_projects(Command& command, const JsonArray& projects) {
  for (const auto& project : projects) {
    const auto name = std::string(string_at(project, "metadata.name"));
    if (name.empty()) {
      return fail(
          invalid("metadata.name", "the project has no name", "write metadata: {name: NAME}"));
    }
    METIER_CHECK(
        command.session.call("PUT", "/api/v1/projects/" + net::percent_encode(name), project));
    if (command.output == "name") {
      command.screen.out("Project/" + printable(name) + "\n");
    } else if (!command.screen.style().quiet && command.output != "json") {
      command.screen.say(
          fmt::format("{} project {} stored", command.screen.glyph(Role::good), printable(name)));
    }
  }
  return {};
}

Result<int> apply_main(Command& command) {
  const auto file = command.arguments.value("--file");
  if (file.empty()) { return fail(invalid("apply", "no file is given", "metier apply -f FILE")); }
  auto text = read_file(file == "-" ? "/dev/stdin" : file, 16U << 20U);
  if (!text) { return fail(std::move(text).error().at("-f")); }
  auto documents = parse_yaml_all(*text);
  if (!documents) { return fail(std::move(documents).error().in(file)); }
  JsonArray objects;
  JsonArray projects;
  for (auto& document : *documents) {
    if (document.is_object() && lower_case(string_in(document.as_object(), "kind")) == "project") {
      projects.push_back(std::move(document));
    } else if (document.is_object() && string_in(document.as_object(), "kind") == "List") {
      if (const auto* items = array_in(document.as_object(), "items")) {
        objects.insert(objects.end(), items->begin(), items->end());
      }
    } else if (document.is_object()) {
      objects.push_back(std::move(document));
    } else if (!document.is_null()) {
      return fail(
          invalid("-f", fmt::format("{} holds a {}, not objects", file, type_name(document))));
    }
  }
  if (objects.empty() && projects.empty()) {
    return fail(invalid("-f", file + " holds no object"));
  }
  METIER_CHECK(apply_projects(command, projects));
  if (objects.empty()) { return 0; }
  std::vector<std::string> names;
  for (const auto& object : objects) {
    names.push_back(fmt::format("{}/{}", string_in(object.as_object(), "kind", "?"),
                                string_at(object, "metadata.name", "?")));
  }
  METIER_TRY(answer, apply_objects(command, std::move(objects)));
  if (command.output == "json") {
    command.screen.json(answer);
    return 0;
  }
  for (const auto& name : names) {
    if (command.output == "name") {
      command.screen.out(name + "\n");
    } else if (!command.screen.style().quiet) {
      command.screen.say(fmt::format("{} {} stored in project {}", command.screen.glyph(Role::good),
                                     printable(name), command.project));
    }
  }
  return 0;
}

// The folder of the engine's library, of this very binary.
Result<std::string> graph_library(Command& command) {
  METIER_TRY(places, find_places(command.environment(), ::geteuid() == 0));
  if (command.program.unpack == nullptr) {
    return fail(ErrorKind::unsupported, "this program carries no library");
  }
  METIER_TRY(folder, command.program.unpack(places.data));
  return folder + "/lib";
}

Result<int> build_main(Command& command) {
  const auto& source = command.arguments.words()[0];
  const auto suffix = fs::path(source).extension().string();
  std::error_code ec;
  if (!fs::exists(source, ec)) {
    return fail(Error{.kind = ErrorKind::not_found, .message = source + ": no such file"});
  }
  if (suffix != ".cc" && suffix != ".cpp" && suffix != ".cxx" && suffix != ".C") {
    return fail(
        invalid("build", source + " is not a C++ source file", "name a .cc, .cpp or .cxx file"));
  }
  auto target = command.arguments.value("--output");
  const bool program = command.arguments.has("--program");
  if (target.empty()) {
    target = fs::path(source).replace_extension(program ? "" : ".so").string();
  }
  METIER_TRY(include, include_folder(command.environment()));
  std::string compiler;
  std::vector<std::string> candidates{"clang++-19", "g++", "clang++", "c++"};
  if (const auto given = variable(command.environment(), "CXX"); !given.empty()) {
    candidates.insert(candidates.begin(), given);
  }
  for (const auto& candidate : candidates) {
    if (!find_program(variable(command.environment(), "PATH"), candidate).empty()) {
      compiler = candidate;
      break;
    }
  }
  if (compiler.empty()) {
    return fail(Error{.kind = ErrorKind::unsupported,
                      .message = "no C++ compiler is installed",
                      .fix = "apt install g++",
                      .code = "EngineMissing"});
  }
  std::vector<std::string> words{compiler, "-std=c++17"};
  if (command.arguments.has("--debug")) {
    words.insert(words.end(), {"-O0", "-g"});
  } else {
    words.insert(words.end(), {"-O2", "-g1"});
  }
  words.insert(words.end(), {"-I" + include, source, "-o", target});
  if (program) {
    METIER_TRY(library, graph_library(command));
    words.insert(words.end(), {"-L" + library, "-lmetier_graph", "-Wl,-rpath," + library});
  } else {
    words.insert(words.end(), {"-fPIC", "-shared", "-fvisibility=hidden"});
  }
  words.insert(words.end(), command.arguments.rest().begin(), command.arguments.rest().end());
  std::string line;
  for (const auto& word : words) { line += (line.empty() ? "" : " ") + shell_word(word); }
  command.screen.out(line + "\n");
  METIER_TRY(code, run_program(words));
  if (code == 127) {
    return fail(Error{.kind = ErrorKind::unsupported,
                      .message = compiler + " cannot be started",
                      .fix = "apt install g++"});
  }
  if (code != 0) {
    return fail(Error{.kind = ErrorKind::user_code,
                      .message = fmt::format("{} does not compile", source),
                      .fix = "the compiler's messages are above"});
  }
  command.screen.next({program ? (target.contains('/') ? target : "./" + target)
                               : fmt::format("metier run {}:HANDLER --kind job", target)});
  return 0;
}

Result<int> server_main(Command& command) {
  const auto& arguments = command.arguments;
  auto environment = command.environment();
  if (arguments.has("--data")) { environment["METIER_DATA"] = arguments.value("--data"); }
  METIER_TRY(places, find_places(environment, ::geteuid() == 0));
  ServerOptions options;
  options.data = places.data;
  options.socket = places.socket;
  options.listen = arguments.value("--listen");
  options.db = arguments.value("--db", "sqlite");
  options.cluster = arguments.value("--cluster", "embedded");
  options.kubeconfig = arguments.value("--kubeconfig");
  options.tls_cert = arguments.value("--tls-cert");
  options.tls_key = arguments.value("--tls-key");
  options.auth = arguments.value("--auth", "token");
  options.insecure_no_auth = arguments.has("--insecure-no-auth");
  options.allowed_hosts = arguments.values("--allowed-host");
  options.python = arguments.value("--python", variable(environment, "METIER_PYTHON"));
  options.private_server = arguments.has("--private");
  if (!options.listen.empty()) {
    auto url =
        net::parse_url("http://" + (options.listen.ends_with(":0")
                                        ? options.listen.substr(0, options.listen.size() - 1) + "1"
                                        : options.listen));
    if (!url || options.listen.find('/') != std::string::npos ||
        options.listen.find(':') == std::string::npos) {
      return fail(invalid("--listen", quote(options.listen) + " is not ADDR:PORT",
                          "write --listen 127.0.0.1:8080"));
    }
    const bool loopback =
        url->host == "localhost" || url->host == "::1" || url->host.starts_with("127.");
    if (options.auth == "none" && !loopback && !options.insecure_no_auth) {
      return fail(invalid("--auth",
                          "none on " + quote(url->host) + " lets everyone on the network run code",
                          "listen on 127.0.0.1, or add --insecure-no-auth"));
    }
  }
  if (options.auth != "token" && options.auth != "none") {
    return fail(invalid("--auth", quote(options.auth) + " is unknown", "token or none"));
  }
  if (options.tls_cert.empty() != options.tls_key.empty()) {
    return fail(invalid(options.tls_cert.empty() ? "--tls-cert" : "--tls-key", "is missing",
                        "TLS needs both, a certificate and its key"));
  }
  if (options.cluster != "embedded") {
    return fail(
        Error{.kind = options.cluster == "kubernetes" ? ErrorKind::unsupported : ErrorKind::invalid,
              .message = options.cluster == "kubernetes" ? "kubernetes is not in this version"
                                                         : quote(options.cluster) + " is unknown",
              .field = "--cluster",
              .fix = "leave it out: the embedded cluster is this machine"});
  }
  if (options.db != "sqlite") {
    return fail(Error{.kind = options.db.starts_with("postgresql://") ? ErrorKind::unsupported
                                                                      : ErrorKind::invalid,
                      .message = options.db.starts_with("postgresql://")
                                     ? "PostgreSQL is not in this version"
                                     : quote(options.db) + " is unknown",
                      .field = "--db",
                      .fix = "leave it out: SQLite in the data folder"});
  }
  if (const auto fd = variable(environment, "METIER_READY_FD"); !fd.empty()) {
    METIER_TRY(number, parse_count("METIER_READY_FD", fd, 0, 1 << 20));
    options.ready_fd = static_cast<int>(number);
    ::fcntl(options.ready_fd, F_SETFD, FD_CLOEXEC);
    ::unsetenv("METIER_READY_FD");
  }
  if (!command.program.server) {
    return fail(ErrorKind::unsupported, "this program has no server");
  }
  return command.program.server(options);
}

Result<int> env_main(Command& command) {
  METIER_CHECK(command.session.open());
  const auto endpoint = command.session.endpoint();
  auto server =
      endpoint.unix_socket ? endpoint.url.substr(0, endpoint.url.size() - 1) : endpoint.url;
  auto url = endpoint.unix_socket ? std::string() : endpoint.url;
  auto token = command.session.token();
  std::string runner;  // on this machine only
  if (endpoint.unix_socket) {
    // Over its own user's socket the server's files tell: the token is never sent by an API.
    const auto& data = command.session.places().data;
    METIER_TRY(about, command.session.get("/api/metier/v1/version"));
    if (about.is_object()) {
      url = string_in(about.as_object(), "url");
      runner = string_in(about.as_object(), "runner");
    }
    if (url.empty()) { url = line_of(data + "/url"); }
    if (!url.empty() && token.empty()) { token = line_of(data + "/token"); }
  }
  JsonObject values{{"METIER_SERVER", url.empty() ? server : url}};
  if (!url.empty()) { values["MLRUN_DBPATH"] = url; }
  if (!token.empty()) {
    values["METIER_TOKEN"] = token;
    values["MLRUN_HTTPDB__TOKEN"] = token;
  }
  values["METIER_DATA"] = command.session.places().data;
  if (!runner.empty()) {
    // distributed.Client(address) gets the certificate of our Dask clusters from the server.
    values["DASK_DISTRIBUTED__CLIENT__SECURITY_LOADER"] = "metier_runner.dask_security.load";
    const char* path = std::getenv("PYTHONPATH");
    const std::string old = path == nullptr ? "" : path;
    const bool has = (":" + old + ":").contains(":" + runner + ":");
    values["PYTHONPATH"] = has ? old : old.empty() ? runner : old + ":" + runner;
  }
  if (command.output == "json") {
    command.screen.json(Json(std::move(values)));
    return 0;
  }
  for (const auto& [name, value] : values) {
    command.screen.out(fmt::format("export {}={}\n", std::string_view(name),
                                   shell_word(std::string_view(value.as_string()))));
  }
  if (url.empty()) {
    command.screen.out(
        "# this server listens on its unix socket only; for other tools: metier server --listen "
        "127.0.0.1:8080\n");
  }
  return 0;
}

Result<int> secret_main(Command& command) {
  const auto& words = command.arguments.words();
  const auto& what = words[0];
  if (what == "list") { return secret_list(command); }
  if (what != "set" && what != "delete") {
    return fail(invalid("secret", quote(what) + " is unknown", "set, list or delete"));
  }
  if (words.size() < 2) {
    return fail(invalid("secret", "no name is given", "metier secret " + what + " NAME[:KEY]"));
  }
  if (words.size() > 2) {
    return fail(invalid("secret", "a value on the command line is seen by everyone on this machine",
                        "leave it out: it is asked for, or give --from-file FILE"));
  }
  const auto colon = words[1].find(':');
  const auto name = words[1].substr(0, colon);
  const auto key = colon == std::string::npos ? std::string() : words[1].substr(colon + 1);
  const auto fits = [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '-' || c == '_' || c == '.';
  };
  if (name.empty() || !std::ranges::all_of(name, fits) || !std::ranges::all_of(key, fits) ||
      (colon != std::string::npos && key.empty())) {
    return fail(invalid("secret", quote(words[1]) + " is not NAME or NAME:KEY",
                        "names are letters, digits, '-', '_' and '.'"));
  }
  return what == "set" ? secret_set(command, name, key) : secret_delete(command, name, key);
}

}  // namespace metier::cli
