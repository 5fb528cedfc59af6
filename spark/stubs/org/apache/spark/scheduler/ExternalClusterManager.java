package org.apache.spark.scheduler;

public interface ExternalClusterManager {
  boolean canCreate(String masterUrl);

  TaskScheduler createTaskScheduler(org.apache.spark.SparkContext context, String masterUrl);

  SchedulerBackend createSchedulerBackend(org.apache.spark.SparkContext context, String masterUrl, TaskScheduler scheduler);

  void initialize(TaskScheduler scheduler, SchedulerBackend backend);
}
