// Passes a request on to another server and its answer back as it comes, a WebSocket's frames too: pages that pods serve, and
// a server that a browser cannot reach by itself. Each request is a connection of its own.
#pragma once

#include "net/client.h"

namespace metier::net {

struct Forward {
  std::string origin;  // "http://127.70.0.1:8787", "unix:///run/metier.sock:"
  std::string target;  // path and query there
  Headers
      headers;  // set there, in place of the client's own of these names; an empty value drops one
  std::string prefix;  // put before paths that the answer redirects to, unless they begin with it
  Headers answer;      // added to the answer
  std::chrono::milliseconds timeout{60'000};  // until the answer begins
};

// `client` is to outlive the answer. A server that does not answer is a 502 (504: not in time).
Response forward(Client& client, Executor executor, Request request, Forward to);

// The head of an answer ("HTTP/1.1 302 Found\r\n…\r\n\r\n") as it is passed on: one connection, redirects within `prefix`.
std::string forwarded_head(std::string_view head, const Forward& to);

}  // namespace metier::net
