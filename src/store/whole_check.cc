#include "store/whole_check.h"

#include <fmt/format.h>
#include <sqlite3.h>
#include <sys/resource.h>

#include <vector>

#include "store/sqlite.h"

namespace metier {
namespace {

constexpr int kStepsBetweenLooks = 10'000;

int asked_to_stop(void* stop) { return static_cast<std::atomic<bool>*>(stop)->load() ? 1 : 0; }

}  // namespace

Result<void> quick_check(Database& database, const std::string& path, const std::string& table) {
  METIER_TRY(q, database.query(table.empty() ? std::string("PRAGMA quick_check(1)")
                                             : fmt::format("PRAGMA quick_check('{}')", table)));
  auto row = q.step();
  if (row && *row && q.text(0) == "ok") { return {}; }
  const std::string why = row && *row ? q.text(0) : row ? "no answer" : row.error().message;
  return fail(Error{.kind = ErrorKind::invalid,
                    .message = fmt::format("{} is damaged: {}", path, why),
                    .field = "data_dir",
                    .fix = "restore a copy of the file; nothing was changed",
                    .code = "Damaged"});
}

WholeCheck::WholeCheck(std::string path, std::function<void(Error)> damaged)
    : path_(std::move(path)), damaged_(std::move(damaged)), thread_([this] {
        ::setpriority(PRIO_PROCESS, 0, 19);  // of this thread alone
        auto fine = look();
        if (!fine && !stop_) { damaged_(std::move(fine.error())); }
      }) {}

WholeCheck::~WholeCheck() {
  stop_ = true;
  thread_.join();
}

Result<void> WholeCheck::look() {
  METIER_TRY(database, Database::open(path_, Database::Mode::read));
  METIER_CHECK(database->execute("PRAGMA cache_size=-512"));
  sqlite3_progress_handler(database->raw(), kStepsBetweenLooks, asked_to_stop, &stop_);
  std::vector<std::string> tables;
  {
    METIER_TRY(q, database->query("SELECT name FROM sqlite_schema WHERE type = 'table'"));
    while (true) {
      METIER_TRY(more, q.step());
      if (!more) { break; }
      tables.push_back(q.text(0));
    }
  }
  for (const auto& table : tables) {
    if (stop_) { return {}; }
    METIER_CHECK(quick_check(*database, path_, table));
  }
  return {};
}

}  // namespace metier
