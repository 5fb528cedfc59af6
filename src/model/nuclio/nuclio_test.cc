#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "base/files.h"
#include "base/yaml.h"
#include "model/create.h"
#include "model/nuclio/function.h"
#include "model/nuclio/inline.h"

namespace metier::nuclio {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;

Review review(std::string_view yaml) {
  auto spec = parse_yaml(yaml);
  EXPECT_TRUE(spec) << yaml;
  return review_spec(spec->get_object());
}
// What a file is refused with: "field: message | fix", or "".
std::string refusal(std::string_view yaml) {
  const auto verdict = review(yaml).verdict(true);
  if (verdict) { return {}; }
  const Error& error = verdict.error();
  return error.field + ": " + error.message + " | " + error.fix;
}

// nuclio-processor reference 1.7
constexpr std::string_view kWhole = R"(
runtime: python:3.9
handler: main:handler
env: [{name: A, value: "1"}, {name: B, valueFrom: {secretKeyRef: {name: s, key: k}}}]
eventTimeout: 30s
minReplicas: 1
maxReplicas: 4
triggers:
  web:
    kind: http
    numWorkers: 8
    workerAvailabilityTimeoutMilliseconds: 10000
    attributes:
      port: 30080
      serviceType: NodePort
      maxRequestBodySize: 8388608
      ingresses: {i0: {host: f.example.com, pathType: Prefix, paths: [/a]}}
      cors: {enabled: true, allowOrigins: ["*"]}
  k:
    kind: kafka-cluster
    numWorkers: 4
    explicitAckMode: explicitOnly
    workerTerminationTimeout: 20s
    attributes: {brokers: ["b:9092"], topics: [t], consumerGroup: g, initialOffset: earliest, workerAllocationMode: static}
  tick:
    kind: cron
    attributes: {interval: 10s, event: {body: hi, headers: {x: y}}}
)";

TEST(NuclioSchema, TheWholeExampleIsRight) {
  const Review seen = review(kWhole);
  EXPECT_TRUE(seen.verdict(true)) << seen.verdict(true).error().text();
  ASSERT_EQ(seen.ignored.size(), 1U);
  EXPECT_EQ(seen.ignored[0].field, "spec.triggers.web.attributes.ingresses");
}

TEST(NuclioSchema, WhatHasNoEffectIsSaid) {
  const Review seen = review(
      "{triggers: {w: {kind: http, url: ':9090', username: u, async: {maxConnectionsNumber: 5, "
      "connectionAvailabilityTimeout: 3}, attributes: {mode: async, reduceMemoryUsage: true, "
      "readHeaderTimeout: 5s, maxConnections: 9, tls: {certificate: c, key: k}}}}}");
  ASSERT_TRUE(seen.verdict(true)) << seen.verdict(true).error().text();
  std::vector<std::string> fields;
  for (const auto& remark : seen.ignored) { fields.push_back(remark.field); }
  EXPECT_THAT(fields,
              testing::UnorderedElementsAre("spec.triggers.w.url", "spec.triggers.w.username",
                                            "spec.triggers.w.async.connectionAvailabilityTimeout",
                                            "spec.triggers.w.attributes.mode",
                                            "spec.triggers.w.attributes.reduceMemoryUsage"));
  EXPECT_THAT(refusal("{triggers: {w: {kind: http, mode: async, async: {maxConnectionsNumber: "
                      "1001}}}}"),
              HasSubstr("give 1 to 1000"));
}

TEST(NuclioSchema, AbsentValuesAreAbsent) {
  EXPECT_EQ(refusal("{sidecars: [], avatar: null, noSuchThing: '', triggers: {t: null}, "
                    "initContainers: null}"),
            "");
}

TEST(NuclioSchema, AnUnknownFieldIsNamed) {
  EXPECT_EQ(refusal("{handlr: main:handler}"),
            "spec.handlr: Nuclio's function.yaml has no such field | did you mean handler?");
  EXPECT_EQ(refusal("{triggers: {t: {kind: http, numWorker: 2}}}"),
            "spec.triggers.t.numWorker: Nuclio's function.yaml has no such field | did you mean "
            "numWorkers?");
  EXPECT_EQ(refusal("{triggers: {t: {kind: cron, attributes: {interval: 1s, evnt: {body: x}}}}}"),
            "spec.triggers.t.attributes.evnt: Nuclio's function.yaml has no such field | did you "
            "mean event?");
  EXPECT_TRUE(review("{handlr: x}").verdict(false));  // over REST it is a remark
}

TEST(NuclioSchema, WrongTypesAndRangesAreNamed) {
  EXPECT_EQ(refusal("{minReplicas: two}"),
            "spec.minReplicas: expected a whole number, got \"two\" | write a whole number");
  EXPECT_EQ(refusal("{eventTimeout: soon}"),
            "spec.eventTimeout: expected a duration such as \"30s\", got \"soon\" | write a "
            "duration such as \"30s\"");
  EXPECT_EQ(refusal("{minReplicas: 3, maxReplicas: 2}"),
            "spec.minReplicas: 3 is more than maxReplicas 2 | give at most maxReplicas");
  EXPECT_EQ(refusal("{triggers: {t: {kind: http, attributes: {port: 70000}}}}"),
            "spec.triggers.t.attributes.port: 70000 is out of range | give 0 to 65535");
  EXPECT_EQ(refusal("{triggers: {t: {name: u, kind: http}}}"),
            "spec.triggers.t.name: 'u' is not the trigger's key 't' | give the same name in both, "
            "or leave it out");
  EXPECT_EQ(refusal("{triggers: {a: {kind: http}, b: {kind: http}}}"),
            "spec.triggers: a function has one HTTP trigger at most | leave one out");
  EXPECT_EQ(
      refusal("{triggers: {t: {kind: cron}}}"),
      "spec.triggers.t.attributes: neither schedule nor interval is given | give exactly one");
  EXPECT_EQ(
      refusal("{triggers: {t: {kind: cron, attributes: {schedule: '61 * * * *'}}}}"),
      "spec.triggers.t.attributes.schedule: '61' is no minute: it goes from 0 to 59 | give *, "
      "0-59, lists, ranges and steps");
  EXPECT_THAT(refusal("{triggers: {t: {kind: cron, attributes: {interval: 0s}}}}"),
              HasSubstr("spec.triggers.t.attributes.interval: is no time"));
  EXPECT_EQ(refusal("{triggers: {t: {kind: http, explicitAckMode: enable}}}"),
            "spec.triggers.t.explicitAckMode: a trigger of kind http has nothing to acknowledge | "
            "leave it out");
}

std::string kafka(std::string_view attributes) {
  return refusal(
      "{triggers: {k: {kind: kafka, attributes: {brokers: ['b:9092'], topics: [t], consumerGroup: "
      "g, " +
      std::string(attributes) + "}}}}");
}

TEST(NuclioSchema, KafkasAttributesAreChecked) {
  EXPECT_EQ(kafka("initialOffset: latest, balanceStrategy: sticky, ackWindowSize: 5"), "");
  EXPECT_THAT(refusal("{triggers: {k: {kind: kafka-cluster, attributes: {topics: [t]}}}}"),
              HasSubstr("attributes.brokers: is not given"));
  EXPECT_EQ(refusal("{triggers: {k: {kind: kafka-cluster, url: 'b:9092', attributes: {topics: [t], "
                    "consumerGroup: g}}}}"),
            "");
  EXPECT_EQ(
      kafka("initialOffset: middle"),
      "spec.triggers.k.attributes.initialOffset: 'middle' is not one of its values | give one "
      "of: earliest, latest");
  EXPECT_THAT(kafka("balanceStrategy: fair"), HasSubstr("range, roundrobin, sticky"));
  EXPECT_THAT(kafka("consumergroup: x"), HasSubstr("did you mean consumerGroup?"));
  EXPECT_THAT(kafka("sessionTimeout: soon"), HasSubstr("attributes.sessionTimeout"));
  EXPECT_THAT(kafka("sasl: {enable: true, user: a}"), HasSubstr("sasl.password: is not given"));
  EXPECT_THAT(kafka("sasl: {enable: true, user: a, password: b, mechanism: GSSAPI}"),
              HasSubstr("PLAIN, SCRAM-SHA-256, SCRAM-SHA-512"));
  EXPECT_THAT(kafka("sasl: {enable: true, user: a, password: b, oauth: {clientID: x}}"),
              HasSubstr("OAUTHBEARER is not in this build"));
  EXPECT_THAT(kafka("tls: {enable: true, minimumVersion: '1.3'}"),
              HasSubstr("TLS 1.2 is the least"));
  const Review seen = review(
      "{triggers: {k: {kind: kafka-cluster, attributes: {brokers: [b], topics: [t], consumerGroup: "
      "g, maxProcessingTime: 5m, version: 2.0.0, logLevel: 3}}}}");
  EXPECT_TRUE(seen.verdict(true));
  EXPECT_EQ(seen.ignored.size(), 2U);
}

// docs/how-to/nuclio.md lists these with the same words.
TEST(NuclioSchema, WhatIsNotServedIsRefusedByName) {
  EXPECT_EQ(refusal("{triggers: {q: {kind: rabbit-mq}}}"),
            "spec.triggers.q.kind: triggers of kind rabbit-mq are not served here | kinds of "
            "trigger that are: http, cron, kafka-cluster");
  for (const std::string_view kind :
       {"rabbit-mq", "nats", "mqtt", "iotCoreMqtt", "kinesis", "eventhub", "pubsub", "v3ioStream",
        "v3ioItemPoller", "kickstart"}) {
    EXPECT_THAT(refusal(fmt::format("{{triggers: {{q: {{kind: {}}}}}}}", kind)),
                HasSubstr(fmt::format("triggers of kind {} are not served here", kind)));
  }
  EXPECT_EQ(refusal("{runtime: golang}"),
            "spec.runtime: handlers written in Go do not run here (golang) | runtimes: python, "
            "native (a .so with METIER_EVENT_HANDLER), shell");
  EXPECT_THAT(refusal("{runtime: nodejs}"), HasSubstr("written in Node.js"));
  EXPECT_THAT(refusal("{runtime: java}"), HasSubstr("written in Java"));
  EXPECT_THAT(refusal("{runtime: dotnetcore}"), HasSubstr("written in .NET"));
  EXPECT_THAT(refusal("{runtime: ruby}"), HasSubstr("written in Ruby"));
  EXPECT_EQ(refusal("{runtime: cobol}"),
            "spec.runtime: 'cobol' is no runtime | runtimes: python, native, shell");
  EXPECT_EQ(refusal("{sidecars: [{name: x}]}"),
            "spec.sidecars: not supported: a function's pod has the processor only; deploy the "
            "other program as a function of its own | leave it out");
  EXPECT_EQ(refusal("{initContainers: [{name: x}]}"),
            "spec.initContainers: not supported: a function's pod has the processor only; use "
            "init_context | leave it out");
  EXPECT_EQ(refusal("{dataBindings: {a: {class: v3io}}}"),
            "spec.dataBindings: not supported: only Go functions can use them | leave it out");
  EXPECT_EQ(refusal("{hostIPC: true}"),
            "spec.hostIPC: not supported: a pod's shared memory is its own | leave it out");
  EXPECT_EQ(refusal("{build: {directives: {preCopy: [{kind: RUN, value: x}]}}}"),
            "spec.build.directives: not supported: Dockerfile lines have nowhere to run; use "
            "build.commands | leave it out");
  EXPECT_EQ(refusal("{build: {codeEntryType: image, image: x}}"),
            "spec.build.codeEntryType: the code of an image cannot be run: images are environments "
            "here | give the source");
  EXPECT_EQ(refusal("{build: {codeEntryType: git, path: 'https://h/r.git'}}"),
            "spec.build.codeEntryType: sources of type git are not fetched for functions yet | "
            "fetch it and deploy the file: metier deploy FILE");
  EXPECT_EQ(
      refusal("{minReplicas: 0, maxReplicas: 2, triggers: {k: {kind: kafka-cluster, attributes: "
              "{brokers: ['b:9092'], topics: [t], consumerGroup: g}}}}"),
      "spec.minReplicas: 0 with a stream trigger: nobody reads the stream while there is no "
      "replica | give minReplicas 1");
  EXPECT_EQ(refusal("{minReplicas: 0, maxReplicas: 2, disableDefaultHTTPTrigger: true}"),
            "spec.minReplicas: 0 without an HTTP or cron trigger: nothing could wake the function "
            "| give minReplicas 1, or add an HTTP trigger");
}

TEST(NuclioInline, ABlockOfTheSourceIsItsDocument) {
  const auto read = [](std::string_view code) {
    const auto document = inline_document(code);
    if (!document) { return document.error().text(); }
    return *document ? dump_json(**document) : std::string("none");
  };
  EXPECT_EQ(read("def handler(context, event):\n    return 1\n"), "none");
  EXPECT_EQ(read("# about @nuclio.configure and such\n"), "none");
  EXPECT_EQ(read("import os\n\n# @nuclio.configure\n#\n# function.yaml:\n#   spec:\n#     "
                 "minReplicas: 2\r\n#     triggers:\n#       web: {kind: http}\n\n# something "
                 "else: 1\ndef handler(c, e): pass\n"),
            R"({"spec":{"minReplicas":2,"triggers":{"web":{"kind":"http"}}}})");
  EXPECT_EQ(read("#@nuclio.configure\n#function.yaml:\n#  metadata: {labels: {a: b}}"),
            R"({"metadata":{"labels":{"a":"b"}}})");
  EXPECT_THAT(read("\n# @nuclio.configure\n# spec: {}\n"),
              HasSubstr("line 2: the block has no function.yaml"));
  EXPECT_THAT(read("# @nuclio.configure\n# function.yaml: {spec: {}}\n# other.yaml: {}\n"),
              HasSubstr("line 1: 'other.yaml' is no part of the block"));
  EXPECT_THAT(read("# @nuclio.configure\n# function.yaml: [\n"), HasSubstr("the block is no YAML"));
  EXPECT_THAT(read("# @nuclio.configure\n# function.yaml: {spec: {}}\n# @nuclio.configure\n# "
                   "function.yaml: {spec: {}}\n"),
              HasSubstr("line 3: a source has one such block at most"));
}

TEST(NuclioInline, ARequestWinsOverTheSource) {
  auto function = new_function({.name = "f", .kind = "nuclio"}, system_random());
  ASSERT_TRUE(function);
  ensure_object(function->spec(), "build")["functionSourceCode"] = base64_encode(
      "# @nuclio.configure\n# function.yaml:\n#   spec: {eventTimeout: 3s, description: theirs, "
      "build: {commands: [a, b]}}\n");
  ensure_object(function->spec(), "build")["commands"] = JsonArray{"a"};
  ensure_object(ensure_object(function->spec(), "base_spec"), "spec")["description"] = "mine";
  const auto merged = with_inline(*function);
  ASSERT_TRUE(merged && *merged);
  EXPECT_EQ((*merged)->text("base_spec.spec.eventTimeout"), "3s");
  EXPECT_EQ((*merged)->text("base_spec.spec.description"), "mine");
  EXPECT_EQ(dump_json(*(*merged)->find("build.commands")), R"(["a","b"])");
}

class NuclioFile : public testing::Test {
 protected:
  NuclioFile() {
    std::string name = (std::filesystem::temp_directory_path() / "metier-nuclio-XXXXXX").string();
    folder_ = ::mkdtemp(name.data());
  }
  ~NuclioFile() override { std::filesystem::remove_all(folder_); }
  void write(const std::string& name, std::string_view text) {
    ASSERT_TRUE(write_file(folder_ / name, text, 0644));
  }
  std::filesystem::path folder_;
};

TEST_F(NuclioFile, ReadsTheFileAndTheCodeBesideIt) {
  write("main.py", "def handler(context, event):\n    return 'hi'\n");
  write("function.yaml",
        "apiVersion: nuclio.io/v1beta1\nkind: NuclioFunction\nmetadata: {name: Hello World, "
        "labels: {a: b}}\n"
        "spec: {handler: 'main:handler', runtime: python, minReplicas: 0, maxReplicas: 3, env: "
        "[{name: A, value: '1'}]}\n");
  auto function = import_function(folder_ / "function.yaml");
  ASSERT_TRUE(function) << function.error().text();
  EXPECT_EQ(function->kind(), "remote");
  EXPECT_EQ(function->name(), "hello-world");
  EXPECT_EQ(*function->code(), "def handler(context, event):\n    return 'hi'\n");
  EXPECT_EQ(dump_json(*function->find("env")), R"([{"name":"A","value":"1"}])");
  EXPECT_EQ(dump_json(*function->find("base_spec.spec")),
            R"({"handler":"main:handler","runtime":"python","minReplicas":0,"maxReplicas":3})");
  EXPECT_EQ(function->text("service_type"), "ClusterIP");
}

TEST_F(NuclioFile, ASourceWithAWrongBlockIsRefusedByName) {
  write("app.py",
        "# @nuclio.configure\n# function.yaml:\n#   spec: {handler: 'main:go', minReplica: 1}\n"
        "def go(context, event):\n    pass\n");
  const CodeToFunction arguments{.name = "f", .filename = folder_ / "app.py", .kind = "nuclio"};
  const auto refused = code_to_function(arguments);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().fix, "did you mean minReplicas?");
  write("app.py",
        "# @nuclio.configure\n# function.yaml:\n#   spec: {handler: 'main:go', minReplicas: 1}\n"
        "def go(context, event):\n    pass\n");
  const auto made = code_to_function(arguments);
  ASSERT_TRUE(made) << made.error().text();
  EXPECT_EQ(made->text("function_handler"), "app-nuclio:go");
}

TEST_F(NuclioFile, SaysWhichFileShouldHoldTheCode) {
  write("function.yaml", "spec: {handler: 'app:go', runtime: python}\n");
  const auto function = import_function(folder_ / "function.yaml");
  ASSERT_FALSE(function);
  EXPECT_EQ(function.error().kind, ErrorKind::not_found);
  EXPECT_THAT(function.error().text(), HasSubstr("app.py: no such file"));
}

TEST_F(NuclioFile, RefusesAnUnknownFieldByName) {
  write("function.yaml", "spec: {handler: 'main:handler', runtime: python, minReplica: 1}\n");
  const auto function = import_function(folder_ / "function.yaml");
  ASSERT_FALSE(function);
  EXPECT_THAT(function.error().text(), HasSubstr("minReplica"));
  EXPECT_EQ(function.error().fix, "did you mean minReplicas?");
}

TEST(NuclioMethods, SetConfigOfTheFunction) {
  auto function = new_function({.name = "f", .kind = "nuclio"}, system_random());
  ASSERT_TRUE(function);
  ASSERT_TRUE(with_http(*function, {.workers = 2, .port = 30080, .worker_timeout = 5}));
  EXPECT_EQ(
      dump_json(*object_in(function->spec(), "config")->if_contains("spec.triggers.http")),
      R"({"kind":"http","name":"http","numWorkers":2,"workerAvailabilityTimeoutMilliseconds":5000,"attributes":{"port":30080}})");
  EXPECT_FALSE(with_http(*function, {.worker_timeout = 5, .gateway_timeout = 5}));
  ASSERT_TRUE(with_cron(*function, {.interval = "10s", .body = "hi"}));
  EXPECT_FALSE(with_cron(*function, {.interval = "10s", .schedule = "* * * * *"}));
  ASSERT_TRUE(with_kafka(*function, {.brokers = {"b:9092"},
                                     .topics = {"t"},
                                     .consumer_group = "g",
                                     .explicit_ack_mode = "explicitOnly"}));
  EXPECT_FALSE(with_kafka(*function, {.brokers = {"b:9092"}, .topics = {"t"}}));
  EXPECT_FALSE(add_trigger(*function, "q", JsonObject{{"kind", "mqtt"}}));
  ASSERT_TRUE(set_config(*function, "spec.eventTimeout", "3s"));
  EXPECT_FALSE(set_config(*function, "eventTimeout", "3s"));
  ASSERT_TRUE(with_replicas(*function, 0, 4));
  EXPECT_FALSE(with_replicas(*function, 5, 4));
  auto job = new_function({.name = "j", .kind = "job", .image = "i"}, system_random());
  ASSERT_TRUE(job);
  EXPECT_FALSE(set_config(*job, "spec.a", 1));
}

}  // namespace
}  // namespace metier::nuclio
