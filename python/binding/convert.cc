#include "convert.h"

namespace metier::python {
namespace {

constexpr int kDepth = 128;

Json convert(nb::handle value, const std::string& field, int depth);

Json integer(nb::handle value, const std::string& field) {
  int overflow = 0;
  const long long number = PyLong_AsLongLongAndOverflow(value.ptr(), &overflow);
  if (overflow != 0) {
    raise(invalid(field,
                  quote(nb::str(value).c_str()) +
                      (overflow > 0 ? " is larger than 2^63 - 1" : " is smaller than -2^63"),
                  "pass it as text"));
  }
  return Json(static_cast<std::int64_t>(number));
}

std::string text(nb::handle value, const std::string& field) {
  Py_ssize_t size = 0;
  const char* data = PyUnicode_AsUTF8AndSize(value.ptr(), &size);
  if (data == nullptr) {
    PyErr_Clear();
    raise(invalid(field, "the text is not Unicode (it has a lone surrogate)"));
  }
  return {data, static_cast<std::size_t>(size)};
}

Json mapping(nb::handle value, const std::string& field, int depth) {
  JsonObject out;
  const nb::object items = nb::steal(PyMapping_Items(value.ptr()));
  if (!items.is_valid()) { throw nb::python_error(); }
  for (nb::handle item : items) {
    const nb::handle key = item[0];
    const std::string name = text(nb::str(key), field);
    out[name] = convert(item[1], field + "." + name, depth + 1);
  }
  return Json(std::move(out));
}

Json sequence(nb::handle value, const std::string& field, int depth) {
  JsonArray out;
  for (nb::handle item : value) {
    out.push_back(convert(item, field + "[" + std::to_string(out.size()) + "]", depth + 1));
  }
  return Json(std::move(out));
}

Json convert(nb::handle value, const std::string& field, int depth) {
  if (depth > kDepth) { raise(invalid(field, "nested deeper than 128 levels")); }
  PyObject* object = value.ptr();
  if (value.is_none()) { return nullptr; }
  if (PyBool_Check(object)) { return Json(object == Py_True); }
  if (PyLong_Check(object)) { return integer(value, field); }
  if (PyFloat_Check(object)) { return Json(PyFloat_AsDouble(object)); }
  if (PyUnicode_Check(object)) { return Json(text(value, field)); }
  if (PyDict_Check(object) || nb::hasattr(value, "items")) { return mapping(value, field, depth); }
  if (nb::hasattr(
          value,
          "to_dict")) {  // our own objects, and those of other libraries that follow the same form
    return convert(value.attr("to_dict")(), field, depth + 1);
  }
  if (PyList_Check(object) || PyTuple_Check(object) || PyAnySet_Check(object) ||
      (PySequence_Check(object) && !PyBytes_Check(object))) {
    return sequence(value, field, depth);
  }
  if (nb::hasattr(value, "__fspath__")) { return Json(text(value.attr("__fspath__")(), field)); }
  if (PyIndex_Check(object)) {  // numpy's integers
    return integer(nb::steal(PyNumber_Index(object)), field);
  }
  if (nb::hasattr(value, "__float__")) { return Json(PyFloat_AsDouble(object)); }
  raise(invalid(field,
                "a value of type " + quote(nb::str(nb::type_name(value.type())).c_str()) +
                    " cannot be kept in a document",
                "use text, numbers, lists and dicts"));
}

}  // namespace

nb::object to_python(const Json& value) {
  switch (value.kind()) {
    case boost::json::kind::null: return nb::none();
    case boost::json::kind::bool_: return nb::bool_(value.get_bool());
    case boost::json::kind::int64: return nb::int_(value.get_int64());
    case boost::json::kind::uint64: return nb::int_(value.get_uint64());
    case boost::json::kind::double_: return nb::float_(value.get_double());
    case boost::json::kind::string:
      return nb::str(value.get_string().data(), value.get_string().size());
    case boost::json::kind::array: {
      nb::list out;
      for (const Json& item : value.get_array()) { out.append(to_python(item)); }
      return out;
    }
    case boost::json::kind::object: {
      nb::dict out;
      for (const auto& member : value.get_object()) {
        out[nb::str(member.key().data(), member.key().size())] = to_python(member.value());
      }
      return out;
    }
  }
  return nb::none();
}

Json from_python(nb::handle value, const std::string& field) { return convert(value, field, 0); }

NodeSelection selection_of(const std::string& node_name, nb::handle node_selector,
                           nb::handle affinity, nb::handle tolerations) {
  return {.node_name = node_name,
          .node_selector = from_python(node_selector, "node_selector"),
          .affinity = from_python(affinity, "affinity"),
          .tolerations = from_python(tolerations, "tolerations")};
}

JsonObject object_of(nb::handle value, const std::string& field) {
  Json json = from_python(value, field);
  if (json.is_null()) { return {}; }
  if (!json.is_object()) {
    raise(invalid(field, "expected a dict, got a " + std::string(type_name(json))));
  }
  return std::move(json.get_object());
}

void raise(const Error& error) {
  nb::object exception =
      nb::module_::import_("metier.errors")
          .attr("make_error")(std::string_view(to_string(error.kind)).data(), error.message.c_str(),
                              error.code.c_str(), error.field.c_str(), error.fix.c_str());
  PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(exception.ptr())), exception.ptr());
  throw nb::python_error();
}

}  // namespace metier::python
