// Methods of kinds spark and remote-spark.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "convert.h"
#include "model/spark.h"

namespace metier::python {
namespace {

SparkRole role_of(const std::string& role) {
  return role == "driver" ? SparkRole::driver : SparkRole::executor;
}

}  // namespace

void bind_spark(nb::class_<Function>& cls) {
  cls.def(
         "with_spark_requests",
         [](Function& f, const std::string& role, nb::handle mem, nb::handle cpu, bool patch) {
           unwrap(with_spark_requests(f, role_of(role), from_python(mem, "mem"),
                                      from_python(cpu, "cpu"), patch));
         },
         nb::arg("role"), nb::arg("mem").none(), nb::arg("cpu").none(), nb::arg("patch"))
      .def(
          "with_spark_limits",
          [](Function& f, const std::string& role, nb::handle cpu, nb::handle gpus,
             const std::string& gpu_type, bool patch) {
            unwrap(with_spark_limits(f, role_of(role),
                                     {.mem = {},
                                      .cpu = from_python(cpu, "cpu"),
                                      .gpus = from_python(gpus, "gpus"),
                                      .gpu_type = gpu_type,
                                      .patch = patch}));
          },
          nb::arg("role"), nb::arg("cpu").none(), nb::arg("gpus").none(), nb::arg("gpu_type"),
          nb::arg("patch"))
      .def(
          "with_spark_cores",
          [](Function& f, nb::handle executor, nb::handle driver) {
            unwrap(with_spark_cores(f, from_python(executor, "executor_cores"),
                                    from_python(driver, "driver_cores")));
          },
          nb::arg("executor_cores").none(), nb::arg("driver_cores").none())
      .def(
          "with_restart_policy",
          [](Function& f, nb::handle type, nb::handle retries, nb::handle interval,
             nb::handle submissions, nb::handle submission_interval) {
            unwrap(with_restart_policy(
                f, {.type = from_python(type, "restart_type"),
                    .retries = from_python(retries, "retries"),
                    .retry_interval = from_python(interval, "retry_interval"),
                    .submission_retries = from_python(submissions, "submission_retries"),
                    .submission_retry_interval =
                        from_python(submission_interval, "submission_retry_interval")}));
          },
          nb::arg("restart_type").none(), nb::arg("retries").none(),
          nb::arg("retry_interval").none(), nb::arg("submission_retries").none(),
          nb::arg("submission_retry_interval").none())
      .def(
          "with_dynamic_allocation",
          [](Function& f, nb::handle least, nb::handle most, nb::handle initial) {
            unwrap(with_dynamic_allocation(f, from_python(least, "min_executors"),
                                           from_python(most, "max_executors"),
                                           from_python(initial, "initial_executors")));
          },
          nb::arg("min_executors").none(), nb::arg("max_executors").none(),
          nb::arg("initial_executors").none())
      .def("disable_monitoring", [](Function& f) { unwrap(disable_monitoring(f)); })
      .def(
          "with_spark_node_selection",
          [](Function& f, const std::string& role, const std::string& name, nb::handle selector,
             nb::handle affinity, nb::handle tolerations) {
            std::vector<std::string> warnings;
            unwrap(with_spark_node_selection(
                f, role_of(role), selection_of(name, selector, affinity, tolerations), &warnings));
            return warnings;
          },
          nb::arg("role"), nb::arg("node_name"), nb::arg("node_selector").none(),
          nb::arg("affinity").none(), nb::arg("tolerations").none())
      .def("with_spark_preemption_mode",
           [](Function& f, const std::string& role, const std::string& mode) {
             unwrap(with_spark_preemption_mode(f, role_of(role), mode));
           })
      .def("with_spark_host_path",
           [](Function& f, const std::string& role, const std::string& host,
              const std::string& mount, const std::string& type, const std::string& volume) {
             unwrap(with_spark_host_path(f, role_of(role), host, mount, type, volume));
           })
      .def("with_igz_spark", [](Function& f) { unwrap(with_igz_spark(f)); })
      .def("with_spark_service",
           [](Function& f, const std::string& service, const std::string& provider) {
             unwrap(with_spark_service(f, service, provider));
           });
}

}  // namespace metier::python
