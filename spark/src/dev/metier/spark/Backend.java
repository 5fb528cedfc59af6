package dev.metier.spark;

import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import org.apache.spark.SparkContext;
import org.apache.spark.resource.ResourceProfile;
import org.apache.spark.scheduler.TaskSchedulerImpl;
import org.apache.spark.scheduler.cluster.CoarseGrainedSchedulerBackend;
import scala.collection.Iterator;
import scala.concurrent.Future;

/**
 * Executors register as they come. How many Spark wants, and which it wants to be rid of, is told to whoever asks {@link Wishes}: the
 * controller makes it true.
 */
final class Backend extends CoarseGrainedSchedulerBackend {
  private final SparkContext context;
  private final Wishes wishes;

  Backend(TaskSchedulerImpl scheduler, SparkContext context) {
    super(scheduler, context.env().rpcEnv());
    this.context = context;
    wishes = new Wishes(setting("spark.executor.instances", 1));
  }

  @Override
  public String applicationId() {
    return context.conf().get("spark.metier.app.id", "metier");
  }

  @Override
  public void start() {
    super.start();
    int port = setting("spark.metier.wishes.port", 0);
    if (port == 0) {
      return;
    }
    try {
      wishes.serve(context.conf().get("spark.driver.bindAddress", "127.0.0.1"), port);
    } catch (IOException error) {
      throw new IllegalStateException("port " + port + " of the driver is taken: " + error.getMessage(), error);
    }
  }

  @Override
  public void stop() {
    wishes.close();
    super.stop();
  }

  @Override
  public boolean sufficientResourcesRegistered() {
    return totalRegisteredExecutors().get() >= Math.ceil(wishes.total() * minRegisteredRatio());
  }

  @Override
  public Future<Object> doRequestTotalExecutors(scala.collection.immutable.Map<ResourceProfile, Object> totals) {
    int total = 0;
    for (Iterator<Object> values = totals.valuesIterator(); values.hasNext(); ) {
      total += ((Number) values.next()).intValue();
    }
    wishes.want(total);
    return done();
  }

  // Spark for Scala 2.13 calls this one …
  public Future<Object> doKillExecutors(scala.collection.immutable.Seq<String> ids) {
    return dismiss(ids.iterator());
  }

  // … and Spark for Scala 2.12 this one.
  public Future<Object> doKillExecutors(scala.collection.Seq<String> ids) {
    return dismiss(ids.iterator());
  }

  private Future<Object> dismiss(Iterator<String> ids) {
    List<String> names = new ArrayList<>();
    while (ids.hasNext()) {
      names.add(ids.next());
    }
    wishes.dismiss(names);
    return done();
  }

  private int setting(String key, int fallback) {
    return Integer.parseInt(context.conf().get(key, Integer.toString(fallback)));
  }

  private static Future<Object> done() {
    return Future.successful(Boolean.TRUE);
  }
}
