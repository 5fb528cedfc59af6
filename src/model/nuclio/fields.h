// Every field of Nuclio's function document: its type, and what becomes of it here. Inside schema.cc only.
#pragma once

#include <cstddef>
#include <string_view>

namespace metier::nuclio {

enum class Type { text, boolean, integer, number, duration, list, texts, object, text_map, any };
enum class Use { used, ignored, refused };

struct Field;
// Fields of an object inside; none: it is taken as it is.
struct FieldList {
  constexpr FieldList() = default;
  template <std::size_t n>
  constexpr FieldList(const Field (&list)[n]) : first(list), count(n) {}  // NOLINT: as a list reads
  const Field* first = nullptr;
  std::size_t count = 0;
  constexpr const Field* begin() const { return first; }
  constexpr const Field* end() const;
};

struct Field {
  std::string_view name;
  Type type = Type::text;
  Use use = Use::used;
  std::string_view why;  // of `ignored`, `refused`
  FieldList inside = {};
};
constexpr const Field* FieldList::end() const { return first + count; }

inline constexpr std::string_view kOneNode = "there is one node";
inline constexpr std::string_view kNoImages = "images are environments here";
inline constexpr std::string_view kNoIngress =
    "there is no ingress controller; the function's own address answers";

inline constexpr Field kMetadata[] = {{"name"},
                                      {"namespace"},
                                      {"labels", Type::text_map},
                                      {"annotations", Type::text_map},
                                      {"resourceVersion"},
                                      {"uid"},
                                      {"generation", Type::any},
                                      {"creationTimestamp", Type::any},
                                      {"managedFields", Type::any},
                                      {"finalizers", Type::any},
                                      {"ownerReferences", Type::any}};

inline constexpr Field kSink[] = {{"level"}, {"sink"}};
inline constexpr Field kScaleResource[] = {
    {"metricName"}, {"windowSize", Type::duration}, {"threshold", Type::any}};
inline constexpr Field kScaleToZero[] = {
    {"scaleResources", Type::list, Use::used, "", kScaleResource}};
inline constexpr Field kResources[] = {{"requests", Type::object},
                                       {"limits", Type::object},
                                       {"claims", Type::any, Use::ignored, kOneNode}};
inline constexpr Field kVolume[] = {{"volume", Type::object}, {"volumeMount", Type::object}};
inline constexpr Field kRestartPolicy[] = {{"name"}, {"maximumRetryCount", Type::integer}};
inline constexpr Field kPlatformAttributes[] = {
    {"restartPolicy", Type::object, Use::ignored, "processors are always started again",
     kRestartPolicy},
    {"mountMode", Type::text, Use::ignored, "it is a setting of Docker"},
    {"network", Type::text, Use::ignored, "it is a setting of Docker"},
    {"networks", Type::any, Use::ignored, "it is a setting of Docker"},
    {"healthCheckInterval", Type::any, Use::ignored, "it is a setting of Docker"},
    {"processorMountMode", Type::text, Use::ignored, "it is a setting of Docker"}};
inline constexpr Field kPlatform[] = {
    {"attributes", Type::object, Use::used, "", kPlatformAttributes}};
inline constexpr Field kEntryAttributes[] = {{"workDir"},
                                             {"branch"},
                                             {"tag"},
                                             {"reference"},
                                             {"username"},
                                             {"password"},
                                             {"headers", Type::object},
                                             {"s3Bucket"},
                                             {"s3ItemKey"},
                                             {"s3AccessKeyId"},
                                             {"s3SecretAccessKey"},
                                             {"s3SessionToken"},
                                             {"s3Region"}};
inline constexpr Field kDirectives[] = {{"preCopy", Type::list}, {"postCopy", Type::list}};
inline constexpr std::string_view kNoBuilder = "nothing is built into an image here";
inline constexpr Field kBuild[] = {
    {"path"},
    {"functionSourceCode"},
    {"functionConfigPath", Type::text, Use::ignored, "the document itself was read"},
    {"codeEntryType"},
    {"codeEntryAttributes", Type::object, Use::used, "", kEntryAttributes},
    {"image"},
    {"registry", Type::text, Use::ignored, kNoBuilder},
    {"baseImage"},
    {"baseImageRegistry", Type::text, Use::ignored, kNoBuilder},
    {"onbuildImage", Type::text, Use::ignored, kNoBuilder},
    {"noBaseImagesPull", Type::boolean, Use::ignored, kNoBuilder},
    {"noCache", Type::boolean, Use::ignored, kNoBuilder},
    {"noCleanup", Type::boolean, Use::ignored, kNoBuilder},
    {"offline", Type::boolean, Use::ignored, kNoBuilder},
    {"tempDir", Type::text, Use::ignored, kNoBuilder},
    {"commands", Type::texts},
    {"requirements", Type::texts},
    {"directives", Type::object, Use::refused,
     "Dockerfile lines have nowhere to run; use build.commands", kDirectives},
    {"scriptPaths", Type::list, Use::ignored, kNoBuilder},
    {"addedPaths", Type::list, Use::ignored, kNoBuilder},
    {"dependencies", Type::list, Use::ignored, "they are for Go, Java and .NET"},
    {"runtimeAttributes", Type::object, Use::ignored, "they are for Java and .NET"},
    {"timestamp", Type::any, Use::ignored, kNoBuilder},
    {"buildTimeoutSeconds", Type::integer, Use::ignored, kNoBuilder},
    {"mode", Type::text, Use::ignored, kNoBuilder},
    {"args", Type::object, Use::ignored, kNoBuilder},
    {"flags", Type::list, Use::ignored, kNoBuilder},
    {"builderServiceAccount", Type::text, Use::ignored, kNoBuilder}};
inline constexpr Field kStrategy[] = {{"type"}, {"rollingUpdate", Type::object}};

inline constexpr Field kSpec[] = {
    {"description"},
    {"disable", Type::boolean},
    {"publish", Type::boolean, Use::ignored, "every deploy is kept as a version"},
    {"version", Type::any, Use::ignored, "every deploy is kept as a version"},
    {"alias", Type::text, Use::ignored, "tags name versions"},
    {"handler"},
    {"runtime"},
    {"env", Type::list},
    {"envFrom", Type::list},
    {"resources", Type::object, Use::used, "", kResources},
    {"image"},
    {"imageHash", Type::any, Use::ignored, kNoImages},
    {"replicas", Type::integer},
    {"minReplicas", Type::integer},
    {"maxReplicas", Type::integer},
    {"targetCPU", Type::integer, Use::ignored,
     "replicas follow the share of time in which workers are busy"},
    {"dataBindings", Type::object, Use::refused, "only Go functions can use them"},
    {"triggers", Type::object},
    {"volumes", Type::list, Use::used, "", kVolume},
    {"build", Type::object, Use::used, "", kBuild},
    {"runRegistry", Type::text, Use::ignored, kNoImages},
    {"imagePullSecrets", Type::any, Use::ignored, kNoImages},
    {"runtimeAttributes", Type::object},
    {"loggerSinks", Type::list, Use::used, "", kSink},
    {"dealerURI", Type::text, Use::ignored, "Nuclio does not read it either"},
    {"platform", Type::object, Use::used, "", kPlatform},
    {"readinessTimeoutSeconds", Type::integer},
    {"waitReadinessTimeoutBeforeFailure", Type::boolean},
    {"serviceType"},
    {"imagePullPolicy", Type::text, Use::ignored, kNoImages},
    {"securityContext", Type::object},
    {"serviceAccount", Type::text, Use::ignored, "there are no service accounts"},
    {"scaleToZero", Type::object, Use::used, "", kScaleToZero},
    {"autoScaleMetrics", Type::list, Use::ignored,
     "replicas follow the share of time in which workers are busy"},
    {"customScalingMetricSpecs", Type::list, Use::ignored,
     "replicas follow the share of time in which workers are busy"},
    {"disableDefaultHTTPTrigger", Type::boolean},
    {"disableSensitiveFieldsMasking", Type::boolean, Use::ignored, "secrets are always masked"},
    {"devices", Type::list, Use::ignored, "they are for Docker; ask for resources"},
    {"affinity", Type::object, Use::ignored, kOneNode},
    {"nodeSelector", Type::object, Use::ignored, kOneNode},
    {"nodeName", Type::text, Use::ignored, kOneNode},
    {"tolerations", Type::list, Use::ignored, kOneNode},
    {"priorityClassName"},
    {"preemptionPolicy", Type::text, Use::ignored, kOneNode},
    {"preemptionMode", Type::text, Use::ignored, kOneNode},
    {"PreemptionMode", Type::text, Use::ignored, kOneNode},
    {"deploymentStrategy", Type::object, Use::used, "", kStrategy},
    {"hostIPC", Type::boolean, Use::refused, "a pod's shared memory is its own"},
    {"eventTimeout", Type::duration},
    {"sidecars", Type::list, Use::refused,
     "a function's pod has the processor only; deploy the other program as a function of its own"},
    {"initContainers", Type::list, Use::refused,
     "a function's pod has the processor only; use init_context"},
    {"avatar", Type::text, Use::ignored, "it is for Nuclio's dashboard"},
    {"featureFlags", Type::any, Use::ignored, "it is for Nuclio's dashboard"}};

inline constexpr Field kBatch[] = {
    {"mode"}, {"batchSize", Type::integer}, {"timeout", Type::duration}};
inline constexpr std::string_view kWaitsForWorker =
    "workerAvailabilityTimeoutMilliseconds is how long an event waits";
inline constexpr Field kAsync[] = {
    {"maxConnectionsNumber", Type::integer},
    {"connectionAvailabilityTimeout", Type::integer, Use::ignored, kWaitsForWorker}};
inline constexpr Field kPartition[] = {{"id", Type::any}, {"checkpoint", Type::any}};
inline constexpr Field kTrigger[] = {
    {"class", Type::text, Use::used},
    {"kind"},
    {"name"},
    {"disabled", Type::boolean},
    {"numWorkers", Type::integer},
    {"maxWorkers", Type::integer},
    {"url"},
    {"paths", Type::texts},
    {"username"},
    {"password"},
    {"secret"},
    {"partitions", Type::list, Use::used, "", kPartition},
    {"annotations", Type::text_map},
    {"workerAvailabilityTimeoutMilliseconds", Type::integer},
    {"workerTerminationTimeout", Type::duration},
    {"workerAllocatorName"},
    {"explicitAckMode"},
    {"waitExplicitAckDuringRebalanceTimeout", Type::duration},
    {"batch", Type::object, Use::used, "", kBatch},
    {"mode"},
    {"async", Type::object, Use::used, "", kAsync},
    {"connectionAvailabilityTimeout", Type::integer, Use::ignored, kWaitsForWorker},
    {"total_tasks", Type::integer, Use::ignored, "Nuclio does not read it either"},
    {"max_task_allocation", Type::integer, Use::ignored, "Nuclio does not read it either"},
    {"attributes", Type::object}};

inline constexpr Field kCors[] = {
    {"enabled", Type::boolean},     {"allowOrigin"},
    {"allowOrigins", Type::texts},  {"allowMethods", Type::texts},
    {"allowHeaders", Type::texts},  {"allowCredentials", Type::boolean},
    {"exposeHeaders", Type::texts}, {"preflightMaxAgeSeconds", Type::integer}};
inline constexpr Field kHttpTls[] = {{"certificate"}, {"key"}};
// Attributes of the HTTP trigger; tls, the time limits and maxConnections are ours.
inline constexpr Field kHttp[] = {
    {"port", Type::integer},
    {"serviceType"},
    {"maxRequestBodySize", Type::integer},
    {"readBufferSize", Type::integer},
    {"mode", Type::text, Use::ignored, "it is the trigger's own field, beside its attributes"},
    {"reduceMemoryUsage", Type::boolean, Use::ignored,
     "a connection's buffer is given back when it is idle"},
    {"disablePortPublishing", Type::boolean},
    {"ingresses", Type::object, Use::ignored, kNoIngress},
    {"cors", Type::object, Use::used, "", kCors},
    {"workerAllocationMode", Type::text, Use::ignored, "it is for streams"},
    {"worker_allocation_mode", Type::text, Use::ignored, "it is for streams"},
    {"event", Type::any, Use::ignored, "Nuclio does not read it either"},
    {"tls", Type::object, Use::used, "", kHttpTls},
    {"idleTimeout", Type::duration},
    {"readHeaderTimeout", Type::duration},
    {"readBodyTimeout", Type::duration},
    {"maxConnections", Type::integer}};
inline constexpr Field kCronEvent[] = {{"body", Type::any}, {"headers", Type::object}};
inline constexpr Field kCron[] = {
    {"schedule"},
    {"interval", Type::duration},
    {"concurrencyPolicy"},
    {"jobBackoffLimit", Type::integer, Use::ignored, "ticks are not Kubernetes jobs here"},
    {"workerAllocationMode"},
    {"worker_allocation_mode"},
    {"event", Type::object, Use::used, "", kCronEvent}};

// Attributes of the Kafka trigger (docs/reference/kafka-attributes.md); the last four are ours.
inline constexpr const char* kKafkaRetries = "librdkafka tries on until the brokers answer";
inline constexpr Field kKafkaOauth[] = {
    {"clientID"}, {"clientSecret"}, {"tokenURL"}, {"scopes", Type::texts}};
inline constexpr Field kKafkaSasl[] = {
    {"enable", Type::boolean},
    {"handshake", Type::boolean, Use::ignored, "the handshake is always made"},
    {"user"},
    {"password"},
    {"mechanism"},
    {"oauth", Type::object, Use::refused, "OAUTHBEARER is not in this build", kKafkaOauth}};
inline constexpr Field kKafkaTls[] = {
    {"enable", Type::boolean}, {"insecureSkipVerify", Type::boolean}, {"minimumVersion"}};
inline constexpr Field kKafka[] = {
    {"brokers", Type::texts},
    {"topics", Type::texts},
    {"consumerGroup"},
    {"initialOffset"},
    {"balanceStrategy"},
    {"sessionTimeout", Type::duration},
    {"heartbeatInterval", Type::duration},
    {"maxProcessingTime", Type::duration, Use::ignored,
     "a partition is not read while its worker is busy, however long; eventTimeout bounds a "
     "handler"},
    {"rebalanceTimeout", Type::duration},
    {"rebalanceRetryMax", Type::integer, Use::ignored, kKafkaRetries},
    {"rebalanceRetryBackoff", Type::duration, Use::ignored, kKafkaRetries},
    {"retryBackoff", Type::duration},
    {"maxWaitTime", Type::duration},
    {"maxWaitHandlerDuringRebalance", Type::duration},
    {"fetchMin", Type::integer},
    {"fetchDefault", Type::integer},
    {"fetchMax", Type::integer},
    {"channelBufferSize", Type::integer},
    {"workerAllocationMode"},
    {"worker_allocation_mode"},
    {"ackWindowSize", Type::integer},
    {"sasl", Type::object, Use::used, "", kKafkaSasl},
    {"tls", Type::object, Use::used, "", kKafkaTls},
    {"caCert"},
    {"accessKey"},
    {"accessCertificate"},
    {"secretPath"},
    {"logLevel", Type::integer},
    {"version", Type::any, Use::ignored, "the brokers are asked for what they can do"},
    {"commitInterval", Type::duration},
    {"onFailure"},
    {"deadLetterTopic"},
    {"maxDeliveries", Type::integer}};

}  // namespace metier::nuclio
