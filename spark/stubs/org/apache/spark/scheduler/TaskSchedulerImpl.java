package org.apache.spark.scheduler;

public class TaskSchedulerImpl implements TaskScheduler {
  public TaskSchedulerImpl(org.apache.spark.SparkContext context) {}

  public native void initialize(SchedulerBackend backend);
}
