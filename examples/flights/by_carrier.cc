// Mean departure delay by carrier over the whole year, as a native handler.
//
//   metier build by_carrier.cc
//   metier run by_carrier.so:by_carrier --kind job -i flights=flights.csv
#include <metier/handler.h>

#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>
#include <string_view>

namespace {

// The n-th comma-separated field of a line without quotes.
std::string_view field(std::string_view line, int n) {
  for (; n > 0; --n) {
    const auto comma = line.find(',');
    if (comma == std::string_view::npos) { return {}; }
    line.remove_prefix(comma + 1);
  }
  return line.substr(0, line.find(','));
}

struct Sum {
  double minutes = 0;
  long flights = 0;
};

}  // namespace

METIER_HANDLER(by_carrier, [](metier::Context& context) {
  const std::string path = context.get_input("flights");
  // The file comes zipped; popen keeps this example free of libraries.
  const std::string command = path.size() > 4 && path.substr(path.size() - 4) == ".zip"
                                  ? "python3 -c 'import sys,zipfile;z=zipfile.ZipFile(sys.argv[1]);"
                                    "sys.stdout.buffer.write(z.read(z.namelist()[0]))' '" +
                                        path + "'"
                                  : "cat '" + path + "'";
  std::FILE* lines = popen(command.c_str(), "r");
  if (lines == nullptr) { return metier::error("flights cannot be read"); }
  std::map<std::string, Sum> carriers;
  char line[4096];
  long total = 0;
  while (std::fgets(line, sizeof line, lines) != nullptr) {
    const auto delay = field(line, 5);
    if (delay.empty() || delay == "NA" || delay == "dep_delay") { continue; }
    auto& sum = carriers[std::string(field(line, 9))];
    sum.minutes += std::atof(std::string(delay).c_str());
    ++sum.flights;
    ++total;
  }
  if (pclose(lines) != 0 || total == 0) { return metier::error("flights has no departures"); }
  std::string worst;
  for (const auto& [carrier, sum] : carriers) {
    if (worst.empty() ||
        sum.minutes / sum.flights > carriers[worst].minutes / carriers[worst].flights) {
      worst = carrier;
    }
  }
  context.log_result("departures", total);
  context.log_result("carriers", static_cast<long>(carriers.size()));
  context.log_result("worst_carrier", worst);
  context.log_result("worst_mean_delay", carriers[worst].minutes / carriers[worst].flights);
  return metier::ok();
});
