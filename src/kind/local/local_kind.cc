#include "kind/local/local_kind.h"

#include <sstream>

#include "kind/lowering.h"
#include "kind/pod_observation.h"
#include "resource/pod.h"

namespace metier {
namespace {

bool is_python(std::string_view file) {
  return file.ends_with(".py") || file.ends_with(".ipynb") || file.ends_with(".pyc");
}

// Programs run as they are: a handler, inline code or a source that is loaded at run needs the runner.
bool is_program(const Subject& subject) {
  const Function& function = subject.function;
  const std::string command = function.text("command");
  if (command.empty() || !handler_of(subject).empty() ||
      !function.text("build.functionSourceCode").empty() ||
      !function.text("build.source").empty()) {
    return false;
  }
  return function.text("mode") == "pass" || !is_python(command.substr(0, command.find(' ')));
}

// The command is split on blanks, without quoting, as MLRun does. A shell script needs no execute bit.
Result<CommandLine> host_command(const Subject& subject) {
  METIER_TRY(line, program_command(subject));
  std::istringstream words(line.command.front());
  std::vector<std::string> command;
  for (std::string word; words >> word;) { command.push_back(std::move(word)); }
  if (command.empty()) {
    return fail(invalid("spec.command", "the command is empty", "name a program"));
  }
  if (command.front().ends_with(".sh")) {
    command.insert(command.begin(), "bash");
  } else if (is_python(command.front())) {
    command.insert(command.begin(), {"python3", "-u"});
  }
  line.args.insert(line.args.begin(), command.begin() + 1, command.end());
  line.command = {command.front()};
  return line;
}

class LocalKind final : public Kind {
 public:
  const KindTraits& traits() const override { return traits_; }

  Result<void> validate(const Subject& subject) const override {
    METIER_CHECK(validate_subject(subject));
    if (subject.run == nullptr) { return {}; }
    METIER_TRY(resources, lower(subject, Site{}));
    METIER_CHECK(pod_from(resources.front()));
    return {};
  }

  Result<std::vector<Resource>> lower(const Subject& subject, const Site& site) const override {
    METIER_TRY(command, is_program(subject) ? host_command(subject) : mlrun_command(subject));
    METIER_TRY(pod, pod_of_run(subject, site, command));
    pod.metadata.annotations["metier.dev/host-process"] = "true";
    pod.body["spec"].get_object()["containers"].get_array()[0].get_object().stable_erase("image");
    return std::vector<Resource>{std::move(pod)};
  }

  Observation observe(const Subject& subject, std::span<const ResourceStatus> resources,
                      Time now) const override {
    return observe_single_pod(subject, resources, now);
  }

 private:
  KindTraits traits_{.name = "local",
                     .summary = "a process on this machine, in your folder",
                     .executes = Executes::on_host};
};

}  // namespace

std::unique_ptr<Kind> make_local_kind() { return std::make_unique<LocalKind>(); }

}  // namespace metier
