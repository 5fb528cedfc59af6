package org.apache.spark.scheduler.cluster;

public class CoarseGrainedSchedulerBackend implements org.apache.spark.scheduler.SchedulerBackend {
  public CoarseGrainedSchedulerBackend(org.apache.spark.scheduler.TaskSchedulerImpl scheduler, org.apache.spark.rpc.RpcEnv rpcEnv) {}

  public native String applicationId();

  public native void start();

  public native void stop();

  public native java.util.concurrent.atomic.AtomicInteger totalRegisteredExecutors();

  public native double minRegisteredRatio();

  public native boolean sufficientResourcesRegistered();

  public native scala.concurrent.Future<Object> doRequestTotalExecutors(
      scala.collection.immutable.Map<org.apache.spark.resource.ResourceProfile, Object> totals);
}
