package dev.metier.spark;

import org.apache.spark.SparkContext;
import org.apache.spark.scheduler.ExternalClusterManager;
import org.apache.spark.scheduler.SchedulerBackend;
import org.apache.spark.scheduler.TaskScheduler;
import org.apache.spark.scheduler.TaskSchedulerImpl;

/**
 * Master {@value #MASTER}: executors are pods that metier's controller starts. The name begins with "local" because spark-submit takes no
 * scheme that it does not know; no part of Spark takes it for a local master.
 */
public final class ClusterManager implements ExternalClusterManager {
  public static final String MASTER = "local-metier";

  @Override
  public boolean canCreate(String masterUrl) {
    return MASTER.equals(masterUrl);
  }

  @Override
  public TaskScheduler createTaskScheduler(SparkContext context, String masterUrl) {
    return new TaskSchedulerImpl(context);
  }

  @Override
  public SchedulerBackend createSchedulerBackend(SparkContext context, String masterUrl, TaskScheduler scheduler) {
    return new Backend((TaskSchedulerImpl) scheduler, context);
  }

  @Override
  public void initialize(TaskScheduler scheduler, SchedulerBackend backend) {
    ((TaskSchedulerImpl) scheduler).initialize(backend);
  }
}
