package org.apache.spark.rpc;

public abstract class RpcEnv {}
