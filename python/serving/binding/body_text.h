// A JSON object of which no step has asked for the values yet: its members as texts, and what steps have put in their place.
#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "py.h"

namespace metier::serving::python {

class BodyText {
 public:
  // `text` is str or bytes. Null, without an exception: it is to be read whole.
  static std::unique_ptr<BodyText> of(PyObject* text);
  // Another one, independent of what steps have put into this; null with an exception.
  std::unique_ptr<BodyText> clone() const;
  bool has(PyObject* key) const;
  bool full() const { return !members_.empty(); }
  // The value at a path of one name or more, as `value_at` gives it of the dict. New reference.
  PyObject* at(const std::vector<Ref>& path) const;
  void put(PyObject* key, PyObject* value);
  PyObject* value() const;  // the dict. New reference.
  int traverse(visitproc visit, void* arg) const;
  PyObject* dump() const;  // its text, as str; untouched members as they came. New reference.

 private:
  struct Member {
    std::string_view key;   // of `source_`, or of `name`
    std::string_view text;  // of `source_`
    Ref name;               // set with `put`, or null
    Ref put;                // null: `text`
  };
  const Member* find(std::string_view key) const;

  Ref source_;
  std::vector<Member> members_;
};

}  // namespace metier::serving::python
