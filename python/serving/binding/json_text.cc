#include "json_text.h"

#include <yyjson.h>

#include <charconv>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>

namespace metier::serving::python {
namespace {

constexpr int kDepth = 200;

PyObject* json_function(const char* name) {
  const Ref module(PyImport_ImportModule("json"));
  return module ? PyObject_GetAttrString(module.get(), name) : nullptr;
}

PyObject* to_python(yyjson_val* value, int depth);

PyObject* to_dict(yyjson_val* value, int depth) {
  Ref out(PyDict_New());
  yyjson_obj_iter iter = yyjson_obj_iter_with(value);
  for (yyjson_val* key = yyjson_obj_iter_next(&iter); out && key != nullptr;
       key = yyjson_obj_iter_next(&iter)) {
    const Ref name(PyUnicode_FromStringAndSize(yyjson_get_str(key),
                                               static_cast<Py_ssize_t>(yyjson_get_len(key))));
    const Ref item(to_python(yyjson_obj_iter_get_val(key), depth + 1));
    if (!name || !item || PyDict_SetItem(out.get(), name.get(), item.get()) != 0) {
      return nullptr;
    }
  }
  return out.release();
}

PyObject* to_list(yyjson_val* value, int depth) {
  Ref out(PyList_New(static_cast<Py_ssize_t>(yyjson_arr_size(value))));
  yyjson_arr_iter iter = yyjson_arr_iter_with(value);
  Py_ssize_t at = 0;
  for (yyjson_val* item = yyjson_arr_iter_next(&iter); out && item != nullptr;
       item = yyjson_arr_iter_next(&iter)) {
    PyObject* made = to_python(item, depth + 1);
    if (made == nullptr || PyList_SetItem(out.get(), at++, made) != 0) { return nullptr; }
  }
  return out.release();
}

PyObject* constant(PyObject* value) {
  Py_INCREF(value);
  return value;
}

// Null without an exception: too deep, json.loads decides.
PyObject* to_python(yyjson_val* value, int depth) {
  if (depth > kDepth) { return nullptr; }
  switch (yyjson_get_type(value)) {
    case YYJSON_TYPE_STR:
      return PyUnicode_FromStringAndSize(yyjson_get_str(value),
                                         static_cast<Py_ssize_t>(yyjson_get_len(value)));
    case YYJSON_TYPE_NUM:
      switch (yyjson_get_subtype(value)) {
        case YYJSON_SUBTYPE_UINT: return PyLong_FromUnsignedLongLong(yyjson_get_uint(value));
        case YYJSON_SUBTYPE_SINT: return PyLong_FromLongLong(yyjson_get_sint(value));
        default: return PyFloat_FromDouble(yyjson_get_real(value));
      }
    case YYJSON_TYPE_OBJ: return to_dict(value, depth);
    case YYJSON_TYPE_ARR: return to_list(value, depth);
    case YYJSON_TYPE_BOOL: return constant(yyjson_get_bool(value) ? Py_True : Py_False);
    case YYJSON_TYPE_NULL: return constant(Py_None);
    default: return nullptr;  // a number of more than 64 bits: json.loads reads it
  }
}

PyObject* slow_decode(PyObject* text) {
  static PyObject* loads = json_function("loads");
  return loads == nullptr ? nullptr : call_one(loads, text);
}

// Writes what is plainly JSON; false: json.dumps shall do all of it.
class Writer {
 public:
  bool write(PyObject* value, int depth = 0) {
    if (PyUnicode_CheckExact(value)) { return text(value); }
    if (PyBool_Check(value)) {
      out_ += value == Py_True ? "true" : "false";
      return true;
    }
    if (PyLong_CheckExact(value)) { return integer(value); }
    if (PyFloat_CheckExact(value)) { return real(value); }
    if (value == Py_None) {
      out_ += "null";
      return true;
    }
    if (depth > kDepth) { return false; }
    if (PyDict_CheckExact(value)) { return object(value, depth); }
    if (PyList_CheckExact(value)) { return list(value, depth, PyList_Size(value), PyList_GetItem); }
    if (PyTuple_CheckExact(value)) {
      return list(value, depth, PyTuple_Size(value), PyTuple_GetItem);
    }
    return false;
  }
  const std::string& out() const { return out_; }

 private:
  bool text(PyObject* value) {
    Py_ssize_t size = 0;
    const char* data = PyUnicode_AsUTF8AndSize(value, &size);
    if (data == nullptr) {  // a lone surrogate
      PyErr_Clear();
      return false;
    }
    out_ += '"';
    for (Py_ssize_t i = 0; i < size; ++i) {
      const auto byte = static_cast<unsigned char>(data[i]);
      if (byte >= 0x80U) {
        i = wide(data, i);
        continue;
      }
      if (byte >= 0x20U && byte != '"' && byte != '\\' && byte != 0x7F) {
        out_ += static_cast<char>(byte);
      } else {
        escape(byte);
      }
    }
    out_ += '"';
    return true;
  }
  // A character beyond ASCII as \uXXXX, in a pair beyond 16 bits; Python's UTF-8 is always well formed. Gives its last byte's place.
  Py_ssize_t wide(const char* data, Py_ssize_t i) {
    const auto at = [&](Py_ssize_t k) {
      return static_cast<std::uint32_t>(static_cast<unsigned char>(data[k]));
    };
    std::uint32_t code = at(i);
    const int more = code >= 0xF0U ? 3 : code >= 0xE0U ? 2 : 1;
    code &= 0x3FU >> static_cast<unsigned>(more);
    for (int k = 1; k <= more; ++k) { code = code << 6U | (at(i + k) & 0x3FU); }
    if (code >= 0x10000U) {
      unit(0xD800U + ((code - 0x10000U) >> 10U));
      unit(0xDC00U + ((code - 0x10000U) & 0x3FFU));
    } else {
      unit(code);
    }
    return i + more;
  }
  void unit(std::uint32_t code) {
    constexpr std::string_view kHex = "0123456789abcdef";
    out_ += "\\u";
    for (int shift = 12; shift >= 0; shift -= 4) {
      out_ += kHex[code >> static_cast<unsigned>(shift) & 15U];
    }
  }
  void escape(unsigned char byte) {
    switch (byte) {
      case '"': out_ += "\\\""; break;
      case '\\': out_ += "\\\\"; break;
      case '\n': out_ += "\\n"; break;
      case '\r': out_ += "\\r"; break;
      case '\t': out_ += "\\t"; break;
      case '\b': out_ += "\\b"; break;
      case '\f': out_ += "\\f"; break;
      default: {
        constexpr std::string_view kHex = "0123456789abcdef";
        out_ += "\\u00";
        out_ += kHex[byte >> 4U];
        out_ += kHex[byte & 15U];
      }
    }
  }
  bool integer(PyObject* value) {
    int overflow = 0;
    const long long number = PyLong_AsLongLongAndOverflow(value, &overflow);
    if (overflow != 0) { return false; }
    char buffer[24];
    out_.append(buffer, std::to_chars(buffer, buffer + sizeof buffer, number).ptr);
    return true;
  }
  bool real(PyObject* value) {
    const double number = PyFloat_AsDouble(value);
    if (!std::isfinite(number)) {
      out_ += std::isnan(number) ? "NaN" : number > 0 ? "Infinity" : "-Infinity";
      return true;
    }
    // repr: the shortest digits; plain between 1e-4 and 1e16
    char buffer[40];
    const double size = std::fabs(number);
    const bool plain = size == 0 || (size >= 1e-4 && size < 1e16);
    const auto end =
        plain ? std::to_chars(buffer, buffer + sizeof buffer, number, std::chars_format::fixed).ptr
              : std::to_chars(buffer, buffer + sizeof buffer, number, std::chars_format::scientific)
                    .ptr;
    const std::string_view made(buffer, static_cast<std::size_t>(end - buffer));
    out_ += made;
    if (plain && made.find('.') == std::string_view::npos) { out_ += ".0"; }
    return true;
  }
  bool object(PyObject* value, int depth) {
    out_ += '{';
    PyObject *key = nullptr, *item = nullptr;
    Py_ssize_t at = 0;
    bool first = true;
    while (PyDict_Next(value, &at, &key, &item) != 0) {
      if (!PyUnicode_CheckExact(key)) { return false; }
      if (!first) { out_ += ", "; }
      first = false;
      if (!text(key)) { return false; }
      out_ += ": ";
      if (!write(item, depth + 1)) { return false; }
    }
    out_ += '}';
    return true;
  }
  template <class Get>
  bool list(PyObject* value, int depth, Py_ssize_t size, Get get) {
    out_ += '[';
    for (Py_ssize_t i = 0; i < size; ++i) {
      if (i > 0) { out_ += ", "; }
      if (!write(get(value, i), depth + 1)) { return false; }
    }
    out_ += ']';
    return true;
  }
  std::string out_;
};

}  // namespace

PyObject* decode_json(PyObject* text) {
  const char* data = nullptr;
  Py_ssize_t size = 0;
  if (PyUnicode_Check(text)) {
    data = PyUnicode_AsUTF8AndSize(text, &size);
    if (data == nullptr) { PyErr_Clear(); }
  } else if (PyBytes_Check(text)) {
    char* bytes = nullptr;
    if (PyBytes_AsStringAndSize(text, &bytes, &size) != 0) { return nullptr; }
    data = bytes;
  }
  if (data == nullptr) { return slow_decode(text); }
  yyjson_doc* doc = yyjson_read(data, static_cast<std::size_t>(size), YYJSON_READ_BIGNUM_AS_RAW);
  if (doc == nullptr) { return slow_decode(text); }
  PyObject* value = to_python(yyjson_doc_get_root(doc), 0);
  yyjson_doc_free(doc);
  return value != nullptr || PyErr_Occurred() != nullptr ? value : slow_decode(text);
}

PyObject* decode_text(std::string_view text) {
  yyjson_doc* doc = yyjson_read(text.data(), text.size(), YYJSON_READ_BIGNUM_AS_RAW);
  PyObject* value = doc == nullptr ? nullptr : to_python(yyjson_doc_get_root(doc), 0);
  yyjson_doc_free(doc);
  if (value != nullptr || PyErr_Occurred() != nullptr) { return value; }
  const Ref whole(PyUnicode_FromStringAndSize(text.data(), static_cast<Py_ssize_t>(text.size())));
  return whole ? slow_decode(whole.get()) : nullptr;
}

PyObject* encode_json(PyObject* value) {
  Writer writer;
  if (writer.write(value)) {
    return PyUnicode_FromStringAndSize(writer.out().data(),
                                       static_cast<Py_ssize_t>(writer.out().size()));
  }
  static PyObject* dumps = json_function("dumps");
  return dumps == nullptr ? nullptr : call_one(dumps, value);
}

}  // namespace metier::serving::python
