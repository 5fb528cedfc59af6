# librdkafka, from the npm package that carries its sources; linked statically, with OpenSSL, SCRAM, zlib and zstd in the binary.
metier_fetch(kafka rdkafka_deps)
find_library(ZSTD_LIBRARY_RELEASE NAMES libzstd.a REQUIRED)
block()
  set(CMAKE_POLICY_DEFAULT_CMP0077 NEW)  # its options take these values
  set(RDKAFKA_BUILD_STATIC ON)
  set(RDKAFKA_BUILD_EXAMPLES OFF)
  set(RDKAFKA_BUILD_TESTS OFF)
  set(WITH_SSL ON)
  set(WITH_ZLIB ON)
  set(WITH_ZSTD ON)
  set(WITH_CURL OFF)     # OAUTHBEARER's token service
  set(WITH_SASL OFF)     # Cyrus, for Kerberos; PLAIN and SCRAM are its own
  set(WITH_SASL_SCRAM ON)
  set(WITH_SASL_OAUTHBEARER ON)
  set(WITH_PLUGINS OFF)
  set(ENABLE_LZ4_EXT OFF)
  set(ZLIB_USE_STATIC_LIBS ON)
  set(CMAKE_MESSAGE_LOG_LEVEL WARNING)
  set(CMAKE_WARN_DEPRECATED OFF)
  add_subdirectory(${rdkafka_deps}/rdkafka ${CMAKE_BINARY_DIR}/rdkafka EXCLUDE_FROM_ALL SYSTEM)
endblock()
target_compile_options(rdkafka PRIVATE -w -O2)
if(METIER_SANITIZE)
  target_compile_options(rdkafka PRIVATE -fno-sanitize=undefined)  # its zigzag numbers shift negative ones; not ours to mend
endif()
# This one file asks for curl whether it is used or not.
file(WRITE ${CMAKE_BINARY_DIR}/rdkafka/without/curl/curl.h "")
set_source_files_properties(${rdkafka_deps}/rdkafka/src/rdkafka_conf.c TARGET_DIRECTORY rdkafka
  PROPERTIES COMPILE_OPTIONS -I${CMAKE_BINARY_DIR}/rdkafka/without)
