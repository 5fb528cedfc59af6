#include "net/forward.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "base/json.h"
#include "net/parser.h"
#include "net/url.h"

namespace metier::net {
namespace {

constexpr std::size_t kMostHead = 64U << 10U;
constexpr std::size_t kPiece = 32U << 10U;

// Of one connection only, or ours to set.
bool hop_by_hop(std::string_view name) {
  constexpr std::array<std::string_view, 8> kNames{
      "connection", "keep-alive", "proxy-authenticate", "proxy-authorization",
      "te",         "trailer",    "transfer-encoding",  "host"};
  return std::ranges::any_of(kNames, [&](std::string_view one) { return same_name(one, name); });
}

bool is_upgrade(const Request& request) { return !header(request.headers, "upgrade").empty(); }

ClientRequest onward(Request request, const Forward& to) {
  ClientRequest out{.method = std::move(request.method),
                    .url = to.origin + to.target,
                    .body = std::move(request.body),
                    .timeout = std::chrono::seconds(10)};
  const bool upgrade = is_upgrade(request);
  for (auto& [name, value] : request.headers) {
    const bool ours = std::ranges::any_of(
        to.headers, [&](const auto& own) { return same_name(own.first, name); });
    if (!ours && !hop_by_hop(name) && !same_name(name, "expect")) {
      out.headers.emplace_back(name, std::move(value));
    }
  }
  for (const auto& [name, value] : to.headers) {
    if (!value.empty()) { out.headers.emplace_back(name, value); }
  }
  out.headers.emplace_back("connection", upgrade ? "Upgrade" : "close");
  return out;
}

std::string refusal(int status, const Error& error) {
  const std::string body = dump_json(JsonObject{
      {"detail", JsonObject{{"reason", error.message}, {"fix", error.fix}, {"code", error.code}}}});
  return fmt::format(
      "HTTP/1.1 {} {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n"
      "connection: close\r\n\r\n{}",
      status, reason_phrase(status), body.size(), body);
}

// Bytes of one side to the other until either ends.
Async<void> pump(Duplex& from, Duplex& into) {
  std::vector<char> buffer(kPiece);
  for (;;) {
    const auto n = co_await from.read(buffer);
    if (n == 0) { break; }
    const bool written = co_await into.write({buffer.data(), n});
    if (!written) { break; }
  }
  from.interrupt();
  into.interrupt();
}

// The answer's head and the bytes read after it; empty when it did not come.
Async<std::pair<std::string, std::string>> read_head(Duplex& upstream) {
  std::string bytes;
  std::vector<char> buffer(kPiece);
  while (bytes.size() < kMostHead) {
    const auto n = co_await upstream.read(buffer);
    if (n == 0) { break; }
    const auto from = bytes.size() < 3 ? 0 : bytes.size() - 3;
    bytes.append(buffer.data(), n);
    if (const auto end = bytes.find("\r\n\r\n", from); end != std::string::npos) {
      co_return std::pair(bytes.substr(0, end + 4), bytes.substr(end + 4));
    }
  }
  co_return std::pair(std::string(), std::string());
}

Async<void> carry(Duplex& down, Client& client, Executor executor, Request request, Forward to) {
  const bool upgrade = is_upgrade(request);
  auto opened = co_await client.open(onward(std::move(request), to));
  if (!opened) {
    co_await down.write(refusal(502, opened.error()));
    co_return;
  }
  const std::shared_ptr<Duplex> up = std::move(*opened);
  const auto late = std::make_shared<bool>(false);
  auto timer = std::make_shared<Timer>(executor, to.timeout);
  timer->async_wait([up, late](boost::system::error_code ec) {
    if (ec) { return; }
    *late = true;
    up->interrupt();
  });
  auto [head, rest] = co_await read_head(*up);
  if (head.empty()) {
    timer->cancel();
    co_await down.write(refusal(*late ? 504 : 502,
                                Error{.kind = ErrorKind::unavailable,
                                      .message = *late ? to.origin + " did not answer in time"
                                                       : to.origin + " ended without an answer"}));
    co_return;
  }
  timer->cancel();
  const bool switched = upgrade && head.starts_with("HTTP/1.1 101");
  const std::string first = (switched ? head : forwarded_head(head, to)) + rest;
  if (const bool sent = co_await down.write(first); !sent) { co_return; }
  if (!switched) {
    co_await pump(*up, down);
    co_return;
  }
  Scope scope(executor);
  scope.spawn("up", pump(down, *up));
  co_await pump(*up, down);
  auto closed = co_await scope.close(std::chrono::seconds(5));
  (void)closed;  // both sides were interrupted
}

}  // namespace

std::string forwarded_head(std::string_view head, const Forward& to) {
  std::string out;
  bool first = true;
  while (!head.empty()) {
    const auto end = head.find("\r\n");
    const auto line = head.substr(0, end);
    head.remove_prefix(end == std::string_view::npos ? head.size() : end + 2);
    if (line.empty()) { break; }
    const auto colon = line.find(':');
    if (std::exchange(first, false) || colon == std::string_view::npos) {
      out.append(line).append("\r\n");
      continue;
    }
    const auto name = line.substr(0, colon);
    auto value = line.substr(std::min(line.find_first_not_of(" \t", colon + 1), line.size()));
    if (same_name(name, "connection") || same_name(name, "keep-alive")) { continue; }
    if (!same_name(name, "location")) {
      out.append(line).append("\r\n");
      continue;
    }
    if (const auto scheme = value.find("://"); scheme != std::string_view::npos) {
      const auto path = value.find('/', scheme + 3);
      value = path == std::string_view::npos ? std::string_view("/") : value.substr(path);
    }
    out.append("location: ");
    if (value.starts_with('/') && !value.starts_with(to.prefix)) { out.append(to.prefix); }
    out.append(value).append("\r\n");
  }
  for (const auto& [name, value] : to.answer) {
    out.append(name).append(": ").append(value).append("\r\n");
  }
  return out + "connection: close\r\n\r\n";
}

Response forward(Client& client, Executor executor, Request request, Forward to) {
  Response out;
  out.take_over = [&client, executor, request = std::move(request),
                   to = std::move(to)](Duplex& down) -> Async<void> {
    co_await carry(down, client, executor, request, to);
  };
  return out;
}

}  // namespace metier::net
