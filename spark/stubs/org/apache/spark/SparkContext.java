package org.apache.spark;

public class SparkContext {
  public native SparkConf conf();

  public native SparkEnv env();
}
