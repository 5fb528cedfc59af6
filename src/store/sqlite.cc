#include "store/sqlite.h"

#include <fmt/format.h>
#include <sqlite3.h>

namespace metier {

Error sqlite_error(sqlite3* db, int code, std::string_view what) {
  const int primary = code & 0xff;
  Error error{.kind = ErrorKind::internal,
              .message = fmt::format("{}: {}", what,
                                     db == nullptr ? sqlite3_errstr(code) : sqlite3_errmsg(db))};
  if (primary == SQLITE_FULL) {
    error.kind = ErrorKind::unavailable;
    error.code = "NoSpace";
    error.field = "data_dir";
    error.fix = "free disk space in the data folder; nothing needs a restart";
  } else if (primary == SQLITE_CORRUPT || primary == SQLITE_NOTADB) {
    error.kind = ErrorKind::invalid;
    error.code = "Damaged";
    error.fix = "restore a copy of metier.db; the damaged file was not changed";
  } else if (primary == SQLITE_IOERR || primary == SQLITE_READONLY || primary == SQLITE_CANTOPEN ||
             primary == SQLITE_BUSY) {
    error.kind = ErrorKind::unavailable;
    error.code = "StoreUnavailable";
  }
  return error;
}

Query::Query(Query&& other) noexcept
    : db_(other.db_), statement_(other.statement_), next_(other.next_) {
  other.statement_ = nullptr;
}

Query::~Query() {
  if (statement_ != nullptr) {
    sqlite3_reset(statement_);
    sqlite3_clear_bindings(statement_);
  }
}

// Bound texts and blobs are copied: callers bind temporaries.
Query& Query::bind(std::string_view text) {
  sqlite3_bind_text64(statement_, next_++, text.data() == nullptr ? "" : text.data(), text.size(),
                      SQLITE_TRANSIENT, SQLITE_UTF8);
  return *this;
}
Query& Query::bind(std::int64_t value) {
  sqlite3_bind_int64(statement_, next_++, value);
  return *this;
}
Query& Query::bind_blob(std::string_view bytes) {
  sqlite3_bind_blob64(statement_, next_++, bytes.data() == nullptr ? "" : bytes.data(),
                      bytes.size(), SQLITE_TRANSIENT);
  return *this;
}
Query& Query::bind_null() {
  sqlite3_bind_null(statement_, next_++);
  return *this;
}
Query& Query::bind(const std::optional<std::int64_t>& value) {
  return value ? bind(*value) : bind_null();
}

Result<bool> Query::step() {
  const int code = sqlite3_step(statement_);
  if (code == SQLITE_ROW) { return true; }
  if (code == SQLITE_DONE) { return false; }
  return fail(sqlite_error(db_, code, "store"));
}

Result<void> Query::run() {
  while (true) {
    METIER_TRY(more, step());
    if (!more) { return {}; }
  }
}

std::string Query::text(int column) const {
  const auto* bytes = static_cast<const char*>(sqlite3_column_blob(statement_, column));
  return bytes == nullptr
             ? std::string()
             : std::string(bytes,
                           static_cast<std::size_t>(sqlite3_column_bytes(statement_, column)));
}
std::int64_t Query::integer(int column) const { return sqlite3_column_int64(statement_, column); }
bool Query::is_null(int column) const {
  return sqlite3_column_type(statement_, column) == SQLITE_NULL;
}

Result<std::unique_ptr<Database>> Database::open(const std::string& path, Mode mode) {
  sqlite3* db = nullptr;
  const int flags =
      mode == Mode::write ? SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE : SQLITE_OPEN_READWRITE;
  const int code = sqlite3_open_v2(path.c_str(), &db, flags | SQLITE_OPEN_NOMUTEX, nullptr);
  std::unique_ptr<Database> out(new Database(db));
  if (code != SQLITE_OK) { return fail(sqlite_error(db, code, path)); }
  sqlite3_extended_result_codes(db, 1);
  sqlite3_busy_timeout(db, 5000);
  sqlite3_db_config(db, SQLITE_DBCONFIG_DEFENSIVE, 1, nullptr);
  // Plans do not depend on bound values: without it a bound LIMIT makes SQLite prepare the statement again each time.
  sqlite3_db_config(db, SQLITE_DBCONFIG_ENABLE_QPSG, 1, nullptr);
  METIER_CHECK(
      out->execute("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON; "
                   "PRAGMA trusted_schema=OFF; "
                   "PRAGMA cell_size_check=ON; PRAGMA mmap_size=0; PRAGMA temp_store=MEMORY; "
                   "PRAGMA cache_size=-8000"));
  if (mode == Mode::read) {
    // Checkpoints are the writer's alone: two connections that write and checkpoint at once have corrupted files.
    METIER_CHECK(out->execute("PRAGMA wal_autocheckpoint=0; PRAGMA query_only=ON"));
  }
  return out;
}

Database::~Database() {
  for (auto& [sql, statement] : statements_) { sqlite3_finalize(statement); }
  sqlite3_close_v2(db_);
}

Result<void> Database::execute(const std::string& sql) {
  const int code = sqlite3_exec(db_, sql.c_str(), nullptr, nullptr, nullptr);
  if (code != SQLITE_OK) { return fail(sqlite_error(db_, code, "store")); }
  return {};
}

Result<void> Database::run(std::string_view sql) {
  METIER_TRY(q, query(sql));
  return q.run();
}

Result<Query> Database::query(std::string_view sql) {
  const auto found = statements_.find(sql);
  if (found != statements_.end() && sqlite3_stmt_busy(found->second) == 0) {
    return Query(db_, found->second);
  }
  sqlite3_stmt* statement = nullptr;
  const int code = sqlite3_prepare_v3(db_, sql.data(), static_cast<int>(sql.size()),
                                      SQLITE_PREPARE_PERSISTENT, &statement, nullptr);
  if (code != SQLITE_OK) { return fail(sqlite_error(db_, code, "store")); }
  if (found != statements_.end() || statements_.size() > 400) {
    // In use further up, or too many shapes of filters: forget the old one when it is free.
    for (auto it = statements_.begin(); it != statements_.end();) {
      if (sqlite3_stmt_busy(it->second) == 0 && it->first != sql) {
        sqlite3_finalize(it->second);
        it = statements_.erase(it);
      } else {
        ++it;
      }
    }
  }
  if (!statements_.emplace(std::string(sql), statement).second) {
    statements_.emplace(
        std::string(sql) + " --" + std::to_string(reinterpret_cast<std::uintptr_t>(statement)),
        statement);
  }
  return Query(db_, statement);
}

Result<std::int64_t> Database::pragma(const std::string& name) {
  METIER_TRY(q, query("PRAGMA " + name));
  METIER_TRY(row, q.step());
  return row ? q.integer(0) : 0;
}

std::int64_t Database::last_id() const { return sqlite3_last_insert_rowid(db_); }
void Database::shrink() { sqlite3_db_release_memory(db_); }
std::int64_t Database::changed() const { return sqlite3_changes64(db_); }
bool Database::in_transaction() const { return sqlite3_get_autocommit(db_) == 0; }

}  // namespace metier
