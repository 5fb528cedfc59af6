// The gate holds listening sockets for longer than a server lives, so that connections wait in the backlog
// while the server restarts. The server keeps a duplicate of every socket: a new gate gets them from the
// server, a new server from the gate. Only when both die together are waiting connections reset.
//
// Protocol: SEQPACKET on <data>/gate.sock (0666; all but `take` is for the gate's own user), one JSON message a packet, at most one descriptor with it.
//   server → gate     {"op":"hold","name":"runs"} + fd      {"op":"drop","name"}    {"op":"list"}   {"op":"quit"}
//   gate → server     {"op":"socket","name":"runs"} + fd …  {"op":"end"}            (the answer to list)
//   processor → gate  {"op":"take","name":"f/…"}            (from any user: the name ends with a secret)
//   gate → processor  {"op":"socket","name":"f/…"} + fd     or {"op":"unknown","name":"f/…"}
#pragma once

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "base/async.h"
#include "base/files.h"
#include "base/log.h"

namespace metier {

// The program `metier gate`: serves until `quit`, or until no server has been connected for `lonely`.
// Gives the exit code: 0, or 2 when another gate serves this folder.
int gate_main(const std::string& folder, std::chrono::seconds lonely = std::chrono::seconds(600));

// A processor's side: the socket of that name. Blocks for as long as the gate needs to answer.
// Errors: unavailable (no gate), not_found.
Result<Fd> take_socket(const std::string& folder, const std::string& name);

// A server's side. All calls on the loop's thread.
class Gate final {
 public:
  using Sockets = std::vector<std::pair<std::string, Fd>>;
  // `program`: the metier binary that is started as `program gate --data folder` when no gate answers.
  Gate(Executor loop, std::string folder, std::string program, Logger log);
  ~Gate();
  Gate(const Gate&) = delete;

  // Connects, starting a gate when none is there. Gives the sockets that it holds. A gate that is dying (killed, or told
  // to quit a moment ago) is waited for: its lock, its socket's file and what it holds go one after the other.
  // Errors: unavailable when a gate cannot be started: the server then works without.
  Async<Result<Sockets>> open();
  // Hands a duplicate of `fd` to the gate, now and to every later one.
  Result<void> hold(const std::string& name, int fd);
  // The gate and this object forget it; who took it keeps it.
  void drop(const std::string& name);
  // Waits for the gate to die and starts another, which gets all sockets. Ends when cancelled.
  Async<void> watch();
  // Tells the gate to end: the server stops for good.
  void quit();

 private:
  Async<Result<Fd>> connect_or_start();
  Result<void> start();
  Result<Sockets> list();

  Executor loop_;
  std::string folder_;
  std::string program_;
  Logger log_;
  Fd connection_;
  int child_ = 0;  // the gate that was started last, until it is reaped
  std::vector<std::pair<std::string, Fd>> held_;
};

}  // namespace metier
