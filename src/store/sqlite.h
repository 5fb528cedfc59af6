// A thin wrapper over the SQLite C API: a connection with a cache of prepared statements, errors as values.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>

#include "base/result.h"

struct sqlite3;
struct sqlite3_stmt;

namespace metier {

// Binds parameters in order, steps, reads columns. Reset when it goes out of scope (it returns to the cache).
class Query final {
 public:
  Query(sqlite3* db, sqlite3_stmt* statement) : db_(db), statement_(statement) {}
  Query(Query&& other) noexcept;
  Query& operator=(Query&&) = delete;
  ~Query();

  Query& bind(std::string_view text);
  Query& bind(const char* text) { return bind(std::string_view(text)); }
  Query& bind(const std::string& text) { return bind(std::string_view(text)); }
  Query& bind(std::int64_t value);
  Query& bind(int value) { return bind(static_cast<std::int64_t>(value)); }
  Query& bind_blob(std::string_view bytes);
  Query& bind_null();
  Query& bind(const std::optional<std::int64_t>& value);

  Result<bool> step();  // true: a row is there
  Result<void> run();   // to the end
  std::string text(int column) const;
  std::int64_t integer(int column) const;
  bool is_null(int column) const;

 private:
  sqlite3* db_;
  sqlite3_stmt* statement_;
  int next_ = 1;
};

class Database final {
 public:
  enum class Mode { write, read };
  // Errors: invalid (damaged, no database), unavailable (the disk).
  static Result<std::unique_ptr<Database>> open(const std::string& path, Mode mode);
  ~Database();
  Database(const Database&) = delete;

  Result<void> execute(const std::string& sql);  // without results
  Result<Query> query(std::string_view sql);     // prepared once
  Result<void> run(std::string_view sql);        // prepared once, to its end
  Result<std::int64_t> pragma(const std::string& name);
  std::int64_t last_id() const;
  std::int64_t changed() const;  // rows that the last statement changed
  bool in_transaction()
      const;      // false after an error that made SQLite roll everything back (a full disk)
  void shrink();  // gives its page cache back
  sqlite3* raw() const { return db_; }

 private:
  explicit Database(sqlite3* db) : db_(db) {}
  sqlite3* db_;

  struct TextHash {
    using is_transparent = void;
    std::size_t operator()(std::string_view text) const {
      return std::hash<std::string_view>{}(text);
    }
  };
  std::unordered_map<std::string, sqlite3_stmt*, TextHash, std::equal_to<>> statements_;
};

// The error of a failed call: SQLITE_FULL → unavailable NoSpace, SQLITE_CORRUPT/NOTADB → invalid Damaged,
// other disk errors → unavailable StoreUnavailable, the rest internal.
Error sqlite_error(sqlite3* db, int code, std::string_view what);

}  // namespace metier
