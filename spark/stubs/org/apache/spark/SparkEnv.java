package org.apache.spark;

public class SparkEnv {
  public native org.apache.spark.rpc.RpcEnv rpcEnv();
}
