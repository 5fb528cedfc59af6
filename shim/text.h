// A growing text. Out of memory ends the program: nothing here can go on without its few bytes.
#pragma once

#include <cstddef>
#include <cstdint>

namespace shim {

class Text {
 public:
  Text() = default;
  Text(const Text&) = delete;
  Text& operator=(const Text&) = delete;
  ~Text();
  Text& add(const char* text);
  Text& add(const char* bytes, std::size_t size);
  Text& add(long long number);
  Text& json(const char* text);  // quoted and escaped; bytes that are not ASCII become '?'
  void clear() { size_ = 0; }
  const char* c_str() const { return size_ == 0 ? "" : data_; }
  std::size_t size() const { return size_; }

 private:
  void grow(std::size_t more);
  char* data_ = nullptr;
  std::size_t size_ = 0;
  std::size_t room_ = 0;
};

// An array that grows; elements are plain (moved by memcpy).
template <class T>
class List {
 public:
  List() = default;
  List(const List&) = delete;
  List& operator=(const List&) = delete;
  T& push();
  std::size_t size() const { return size_; }
  T& operator[](std::size_t i) { return data_[i]; }
  const T& operator[](std::size_t i) const { return data_[i]; }
  T* begin() { return data_; }
  T* end() { return data_ + size_; }
  const T* begin() const { return data_; }
  const T* end() const { return data_ + size_; }
  void drop(std::size_t i) {
    for (; i + 1 < size_; ++i) { data_[i] = data_[i + 1]; }
    --size_;
  }
  void clear() { size_ = 0; }

 private:
  T* data_ = nullptr;
  std::size_t size_ = 0;
  std::size_t room_ = 0;
};

void* grown(void* old, std::size_t bytes);

template <class T>
T& List<T>::push() {
  if (size_ == room_) {
    room_ = room_ == 0 ? 8 : room_ * 2;
    data_ = static_cast<T*>(grown(data_, room_ * sizeof(T)));
  }
  data_[size_] = T{};
  return data_[size_++];
}

long long number_of(const char* text);
bool equal(const char* a, const char* b);
std::int64_t wall_us();
std::int64_t steady_ms();

}  // namespace shim
