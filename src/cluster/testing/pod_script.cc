#include "cluster/testing/pod_script.h"

#include <charconv>

namespace metier {

PodScript pod_script_of(const ObjectMeta& metadata) {
  const auto value = [&](std::string_view key) {
    const auto found =
        metadata.annotations.find(std::string("fake.metier.dev/") + std::string(key));
    return found == metadata.annotations.end() ? std::string() : found->second;
  };
  PodScript out;
  const auto run = value("run");
  if (run == "until-stopped") { out.run = PodScript::Run::until_stopped; }
  if (run == "stubborn") { out.run = PodScript::Run::stubborn; }
  const auto code = value("exit");
  std::from_chars(code.data(), code.data() + code.size(), out.exit_code);
  out.log = value("log");
  out.start_fails = value("start") == "fail";
  return out;
}

}  // namespace metier
