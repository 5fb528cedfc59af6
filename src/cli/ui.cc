// `metier ui`: the pages of Dask and Spark in a browser. A browser has no token and reaches no unix socket, so this command
// listens on loopback, lets in who has the key of its address, and passes requests on to the server with the user's own token.
// Nothing but the named pages can be reached through it.
#include <fmt/format.h>

#include <boost/asio/signal_set.hpp>

#include "base/digest.h"
#include "cli/names.h"
#include "cli/verbs.h"
#include "net/forward.h"
#include "net/url.h"

namespace metier::cli {
namespace {

struct PageLink {
  std::string title, path;
};

Result<std::vector<PageLink>> pages_at(Command& command, const std::string& path) {
  METIER_TRY(answer, command.session.get(path));
  std::vector<PageLink> out;
  const auto* list = answer.is_object() ? array_in(answer.as_object(), "pages") : nullptr;
  for (const auto& one : list == nullptr ? JsonArray{} : *list) {
    out.push_back({std::string(string_at(one, "title")), std::string(string_at(one, "path"))});
  }
  return out;
}

// Of the run of that name or uid, else of the function.
Result<std::vector<PageLink>> find_pages(Command& command, const std::string& word) {
  const std::string base = "/api/metier/v1/projects/" + net::percent_encode(command.project);
  auto run = resolve_run(command, word);
  std::vector<PageLink> out;
  if (run) {
    const auto* metadata = object_in(*run, "metadata");
    const std::string uid(metadata == nullptr ? "" : string_in(*metadata, "uid"));
    METIER_TRY(pages, pages_at(command, base + "/runs/" + net::percent_encode(uid) + "/ui"));
    out = std::move(pages);
  } else if (run.error().kind != ErrorKind::not_found) {
    return fail(std::move(run.error()));
  }
  if (out.empty()) {
    METIER_TRY(pages, pages_at(command, base + "/functions/" + net::percent_encode(word) + "/ui"));
    out = std::move(pages);
  }
  if (!out.empty()) { return out; }
  const bool stored =
      run || command.session.get("/api/v1/projects/" + net::percent_encode(command.project) +
                                 "/functions/" + net::percent_encode(word));
  if (!stored) { return fail(std::move(run.error())); }
  return fail(Error{.kind = ErrorKind::not_found,
                    .message = quote(word) + " has no pages now",
                    .fix = "Dask has pages while the cluster runs, Spark while the driver runs and "
                           "afterwards (its event log); other kinds have none: metier describe"});
}

std::string_view cookie_of(const net::Request& request, std::string_view name) {
  for (const auto& [key, value] : request.headers) {
    if (!net::same_name(key, "cookie")) { continue; }
    std::string_view rest = value;
    while (!rest.empty()) {
      const auto end = std::min(rest.find(';'), rest.size());
      auto pair = rest.substr(0, end);
      rest.remove_prefix(std::min(end + 1, rest.size()));
      pair.remove_prefix(std::min(pair.find_first_not_of(' '), pair.size()));
      if (pair.size() > name.size() && pair.starts_with(name) && pair[name.size()] == '=') {
        return pair.substr(name.size() + 1);
      }
    }
  }
  return {};
}

net::Response plain(int status, std::string text) {
  net::Response out;
  out.status = status;
  out.headers = {{"content-type", "text/plain; charset=utf-8"}};
  out.body = std::move(text);
  return out;
}

class Viewer {
 public:
  Viewer(Command& command, std::vector<PageLink> pages)
      : command_(command),
        pages_(std::move(pages)),
        key_(new_uid(system_random())),
        client_(net::make_client(loop_.get_executor())) {}

  Result<int> serve(std::uint16_t port) {
    auto server = net::make_server(
        loop_.get_executor(),
        [this](net::Request request) -> Async<net::Response> {
          co_return answer(std::move(request));
        },
        {}, Logger{});
    METIER_TRY(bound, server->listen({.name = "ui", .host = "127.0.0.1", .port = port}));
    origin_ = fmt::format("127.0.0.1:{}", bound);
    cookie_ = fmt::format("metier-ui-{}", bound);
    auto& screen = command_.screen;
    for (std::size_t i = 0; i < pages_.size(); ++i) {
      screen.out(
          fmt::format("{}\n  http://{}/?key={}&page={}\n", pages_[i].title, origin_, key_, i));
    }
    screen.say("this address is yours alone; Ctrl-C ends it");
    asio::signal_set signals(loop_, SIGINT, SIGTERM);
    signals.async_wait([&](boost::system::error_code, int) {
      asio::co_spawn(loop_, server->close(std::chrono::milliseconds(100)),
                     [this](std::exception_ptr) { loop_.stop(); });
    });
    loop_.run();
    return 0;
  }

 private:
  net::Response answer(net::Request request) {
    // A page of another site that has this address by a name of its own does not get in.
    const auto host = net::header(request.headers, "host");
    if (host != origin_ && host != "localhost" + origin_.substr(origin_.find(':'))) {
      return plain(403, "this address is http://" + origin_ + "\n");
    }
    if (request.path == "/" && request.query_value("key") == key_) { return let_in(request); }
    if (cookie_of(request, cookie_) != key_) {
      return plain(403, "open the address that metier ui printed, with its key\n");
    }
    for (const PageLink& page : pages_) {
      if (!request.target.starts_with(page.path)) { continue; }
      const std::string target = request.target;
      net::Forward to{.origin = command_.session.endpoint().url,
                      .target = target,
                      .headers = {{"cookie", ""}, {"origin", ""}, {"authorization", ""}}};
      if (const auto token = command_.session.token(); !token.empty()) {
        to.headers.back().second = "Bearer " + token;
      }
      return net::forward(*client_, loop_.get_executor(), std::move(request), std::move(to));
    }
    return plain(404, "only the pages that metier ui printed are here\n");
  }

  net::Response let_in(const net::Request& request) {
    std::size_t number = 0;
    const auto asked = request.query_value("page", "0");
    for (const char c : asked) { number = c >= '0' && c <= '9' ? number * 10 + (c - '0') : 0; }
    net::Response out;
    out.status = 303;
    out.headers = {
        {"location", pages_[std::min(number, pages_.size() - 1)].path},
        {"set-cookie", fmt::format("{}={}; Path=/; HttpOnly; SameSite=Strict", cookie_, key_)},
        {"referrer-policy", "no-referrer"}};
    return out;
  }

  Command& command_;
  std::vector<PageLink> pages_;
  std::string key_, origin_, cookie_;
  asio::io_context loop_{1};
  std::unique_ptr<net::Client> client_;
};

}  // namespace

Result<int> ui_main(Command& command) {
  std::uint16_t port = 0;
  if (command.arguments.has("--port")) {
    METIER_TRY(number, parse_count("--port", command.arguments.value("--port"), 1, 65535));
    port = static_cast<std::uint16_t>(number);
  }
  METIER_TRY(pages, find_pages(command, command.arguments.words()[0]));
  return Viewer(command, std::move(pages)).serve(port);
}

}  // namespace metier::cli
