// Native steps of serving graphs: functions of a shared library, from the body's JSON text to the next body's.
//
//   #include <metier/step.h>
//   METIER_STEP(scale, [](std::string_view body) { return std::string("[") + std::string(body) + "]"; });
//
//   g++ -std=c++17 -O2 -fPIC -shared -fvisibility=hidden steps.cc -o steps.so
//   graph.to(name="scale", handler="steps.so:scale")
//
// Header-only C++17. Only a C function crosses the border; exceptions are caught inside the library and fail the step with their
// text; memory is freed where it was made. Steps are called from one thread at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <string>
#include <string_view>

extern "C" {
struct metier_step_result_v1 {
  char* data;  // the new body, or the error's text
  std::size_t size;
  void (*release)(char* data);
};
}

namespace metier::detail {

inline __attribute__((visibility("hidden"))) void release_step(char* data) { std::free(data); }

inline __attribute__((visibility("hidden"))) std::int32_t give(std::string_view text,
                                                               std::int32_t status,
                                                               metier_step_result_v1* out) {
  out->data = static_cast<char*>(std::malloc(text.size() + 1));
  if (out->data == nullptr) { return 2; }
  std::memcpy(out->data, text.data(), text.size());
  out->data[text.size()] = '\0';
  out->size = text.size();
  out->release = &release_step;
  return status;
}

template <class Step>
std::int32_t call_step(const Step& step, const char* data, std::size_t size,
                       metier_step_result_v1* out) noexcept {
  try {
    return give(step(std::string_view(data, size)), 0, out);
  } catch (const std::exception& error) { return give(error.what(), 1, out); } catch (...) {
    return give("an exception that is no std::exception", 1, out);
  }
}

}  // namespace metier::detail

// Defines the step `name`: a callable from std::string_view to std::string. 0 for success, 1 for a failure with its text, 2 without memory.
#define METIER_STEP(name, ...)                                                          \
  extern "C" __attribute__((visibility("default"))) std::int32_t metier_step_v1_##name( \
      const char* data, std::size_t size, metier_step_result_v1* out) {                 \
    return metier::detail::call_step(__VA_ARGS__, data, size, out);                     \
  }
