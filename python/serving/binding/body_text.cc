#include "body_text.h"

#include <algorithm>
#include <string>

#include "event.h"
#include "flow.h"
#include "json_text.h"
#include "serving/json_members.h"

namespace metier::serving::python {
namespace {

// The bytes of a str or of bytes; nothing, without an exception, where there are none.
std::string_view bytes_of(PyObject* text) {
  Py_ssize_t size = 0;
  if (PyUnicode_Check(text)) {
    const char* data = PyUnicode_AsUTF8AndSize(text, &size);
    if (data != nullptr) { return {data, static_cast<std::size_t>(size)}; }
  } else if (char* data = nullptr; PyBytes_AsStringAndSize(text, &data, &size) == 0) {
    return {data, static_cast<std::size_t>(size)};
  }
  PyErr_Clear();
  return {};
}

}  // namespace

std::unique_ptr<BodyText> BodyText::of(PyObject* text) {
  const std::string_view bytes = bytes_of(text);
  if (bytes.size() < kMembersFrom || bytes.size() > kMembersTo) { return nullptr; }
  const auto members = json_members(bytes);
  if (!members) { return nullptr; }
  auto out = std::make_unique<BodyText>();
  out->source_ = Ref::of(text);
  out->members_.reserve(members->size() + 1);
  for (const JsonMember& member : *members) {
    out->members_.push_back({.key = member.key, .text = member.value, .name = {}, .put = {}});
  }
  return out;
}

std::unique_ptr<BodyText> BodyText::clone() const {
  auto out = std::make_unique<BodyText>(*this);
  for (Member& member : out->members_) {
    if (!member.put) { continue; }
    member.put = Ref(clone_body(member.put.get()));
    if (!member.put) { return nullptr; }
  }
  return out;
}

const BodyText::Member* BodyText::find(std::string_view key) const {
  const auto found = std::ranges::find(members_, key, &Member::key);
  return found == members_.end() ? nullptr : &*found;
}

bool BodyText::has(PyObject* key) const { return find(bytes_of(key)) != nullptr; }

PyObject* BodyText::at(const std::vector<Ref>& path) const {
  const Member* member = find(bytes_of(path[0].get()));
  if (member == nullptr) { return Ref::of(Py_None).release(); }
  if (member->put) { return value_at(path, 1, member->put.get()); }
  std::size_t names = 1;
  const auto text = descend(member->text, names, path.size(),
                            [&](std::size_t i) { return bytes_of(path[i].get()); });
  if (!text) { return Ref::of(Py_None).release(); }
  const Ref value(decode_text(*text));
  return value ? value_at(path, names, value.get()) : nullptr;
}

void BodyText::put(PyObject* key, PyObject* value) {
  const std::string_view name = bytes_of(key);
  if (const Member* found = find(name)) {
    members_[static_cast<std::size_t>(found - members_.data())].put = Ref::of(value);
  } else {
    members_.push_back({.key = name, .text = {}, .name = Ref::of(key), .put = Ref::of(value)});
  }
}

int BodyText::traverse(visitproc visit, void* arg) const {
  for (const Member& member : members_) { Py_VISIT(member.put.get()); }
  return 0;
}

PyObject* BodyText::value() const {
  Ref out(PyDict_New());
  for (const Member& member : members_) {
    const Ref key(
        PyUnicode_FromStringAndSize(member.key.data(), static_cast<Py_ssize_t>(member.key.size())));
    const Ref value(member.put ? Ref(member.put) : Ref(decode_text(member.text)));
    if (!out || !key || !value || PyDict_SetItem(out.get(), key.get(), value.get()) != 0) {
      return nullptr;
    }
  }
  return out.release();
}

PyObject* BodyText::dump() const {
  std::string out = "{";
  const auto add = [&](PyObject* value) {
    const Ref text(value == nullptr ? nullptr : encode_json(value));
    if (text) { out += bytes_of(text.get()); }
    return static_cast<bool>(text);
  };
  for (const Member& member : members_) {
    if (out.size() > 1) { out += ", "; }
    const Ref key(
        PyUnicode_FromStringAndSize(member.key.data(), static_cast<Py_ssize_t>(member.key.size())));
    if (!add(key.get())) { return nullptr; }
    out += ": ";
    if (!member.put) {
      out += member.text;
    } else if (!add(member.put.get())) {
      return nullptr;
    }
  }
  out += '}';
  return PyUnicode_FromStringAndSize(out.data(), static_cast<Py_ssize_t>(out.size()));
}

}  // namespace metier::serving::python
