include(${CMAKE_SOURCE_DIR}/cmake/Rdkafka.cmake)
list(APPEND trigger_links rdkafka)
