// Work that blocks (walking and copying folders), on a thread of its own; the caller awaits it on the loop.
#pragma once

#include <boost/asio/post.hpp>
#include <memory>
#include <optional>
#include <thread>

#include "base/async.h"

namespace metier {

// `work` runs on another thread and must own what it touches. The loop must outlive it; not cancellable.
template <class Work>
Async<std::invoke_result_t<Work>> offload(Executor loop, Work work) {
  using Out = std::invoke_result_t<Work>;
  struct Shared {
    explicit Shared(Executor executor) : done(executor) {}
    std::optional<Out> out;
    Signal done;
  };
  auto shared = std::make_shared<Shared>(loop);
  const std::uint64_t seen = shared->done.generation();
  std::thread([loop, shared, work = std::move(work)]() mutable {
    auto out = std::make_shared<Out>(work());
    asio::post(loop, [shared, out] {
      shared->out.emplace(std::move(*out));
      shared->done.notify();
    });
  }).detach();
  while (!shared->out) {
    const bool told = co_await shared->done.wait(seen);
    if (!told && !shared->out) {
      co_return Out(std::unexpected(Error{.kind = ErrorKind::cancelled, .message = "cancelled"}));
    }
  }
  co_return std::move(*shared->out);
}

}  // namespace metier
