// SparkConnect (metier.dev/v1; its spec is written by kind/spark): a warm Spark, one Connect server Pod that runs of a project
// are clients of, and its Service. The pod ends by itself when nobody has been connected for the idle limit.
//
//   spec:   {openedBy: "<pod of a client>", idle: seconds, application: {…the spec of a SparkApplication…}}
//   status: {state: "Starting" | "Running" | "Closed" | "Failed", reason, message, failed: "pod", failedAt: "…", incarnation: 1,
//            openedBy, openedAt, server: "pod", address, webUIPort, progress: {jobs, stages, tasks}}
//
// A new `openedBy` opens one that is Closed or Failed again, as a new incarnation. So does the end of an idle server that a client
// still waits for: one that is in the queue, or has only just begun.
#pragma once

#include "cluster/controllers/controller.h"
#include "net/client.h"

namespace metier {

class SparkConnectController final : public Controller {
 public:
  // `archives`: folder of class-data archives, may be empty. Without a client nothing is asked of the server's REST.
  explicit SparkConnectController(net::Client* client = nullptr, std::string archives = {})
      : client_(client), archives_(std::move(archives)) {}
  std::string_view api_version() const override { return "metier.dev/v1"; }
  std::string_view kind() const override { return "SparkConnect"; }
  Async<Result<Facts>> gather(const Resource& resource) override;
  Decision reconcile(const Resource& resource, const Snapshot& snapshot, const Facts& facts,
                     Time now) const override;
  Async<Result<void>> before_stop(const Resource& pod) override;

 private:
  net::Client* client_;
  std::string archives_;
};

}  // namespace metier
