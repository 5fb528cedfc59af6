#include "nuclio.h"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "convert.h"
#include "model/nuclio/function.h"
#include "model/serving_children.h"

namespace metier::python {

void bind_nuclio(nb::class_<Function>& cls) {
  cls.def(
         "set_config",
         [](Function& f, const std::string& key, nb::handle value) {
           unwrap(nuclio::set_config(f, key, from_python(value, key)));
         },
         nb::arg("key"), nb::arg("value").none())
      .def("add_trigger",
           [](Function& f, const std::string& name, nb::handle spec) {
             unwrap(nuclio::add_trigger(f, name, object_of(spec, "spec")));
           })
      .def(
          "with_http",
          [](Function& f, std::optional<std::int64_t> workers, std::int64_t port,
             const std::string& host, const std::vector<std::string>& paths,
             std::optional<std::int64_t> worker_timeout,
             std::optional<std::int64_t> gateway_timeout, const std::string& trigger_name,
             nb::handle annotations, nb::handle extra_attributes,
             std::optional<std::int64_t> async_max_connections) {
            unwrap(nuclio::with_http(
                f, {.workers = workers,
                    .port = port,
                    .host = host,
                    .paths = paths,
                    .worker_timeout = worker_timeout,
                    .gateway_timeout = gateway_timeout,
                    .trigger_name = trigger_name,
                    .annotations = object_of(annotations, "annotations"),
                    .extra_attributes = object_of(extra_attributes, "extra_attributes"),
                    .async_max_connections = async_max_connections}));
          },
          nb::arg("workers").none(), nb::arg("port"), nb::arg("host"), nb::arg("paths"),
          nb::arg("worker_timeout").none(), nb::arg("gateway_timeout").none(),
          nb::arg("trigger_name"), nb::arg("annotations").none(),
          nb::arg("extra_attributes").none(), nb::arg("async_max_connections").none())
      .def(
          "with_cron",
          [](Function& f, const std::string& name, const std::string& interval,
             const std::string& schedule, nb::handle body, nb::handle headers,
             const std::string& concurrency_policy) {
            unwrap(nuclio::with_cron(f, {.name = name,
                                         .interval = interval,
                                         .schedule = schedule,
                                         .body = from_python(body, "body"),
                                         .headers = object_of(headers, "headers"),
                                         .concurrency_policy = concurrency_policy}));
          },
          nb::arg("name"), nb::arg("interval"), nb::arg("schedule"), nb::arg("body").none(),
          nb::arg("headers").none(), nb::arg("concurrency_policy"))
      .def(
          "with_kafka",
          [](Function& f, const std::string& name, const std::vector<std::string>& brokers,
             const std::vector<std::string>& topics, const std::string& consumer_group,
             const std::string& initial_offset, const std::string& explicit_ack_mode,
             std::int64_t workers, nb::handle extra_attributes) {
            unwrap(nuclio::with_kafka(
                f, {.name = name,
                    .brokers = brokers,
                    .topics = topics,
                    .consumer_group = consumer_group,
                    .initial_offset = initial_offset,
                    .explicit_ack_mode = explicit_ack_mode,
                    .workers = workers,
                    .extra_attributes = object_of(extra_attributes, "extra_attributes")}));
          },
          nb::arg("name"), nb::arg("brokers"), nb::arg("topics"), nb::arg("consumer_group"),
          nb::arg("initial_offset"), nb::arg("explicit_ack_mode"), nb::arg("workers"),
          nb::arg("extra_attributes").none())
      .def(
          "with_replicas",
          [](Function& f, std::optional<std::int64_t> least, std::optional<std::int64_t> most) {
            unwrap(nuclio::with_replicas(f, least, most));
          },
          nb::arg("min_replicas").none(), nb::arg("max_replicas").none())
      .def(
          "child_functions",
          [](const Function& f, const std::string& folder) {
            nb::list out;
            for (const Function& child : unwrap(child_functions(f, folder))) {
              out.append(to_python(Json(child.document())));
            }
            return out;
          },
          nb::arg("folder"))
      .def("with_service_type",
           [](Function& f, const std::string& type) { unwrap(nuclio::with_service_type(f, type)); })
      .def("disable_default_http_trigger", [](Function& f, bool disabled) {
        unwrap(nuclio::disable_default_http_trigger(f, disabled));
      });
}

}  // namespace metier::python
