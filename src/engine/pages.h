// The own pages of Dask and Spark: of a run and of a function's cluster, live or kept. Addresses are those of pods that the
// cluster started, never what a client or user code says.
#pragma once

#include <string>
#include <vector>

#include "engine/ground.h"

namespace metier {

class Engine;

struct Page {
  std::string name;    // "dask", "spark"
  std::string title;   // for people
  std::string origin;  // "http://127.70.0.1:8787" of a live one, else empty
  std::string events;  // path of the event log that the page of an ended application is made of
};
Json to_json(const Page& page, const std::string& path);

class Pages final {
 public:
  Pages(const Ground& ground, const Engine& engine) : ground_(ground), engine_(engine) {}
  // Errors: not_found (no such run).
  Async<Result<std::vector<Page>>> of_run(std::string project, std::string uid) const;
  Async<Result<std::vector<Page>>> of_function(std::string project, std::string name,
                                               std::string tag) const;
  // The page of an ended application. Errors: not_found when its log is gone, invalid when it cannot be read.
  Async<Result<std::string>> kept(Page page) const;

 private:
  Async<Result<std::vector<Page>>> warm_of(const std::string& project,
                                           const std::string& uid) const;
  Result<std::string> event_log_of(const std::string& project, const std::string& uid) const;
  const Ground& ground_;
  const Engine& engine_;
};

}  // namespace metier
