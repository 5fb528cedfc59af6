package org.apache.spark.resource;

public class ResourceProfile {}
