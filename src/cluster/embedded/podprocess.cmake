# Pods as processes: the driver, cgroups, zygotes. Included by src/cluster/CMakeLists.txt.
metier_room(podprocess
  SOURCES embedded/cgroups.cc embedded/pod_record.cc embedded/pod_spec.cc embedded/process_driver.cc embedded/process_launch.cc
          embedded/process_scan.cc embedded/spawn.cc embedded/zygote_client.cc
  TESTS embedded/cgroups_test.cc embedded/pod_spec_test.cc embedded/pod_record_test.cc embedded/process_driver_test.cc embedded/process_faults_test.cc
        embedded/zygote_test.cc
  LINK metier_cluster)
if(METIER_BUILD_TESTS)
  add_dependencies(podprocess_test metier_shim)
endif()
