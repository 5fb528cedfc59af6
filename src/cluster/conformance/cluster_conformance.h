// What every Cluster promises, as one suite. A cluster joins with
//   INSTANTIATE_TEST_SUITE_P(Fake, ClusterConformance, testing::Values(ClusterCase{"fake", make_fake_site}));
// and by adding cluster_conformance.cc to its test's sources.
//
// Test pods carry both forms of what they do: annotations (cluster/testing/pod_script.h) for fakes and a
// shell command for clusters with real processes.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <ostream>

#include "cluster/cluster.h"
#include "cluster/testing/pod_script.h"

namespace metier {

// A cluster with its loop, ready for use; ends everything in its destructor.
class ClusterSite {
 public:
  virtual ~ClusterSite() = default;
  virtual asio::io_context& loop() = 0;
  virtual Cluster& cluster() = 0;
};

struct ClusterCase {
  std::string name;
  std::function<std::unique_ptr<ClusterSite>()> make;
};
inline void PrintTo(const ClusterCase& value, std::ostream* out) { *out << value.name; }

Resource conformance_pod(const std::string& name, const PodScript& script, Labels labels = {});

class ClusterConformance : public testing::TestWithParam<ClusterCase> {
 protected:
  void SetUp() override { site = GetParam().make(); }
  void TearDown() override { site.reset(); }

  // Turns the loop until the task is done, at most 20 s of real time.
  template <class T>
  T run(Async<T> task) {
    std::optional<T> out;
    std::exception_ptr broken;
    asio::co_spawn(site->loop().get_executor(), std::move(task),
                   [&](std::exception_ptr error, T value) {
                     broken = error;
                     out.emplace(std::move(value));
                   });
    turn_until([&] { return out.has_value(); });
    if (broken) { std::rethrow_exception(broken); }
    if (!out) { throw std::runtime_error("the cluster did not answer"); }
    return std::move(*out);
  }
  bool turn_until(const std::function<bool()>& done);

  Cluster& cluster() { return site->cluster(); }
  Result<void> apply(Resource resource);
  // The status of a pod once `ready` holds for it.
  PodStatus wait_for(const std::string& pod, const std::function<bool(const PodStatus&)>& ready);
  PodStatus wait_for_end(const std::string& pod);
  PodStatus wait_for_run(const std::string& pod);

  std::unique_ptr<ClusterSite> site;
};

}  // namespace metier
