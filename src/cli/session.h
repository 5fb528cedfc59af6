// A command's way to the server: where it is, starting a private one, requests and their errors.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "base/json.h"
#include "base/result.h"
#include "cli/screen.h"
#include "cli/settings.h"
#include "net/client.h"

namespace metier::cli {

std::string variable(const Environment& environment, const std::string& name);

// Where records and the socket are when nothing says otherwise.
struct Places {
  std::string
      data;  // METIER_DATA, else $XDG_DATA_HOME/metier, ~/.local/share/metier; root: /var/lib/metier
  std::string socket;  // <data>/metier.sock; root: /run/metier/metier.sock
};
// Errors: invalid when neither METIER_DATA nor HOME is set.
Result<Places> find_places(const Environment& environment, bool root);

// The interpreter that the caller uses: what its own python would be; empty where there is none, the server's then.
std::string active_python(const Environment& environment);

struct Endpoint {
  std::string url;  // "unix:///…/metier.sock:" or "http://h:1"; requests append "/api/…"
  bool unix_socket = true;
  bool given = false;  // METIER_SERVER said so: nothing is started
};
// Errors: invalid for a METIER_SERVER that is no address.
Result<Endpoint> find_endpoint(const Environment& environment, const Places& places);

struct Answer {
  int status = 0;
  net::Headers headers;
  std::string body;
};

class Session final {
 public:
  // `given` is the environment as it is; what settings files say comes behind it.
  Session(Environment given, Settings settings, Screen& screen, std::string program);

  // Connects; starts a private server when none is set up and nobody listens. Errors: unavailable, invalid.
  Result<void> open();
  // One request; 4xx and 5xx are errors with the server's reason, field, fix and code. A private server that ended
  // meanwhile is started again, once, for requests that may be repeated.
  Result<Answer> send(std::string method, std::string path, std::string body = {},
                      net::Headers headers = {},
                      std::chrono::milliseconds timeout = std::chrono::seconds(45));
  Result<Json> get(std::string path);
  Result<Json> call(std::string method, std::string path, const Json& body,
                    net::Headers headers = {});
  // Asked when a signal interrupts a wait; true ends the request as cancelled.
  std::function<bool()> interrupted;

  const Environment& environment() const { return environment_; }  // with the files' settings
  const Environment& given_environment() const { return given_; }
  const Settings& settings() const { return settings_; }
  // Where a setting's value came from, "METIER_SERVER" or "FILE:LINE", and how to be without it.
  std::string origin_of(const std::string& variable) const;
  std::string without(const std::string& variable) const;
  const Places& places() const { return places_; }
  const Endpoint& endpoint() const { return endpoint_; }
  std::string token() const;

 private:
  Result<net::ClientResponse> send_once(const net::ClientRequest& request);
  Result<void> start_private_server();
  Error unreachable(Error error) const;

  Environment given_;
  Settings settings_;
  Environment environment_;
  Screen& screen_;
  std::string program_;  // our own executable
  Places places_;
  Endpoint endpoint_;
  bool opened_ = false;
  std::unique_ptr<net::BlockingClient> client_;
};

// The error of an answer: {"detail": {"reason", "field", "fix", "code"}} or MLRun's {"detail": "MLRunNotFoundError('…')"}.
Error error_of(int status, std::string_view body);
// The exit code of a run that ended in `state` for `reason`, and of an error by its code.
int exit_code_of_run(std::string_view state, std::string_view reason);
int exit_code_of_error(const Error& error);

}  // namespace metier::cli
