# metier_room(NAME SOURCES a.cc … TESTS a_test.cc … LINK other_room … )
# One room is one static library `metier_NAME`; its LINK line is the only way to reach another
# room, so that it enforces the direction of dependencies. Tests of a room are one binary,
# `NAME_test`, registered case by case with ctest under the label NAME.
find_package(GTest REQUIRED)
find_package(Threads REQUIRED)

function(metier_room name)
  cmake_parse_arguments(ROOM "" "" "SOURCES;TESTS;LINK;PRIVATE_LINK;TEST_LINK" ${ARGN})
  set(target metier_${name})
  add_library(${target} STATIC ${ROOM_SOURCES})
  target_link_libraries(${target} PUBLIC metier_options ${ROOM_LINK} PRIVATE ${ROOM_PRIVATE_LINK})
  metier_pch(${target})
  if(METIER_BUILD_TESTS AND ROOM_TESTS)
    metier_test(${name}_test SOURCES ${ROOM_TESTS} LINK ${target} ${ROOM_TEST_LINK} LABEL ${name})
  endif()
endfunction()

# Where tests find files of the source and build folders; a header, so that only what includes it depends on the folders' names.
file(WRITE ${CMAKE_BINARY_DIR}/generated/metier/test_paths.h.new
  "#pragma once\n#define METIER_SOURCE_DIR \"${CMAKE_SOURCE_DIR}\"\n#define METIER_BINARY_DIR \"${CMAKE_BINARY_DIR}\"\n")
file(COPY_FILE ${CMAKE_BINARY_DIR}/generated/metier/test_paths.h.new ${CMAKE_BINARY_DIR}/generated/metier/test_paths.h ONLY_IF_DIFFERENT)

# metier_test(NAME SOURCES … LINK … LABEL …): one GoogleTest binary.
function(metier_test name)
  cmake_parse_arguments(TEST "" "LABEL" "SOURCES;LINK" ${ARGN})
  add_executable(${name} ${TEST_SOURCES})
  target_link_libraries(${name} PRIVATE ${TEST_LINK} GTest::gmock GTest::gtest GTest::gtest_main Threads::Threads)
  target_include_directories(${name} PRIVATE ${CMAKE_BINARY_DIR}/generated)  # metier/test_paths.h
  metier_pch(${name})
  include(GoogleTest)
  gtest_discover_tests(${name} DISCOVERY_TIMEOUT 60
    PROPERTIES LABELS "${TEST_LABEL}" TIMEOUT 120)
endfunction()

# One precompiled header for every room and test (cmake/pch.h), compiled once: one per target cost 40
# compilations. Executables are compiled as libraries are (-fPIC), so that it fits them too.
if(METIER_PCH)
  file(WRITE ${CMAKE_BINARY_DIR}/pch_host.cc "")
  add_library(metier_pch_host OBJECT ${CMAKE_BINARY_DIR}/pch_host.cc)
  target_link_libraries(metier_pch_host PRIVATE metier_options fmt::fmt_headers Boost::headers Boost::json)
  target_precompile_headers(metier_pch_host PRIVATE ${CMAKE_SOURCE_DIR}/cmake/pch.h)
  target_compile_options(metier_pch_host PRIVATE "SHELL:-Xclang -fno-pch-timestamp")
  # A precompiled header holds absolute paths: ccache takes the sum of what it was made from instead (CCACHE_PCH_EXTSUM).
  # Of CMake's options for it, `-Xclang -include -Xclang HEADER` is a path that ccache does not know as one.
  set(CMAKE_CXX_COMPILE_OPTIONS_USE_PCH -Xclang -include-pch -Xclang <PCH_FILE>)
  if(CCACHE)
    set_target_properties(metier_pch_host PROPERTIES
      CXX_COMPILER_LAUNCHER "${CMAKE_SOURCE_DIR}/cmake/pch_sum.py;${CMAKE_CXX_COMPILER_LAUNCHER}")
  endif()
endif()
function(metier_pch target)
  if(NOT METIER_PCH)
    return()
  endif()
  target_precompile_headers(${target} REUSE_FROM metier_pch_host)
  target_compile_options(${target} PRIVATE $<$<COMPILE_LANGUAGE:CXX>:SHELL:-fPIC -Xclang -fno-pch-timestamp>)
endfunction()
