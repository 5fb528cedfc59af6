// What the process driver knows of one pod (private to process_*.cc).
#pragma once

#include <boost/asio/posix/stream_descriptor.hpp>

#include "cluster/embedded/process_driver.h"

namespace metier {

struct ProcessDriver::Entry {
  Entry(Executor executor, std::string pod_id)
      : id(std::move(pod_id)), control(executor), changed(executor) {}

  struct Ran {
    int code = 0;
    int signal = 0;
  };
  std::string id;
  asio::posix::basic_stream_descriptor<Executor> control;
  Signal changed;
  PodStatus status;
  std::string last_state;  // the newest record, as text
  std::vector<KnownMain> mains;
  std::vector<Condition> conditions;  // of the start: what the host cannot enforce
  std::string pod_ip;
  std::chrono::milliseconds grace{30'000};  // of a stop that names none
  std::string python;
  std::map<std::string, Ran> ran;        // execs that ended and were not fetched yet
  std::vector<std::string> first_names;  // name of the first main container
  int shim = 0;
  bool heard = false;  // the shim has reported once
  bool ended = false;
  bool gone =
      false;  // the connection closed before anything was heard, and no shim has taken the lock
  std::string refused;  // the shim would not start this pod
};

}  // namespace metier
