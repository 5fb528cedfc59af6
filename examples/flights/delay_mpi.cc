// The linear delay model of delay_mpi.py as a native handler over MPI: the same steps, the same result.
//
//   metier build delay_mpi.cc -- $(mpicxx --showme:compile) $(mpicxx --showme:link)
//   metier run delay_mpi.so:fit --kind mpijob --replicas 3 -i flights=flights.csv.zip
#include <metier/handler.h>
#include <mpi.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

namespace {

constexpr double kStep = 0.3;
using Row = std::array<double, 4>;

// The n-th comma-separated field of a line without quotes.
std::string_view field(std::string_view line, int n) {
  for (; n > 0; --n) {
    const auto comma = line.find(',');
    if (comma == std::string_view::npos) { return {}; }
    line.remove_prefix(comma + 1);
  }
  return line.substr(0, line.find(','));
}

double number(std::string_view line, int n) {
  return std::atof(std::string(field(line, n)).c_str());
}

struct Data {
  std::vector<Row> features;
  std::vector<double> delays;
};

// Columns: 1 month, 8 arr_delay, 15 distance, 16 hour.
bool load(const std::string& path, int rank, int size, Data& out) {
  const std::string command =
      "python3 -c 'import sys,zipfile;z=zipfile.ZipFile(sys.argv[1]);"
      "sys.stdout.buffer.write(z.read(z.namelist()[0]))' '" +
      path + "'";
  std::FILE* lines = popen(command.c_str(), "r");
  if (lines == nullptr) { return false; }
  char line[4096];
  for (long n = -1; std::fgets(line, sizeof line, lines) != nullptr; ++n) {
    if (n < 0 || n % size != rank) { continue; }
    const auto delay = field(line, 8);
    if (delay.empty() || delay == "NA") { continue; }
    out.features.push_back({1.0, (number(line, 16) - 13) / 5, number(line, 15) / 1000 - 1,
                            (number(line, 1) - 6.5) / 3.5});
    out.delays.push_back(std::min(std::atof(std::string(delay).c_str()), 180.0));
  }
  return pclose(lines) == 0;
}

double predict(const Row& row, const Row& coefficients) {
  double out = 0;
  for (int i = 0; i < 4; ++i) { out += row[i] * coefficients[i]; }
  return out;
}

}  // namespace

METIER_HANDLER(fit, [](metier::Context& context) {
  const std::string path = context.get_input("flights");
  int ready = 0;
  MPI_Initialized(&ready);
  if (ready == 0) { MPI_Init(nullptr, nullptr); }
  int rank = 0;
  int size = 1;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  Data data;
  if (!load(path, rank, size, data)) { return metier::error("flights cannot be read"); }
  long mine = static_cast<long>(data.delays.size());
  long rows = 0;
  MPI_Allreduce(&mine, &rows, 1, MPI_LONG, MPI_SUM, MPI_COMM_WORLD);
  if (rows == 0) { return metier::error("flights has no arrivals"); }
  Row coefficients{};
  for (int step = 0; step < 60; ++step) {
    Row gradient{};
    Row total{};
    for (std::size_t i = 0; i < data.delays.size(); ++i) {
      const double off = predict(data.features[i], coefficients) - data.delays[i];
      for (int k = 0; k < 4; ++k) { gradient[k] += data.features[i][k] * off; }
    }
    MPI_Allreduce(gradient.data(), total.data(), 4, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
    for (int k = 0; k < 4; ++k) { coefficients[k] -= kStep * total[k] / static_cast<double>(rows); }
  }
  double square = 0;
  double all = 0;
  for (std::size_t i = 0; i < data.delays.size(); ++i) {
    const double off = predict(data.features[i], coefficients) - data.delays[i];
    square += off * off;
  }
  MPI_Allreduce(&square, &all, 1, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
  MPI_Finalize();
  // Every rank logs; what ranks other than 0 say is not kept.
  context.log_result("arrivals", rows);
  context.log_result("ranks", static_cast<long>(size));
  context.log_result("c0", coefficients[0]);
  context.log_result("c1", coefficients[1]);
  context.log_result("c2", coefficients[2]);
  context.log_result("c3", coefficients[3]);
  context.log_result("rms_error_minutes", std::sqrt(all / static_cast<double>(rows)));
  return metier::ok();
});
