# Third-party sources that Debian lacks or has too old. scripts/fetch-deps puts them, pinned and
# hashed, into METIER_DEPS; nothing of them is kept in this repository.
if(DEFINED ENV{METIER_DEPS})
  set(METIER_DEPS "$ENV{METIER_DEPS}")
else()
  set(METIER_DEPS "$ENV{HOME}/.cache/metier/deps")
endif()
file(MAKE_DIRECTORY ${CMAKE_BINARY_DIR}/deps)
function(metier_fetch group out)
  execute_process(COMMAND python3 ${CMAKE_SOURCE_DIR}/scripts/fetch-deps ${METIER_DEPS} ${group}
    RESULT_VARIABLE fetched OUTPUT_VARIABLE folder OUTPUT_STRIP_TRAILING_WHITESPACE)
  if(NOT fetched EQUAL 0)
    message(FATAL_ERROR "third-party sources could not be fetched: see the lines above")
  endif()
  # Through a link below the source folder: compile commands, and with them the compiler cache, are the same for every user.
  cmake_path(GET folder FILENAME name)
  file(CREATE_LINK ${folder} ${CMAKE_BINARY_DIR}/deps/${name} SYMBOLIC)
  set(${out} ${CMAKE_BINARY_DIR}/deps/${name} PARENT_SCOPE)
endfunction()
metier_fetch(base METIER_DEPS_DIR)

function(metier_third_party name)
  cmake_parse_arguments(DEP "" "" "SOURCES;INCLUDE;DEFINITIONS" ${ARGN})
  add_library(${name} STATIC ${DEP_SOURCES})
  target_include_directories(${name} SYSTEM PUBLIC ${DEP_INCLUDE})
  target_compile_definitions(${name} PRIVATE ${DEP_DEFINITIONS})
  target_compile_options(${name} PRIVATE -w -O2)
endfunction()

metier_third_party(yyjson
  SOURCES ${METIER_DEPS_DIR}/yyjson/yyjson.c INCLUDE ${METIER_DEPS_DIR}/yyjson)
metier_third_party(llhttp
  SOURCES ${METIER_DEPS_DIR}/llhttp/src/llhttp.c ${METIER_DEPS_DIR}/llhttp/src/api.c ${METIER_DEPS_DIR}/llhttp/src/http.c
  INCLUDE ${METIER_DEPS_DIR}/llhttp/include)
metier_third_party(sqlite3
  SOURCES ${METIER_DEPS_DIR}/sqlite/sqlite3.c INCLUDE ${METIER_DEPS_DIR}/sqlite
  DEFINITIONS SQLITE_DQS=0 SQLITE_THREADSAFE=2 SQLITE_DEFAULT_MEMSTATUS=0 SQLITE_OMIT_DEPRECATED
              SQLITE_OMIT_LOAD_EXTENSION SQLITE_OMIT_SHARED_CACHE SQLITE_USE_ALLOCA SQLITE_ENABLE_JSON1
              SQLITE_DEFAULT_WAL_SYNCHRONOUS=2 SQLITE_ENABLE_DBSTAT_VTAB)

# Boost.JSON, OpenSSL, fmt and yaml-cpp are linked statically: the binary works when copied alone.
find_package(Boost 1.81 REQUIRED)
set(Boost_USE_STATIC_LIBS ON)
find_package(Boost 1.81 REQUIRED COMPONENTS json)
set(OPENSSL_USE_STATIC_LIBS TRUE)
find_package(OpenSSL REQUIRED)
find_package(fmt REQUIRED)
find_package(PkgConfig REQUIRED)
find_library(YAML_CPP_STATIC NAMES libyaml-cpp.a)
if(NOT YAML_CPP_STATIC)
  find_library(YAML_CPP_STATIC NAMES yaml-cpp REQUIRED)
endif()
add_library(metier_yaml INTERFACE)
target_link_libraries(metier_yaml INTERFACE ${YAML_CPP_STATIC})
# {fmt}: Debian has no static library, base/fmt_library.cc compiles its other half.
add_library(fmt_headers INTERFACE)
add_library(fmt::fmt_headers ALIAS fmt_headers)
