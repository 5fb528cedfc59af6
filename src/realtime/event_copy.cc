#include "realtime/event_copy.h"

#include <cstring>

#include "base/text.h"

namespace metier::realtime {
namespace {

int hex(char c) {
  if (c >= '0' && c <= '9') { return c - '0'; }
  if (c >= 'a' && c <= 'f') { return c - 'a' + 10; }
  if (c >= 'A' && c <= 'F') { return c - 'A' + 10; }
  return -1;
}

std::string decoded(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const int high = text[i] == '%' && i + 2 < text.size() ? hex(text[i + 1]) : -1;
    const int low = high >= 0 ? hex(text[i + 2]) : -1;
    if (low >= 0) {
      out += static_cast<char>(high * 16 + low);
      i += 2;
    } else {
      out += text[i] == '+' ? ' ' : text[i];
    }
  }
  return out;
}

}  // namespace

EventCopy::EventCopy(const Event& event) : event_(event) {
  std::string_view* const views[] = {
      &event_.uid,   &event_.trigger_kind, &event_.trigger_name, &event_.method, &event_.path,
      &event_.query, &event_.content_type, &event_.body,         &event_.topic,  &event_.key,
      &event_.type,  &event_.type_version, &event_.version};
  std::size_t size = 0;
  for (const std::string_view* view : views) { size += view->size(); }
  for (const HeaderView& header : event.headers) {
    size += header.name.size() + header.value.size();
  }
  bytes_ = std::make_unique_for_overwrite<char[]>(size + 1);
  char* at = bytes_.get();
  const auto keep = [&](std::string_view view) {
    if (!view.empty()) { std::memcpy(at, view.data(), view.size()); }
    const std::string_view kept(at, view.size());
    at += view.size();
    return kept;
  };
  for (std::string_view* view : views) { *view = keep(*view); }
  for (const HeaderView& header : event.headers) {
    headers_.push_back({keep(header.name), keep(header.value)});
  }
  event_.headers = headers_;
}

std::optional<std::string> query_field(std::string_view query, std::string_view name) {
  std::optional<std::string> found;
  while (!query.empty()) {
    const std::size_t end = query.find('&');
    const std::string_view pair = query.substr(0, end);
    query = end == std::string_view::npos ? std::string_view() : query.substr(end + 1);
    const std::size_t equals = pair.find('=');
    if (decoded(pair.substr(0, equals)) == name) {
      found = equals == std::string_view::npos ? std::string() : decoded(pair.substr(equals + 1));
    }
  }
  return found;
}

const HeaderView* find_header(const Event& event, std::string_view name) {
  for (const HeaderView& header : event.headers) {
    if (header.name.size() == name.size() && lower_case(header.name) == lower_case(name)) {
      return &header;
    }
  }
  return nullptr;
}

}  // namespace metier::realtime
