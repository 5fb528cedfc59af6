// Lists of runs. A page walks an index in the order that it shows and stops when it is full, however many runs are
// stored.
#include <algorithm>

#include "store/sqlite_records.h"

namespace metier {
namespace {

const std::string kColumns =
    "id, project, uid, iteration, name, state, kind, start, updated, ended, version, body";
const std::string kRunColumns =
    "r.id, r.project, r.uid, r.iteration, r.name, r.state, r.kind, r.start, r.updated, r.ended, "
    "r.version, r.body";
constexpr std::int64_t kFew = 1000;      // so few rows are cheaper to sort than to search for
constexpr std::size_t kMostParts = 100;  // of one query
constexpr std::string_view kNewest = " ORDER BY r.start DESC, r.id DESC";

struct ExactLabel {
  std::string text;  // as asked
  std::string name;
  std::string value;
};

// "name=value" without wildcards: what the index of labels finds.
std::optional<ExactLabel> exact(const std::string& condition) {
  const auto equals = condition.find('=');
  if (equals == std::string::npos || condition.starts_with('~') ||
      condition.substr(equals + 1).starts_with('~')) {
    return std::nullopt;
  }
  return ExactLabel{condition, condition.substr(0, equals), condition.substr(equals + 1)};
}

// What a list walks.
struct Walk {
  enum class By { order, uid, name, state, label };
  By by = By::order;
  std::optional<ExactLabel> label;
};

// Everything but the project, the states and the label that is walked.
Where rest_of(const RunFilter& filter, const Walk& walk, Where::Lookup lookup) {
  Where where;
  if (filter.only_parents && *filter.only_parents) { where.add("r.iteration = 0"); }
  if (!filter.name.empty()) { where.name("r.name", filter.name); }
  where.any_of("r.uid", filter.uids);
  for (const auto& label : filter.labels) {
    if (!walk.label || walk.label->text != label) {
      where.label("r.id", "run_labels", "run", label, lookup);
    }
  }
  const auto time = [&](const std::string& column, const char* sign,
                        const std::optional<Time>& value) {
    if (value) { where.add(column + sign, micros(*value)); }
  };
  const std::string start = walk.by == Walk::By::label ? "l.start" : "r.start";
  time(start, " >= ?", filter.start_from);
  time(start, " <= ?", filter.start_to);
  time("r.updated", " >= ?", filter.updated_from);
  time("r.updated", " <= ?", filter.updated_to);
  time("r.ended", " >= ?", filter.end_from);
  time("r.ended", " <= ?", filter.end_to);
  return where;
}

Where where_of(const RunFilter& filter, Where::Lookup lookup) {
  Where where;
  if (filter.project) { where.add("r.project = ?", *filter.project); }
  where.any_of("r.state", filter.states);
  where.append(rest_of(filter, {}, lookup));
  return where;
}

// Lists that the maintained heads can answer: the newest run of each name, nothing asked but since when.
bool heads_answer(const RunFilter& f) {
  return f.partition && f.rows_per_partition == 1 && !f.partition_ascending && f.project &&
         f.only_parents && *f.only_parents && f.name.empty() && f.uids.empty() &&
         f.states.empty() && f.labels.empty() && !f.start_to && !f.updated_from && !f.updated_to &&
         !f.end_from && !f.end_to;
}

// The table and index that a walk goes by.
std::string source_of(const RunFilter& filter, Walk::By by) {
  switch (by) {
    case Walk::By::label:
      return "run_labels l INDEXED BY run_labels_value CROSS JOIN runs r ON r.id = l.run";
    case Walk::By::state: return "runs r INDEXED BY runs_state";
    case Walk::By::name: return "runs r INDEXED BY runs_name";
    case Walk::By::uid: return "runs r";
    case Walk::By::order: break;
  }
  return filter.only_parents && *filter.only_parents ? "runs r INDEXED BY runs_start"
                                                     : "runs r INDEXED BY runs_project_start";
}

struct Head {
  std::int64_t run;
  std::int64_t start;
  std::int64_t key;
};

// The part of a list that was asked for.
template <class T>
std::span<const T> page_of(const std::vector<T>& all, const RunFilter& filter) {
  const auto size = static_cast<std::int64_t>(all.size());
  const auto first = std::clamp<std::int64_t>(filter.offset, 0, size);
  const auto last = filter.limit < 0 ? size : first + std::min(size - first, filter.limit);
  return std::span(all).subspan(static_cast<std::size_t>(first),
                                static_cast<std::size_t>(last - first));
}

class RunLists final {
 public:
  explicit RunLists(Database& database) : db_(&database) {}
  Result<std::vector<RunRow>> runs(const RunFilter& filter) const;
  Result<std::int64_t> count(const RunFilter& filter) const;

 private:
  Result<void> add_other_heads(const RunFilter& filter, std::vector<Head>& heads) const;
  Result<std::vector<RunRow>> by_head(const RunFilter& filter) const;
  Result<std::int64_t> count_few(const std::string& from, const Where& where) const;
  Result<Walk> walk_of(const RunFilter& filter) const;
  Result<std::vector<std::string>> projects_of(const RunFilter& filter) const;
  Result<std::vector<Where>> parts_of(const RunFilter& filter, const Walk& walk) const;
  Result<std::vector<RunRow>> read(const std::string& sql, std::span<const Where> parts,
                                   const RunFilter& filter) const;
  Result<std::vector<RunRow>> in_order(const RunFilter& filter) const;
  Result<std::vector<RunRow>> in_states(const RunFilter& filter) const;

  Database* db_;
};

// Heads that are older than asked, of names of which another run is young enough.
Result<void> RunLists::add_other_heads(const RunFilter& filter, std::vector<Head>& heads) const {
  const auto from = micros(*filter.start_from);
  METIER_TRY(q, db_->query("SELECT name FROM run_heads WHERE project = ? AND started >= ? AND "
                           "changed_run <> started_run AND changed_start < ?"));
  q.bind(*filter.project).bind(from).bind(from);
  while (true) {
    METIER_TRY(more, q.step());
    if (!more) { return {}; }
    METIER_TRY(other,
               db_->query("SELECT id, start, updated FROM runs WHERE project = ? AND name = ? "
                          "AND start >= ? AND iteration = 0 ORDER BY updated DESC LIMIT 1"));
    const auto name = q.text(0);
    other.bind(*filter.project).bind(name).bind(from);
    METIER_TRY(found, other.step());
    if (found) { heads.push_back({other.integer(0), other.integer(1), other.integer(2)}); }
  }
}

Result<std::vector<RunRow>> RunLists::by_head(const RunFilter& filter) const {
  const bool by_start = filter.partition_sort == "created";
  // Newest start first and no bound on the names: the index is walked as far as the page reaches.
  const bool walked = !by_start && filter.sort && filter.max_partitions == 0;
  std::vector<Head> heads;
  {
    const std::string run = by_start ? "started_run" : "changed_run";
    const std::string start = by_start ? "started" : "changed_start";
    METIER_TRY(
        q, db_->query("SELECT " + run + ", " + start + ", " + (by_start ? "started" : "changed") +
                      " FROM run_heads WHERE project = ? AND " + start + " >= ? ORDER BY " + start +
                      " DESC LIMIT ?"));
    q.bind(*filter.project).bind(filter.start_from ? micros(*filter.start_from) : INT64_MIN);
    q.bind(walked && filter.limit >= 0 ? filter.offset + filter.limit : std::int64_t{-1});
    while (true) {
      METIER_TRY(more, q.step());
      if (!more) { break; }
      heads.push_back({q.integer(0), q.integer(1), q.integer(2)});
    }
  }
  if (filter.start_from && !by_start) { METIER_CHECK(add_other_heads(filter, heads)); }
  if (filter.max_partitions > 0 &&
      static_cast<std::int64_t>(heads.size()) > filter.max_partitions) {
    std::ranges::sort(heads, std::ranges::greater{}, &Head::key);
    heads.resize(static_cast<std::size_t>(filter.max_partitions));
  }
  if (filter.sort) { std::ranges::sort(heads, std::ranges::greater{}, &Head::start); }
  std::vector<RunRow> out;
  for (const auto& head : page_of(heads, filter)) {
    METIER_TRY(q, db_->query("SELECT " + kColumns + " FROM runs WHERE id = ?"));
    q.bind(head.run);
    METIER_TRY(found, q.step());
    if (found) { out.push_back(run_row_from(q)); }
  }
  return out;
}

// At most `kFew`: more are as good as all.
Result<std::int64_t> RunLists::count_few(const std::string& from, const Where& where) const {
  METIER_TRY(q, db_->query("SELECT count(*) FROM (SELECT 1 FROM " + from + where.text() +
                           " LIMIT " + std::to_string(kFew) + ")"));
  where.bind(q);
  METIER_TRY(found, q.step());
  return found ? q.integer(0) : 0;
}

// Of several conditions that have an index, the one that fewest runs fulfil.
Result<Walk> RunLists::walk_of(const RunFilter& filter) const {
  if (!filter.uids.empty()) { return Walk{Walk::By::uid, {}}; }
  std::vector<Walk> ways;
  // Where neither are few, the first one is taken: most runs have completed, few are in any other state.
  const bool rare = !filter.states.empty() &&
                    std::ranges::find(filter.states, "completed") == filter.states.end();
  if (rare) { ways.push_back({Walk::By::state, {}}); }
  for (const auto& label : filter.labels) {
    if (auto one = exact(label)) { ways.push_back({Walk::By::label, std::move(one)}); }
  }
  if (!filter.states.empty() && !rare) { ways.push_back({Walk::By::state, {}}); }
  if (!filter.name.empty() && !filter.name.starts_with('~')) {
    ways.push_back({Walk::By::name, {}});
  }
  if (ways.empty()) { return Walk{}; }
  std::size_t best = 0;
  std::int64_t fewest = kFew + 1;
  for (std::size_t i = 0; filter.project && ways.size() > 1 && i < ways.size(); ++i) {
    Where where;
    std::string from = "runs";
    where.add("project = ?", *filter.project);
    if (ways[i].label) {
      from = "run_labels";
      where.add("name = ?", ways[i].label->name);
      where.add("value = ?", ways[i].label->value);
    } else if (ways[i].by == Walk::By::state) {
      where.any_of("state", filter.states);
    } else {
      where.add("name = ?", filter.name);
    }
    METIER_TRY(count, count_few(from, where));
    if (count < fewest) {
      fewest = count;
      best = i;
    }
  }
  return ways[best];
}

Result<std::vector<std::string>> RunLists::projects_of(const RunFilter& filter) const {
  if (filter.project) { return std::vector{*filter.project}; }
  METIER_TRY(q, db_->query("SELECT name FROM projects"));
  std::vector<std::string> out;
  while (true) {
    METIER_TRY(more, q.step());
    if (!more) { return out; }
    out.push_back(q.text(0));
  }
}

// One part for each project and state that is asked for: each is in order by its index.
Result<std::vector<Where>> RunLists::parts_of(const RunFilter& filter, const Walk& walk) const {
  METIER_TRY(projects, projects_of(filter));
  const bool by_state = walk.by == Walk::By::state;
  const auto states = by_state ? filter.states : std::vector<std::string>{""};
  const auto rest = rest_of(filter, walk, Where::Lookup::exists);
  std::vector<Where> parts;
  for (const auto& project : projects) {
    for (const auto& state : states) {
      Where part;
      part.add(walk.label ? "l.project = ?" : "r.project = ?", project);
      if (walk.label) {
        part.add("l.name = ?", walk.label->name);
        part.add("l.value = ?", walk.label->value);
      }
      if (by_state) {
        part.add("r.state = ?", state);
      } else {
        part.any_of("r.state", filter.states);
      }
      part.append(rest);
      parts.push_back(std::move(part));
    }
  }
  return parts;
}

Result<std::vector<RunRow>> RunLists::read(const std::string& sql, std::span<const Where> parts,
                                           const RunFilter& filter) const {
  METIER_TRY(q, db_->query(sql));
  for (const auto& part : parts) {
    part.bind(q);
    if (parts.size() > 1) {
      q.bind(filter.limit < 0 ? filter.limit : filter.offset + filter.limit);
    }
  }
  q.bind(filter.limit).bind(filter.offset);
  std::vector<RunRow> out;
  while (true) {
    METIER_TRY(more, q.step());
    if (!more) { return out; }
    out.push_back(run_row_from(q));
  }
}

Result<std::vector<RunRow>> RunLists::in_order(const RunFilter& filter) const {
  METIER_TRY(walk, walk_of(filter));
  METIER_TRY(parts, parts_of(filter, walk));
  if (parts.empty()) { return std::vector<RunRow>{}; }
  const std::string order(kNewest);
  if (parts.size() > kMostParts || walk.by == Walk::By::uid) {
    // Named runs are few: the plus keeps the planner from walking a whole project in order of start.
    const auto where = where_of(filter, Where::Lookup::exists);
    return read("SELECT " + kRunColumns + " FROM runs r" + where.text() +
                    " ORDER BY +r.start DESC, r.id DESC LIMIT ? OFFSET ?",
                std::span(&where, 1), filter);
  }
  const auto source = source_of(filter, walk.by);
  const auto inner = walk.label ? std::string(" ORDER BY l.start DESC, l.run DESC") : order;
  if (parts.size() == 1) {
    return read(
        "SELECT " + kRunColumns + " FROM " + source + parts[0].text() + inner + " LIMIT ? OFFSET ?",
        parts, filter);
  }
  std::string ids;
  for (const auto& part : parts) {
    ids += (ids.empty() ? "" : " UNION ALL ") + ("SELECT * FROM (SELECT r.id FROM " + source) +
           part.text() + inner + " LIMIT ?)";
  }
  return read("SELECT " + kRunColumns + " FROM runs r WHERE r.id IN (" + ids + ")" +
                  " ORDER BY +r.start DESC, r.id DESC LIMIT ? OFFSET ?",
              parts, filter);
}

// In the order in which they were stored, of few states: what a server looks for when it starts.
Result<std::vector<RunRow>> RunLists::in_states(const RunFilter& filter) const {
  const Walk walk{Walk::By::state, {}};
  METIER_TRY(parts, parts_of(filter, walk));
  Where where;
  std::string ids;
  for (const auto& part : parts) {
    ids += (ids.empty() ? "" : " UNION ALL ") + ("SELECT r.id FROM " + source_of(filter, walk.by)) +
           part.text();
    where.also(part);
  }
  return read("SELECT " + kRunColumns + " FROM runs r WHERE r.id IN (" + ids +
                  ") ORDER BY r.id LIMIT ? OFFSET ?",
              std::span(&where, 1), filter);
}

Result<std::vector<RunRow>> RunLists::runs(const RunFilter& filter) const {
  if (heads_answer(filter)) { return by_head(filter); }
  if (!filter.partition && filter.sort) { return in_order(filter); }
  if (!filter.partition && !filter.states.empty() && filter.uids.empty()) {
    METIER_TRY(projects, projects_of(filter));
    if (!projects.empty() && projects.size() * filter.states.size() <= kMostParts) {
      return in_states(filter);
    }
  }
  const auto where = where_of(filter, Where::Lookup::in);
  std::string sql;
  if (filter.partition) {
    const std::string by = filter.partition_sort == "created" ? "start" : "updated";
    const std::string order = filter.partition_ascending ? " ASC" : " DESC";
    const auto most = std::to_string(std::max<std::int64_t>(1, filter.rows_per_partition));
    const auto placed = "(SELECT *, row_number() OVER (PARTITION BY project, name ORDER BY " + by +
                        order + ") AS place, max(" + by +
                        ") OVER (PARTITION BY project, name) AS newest FROM runs r" + where.text() +
                        ")";
    sql = "SELECT " + kColumns + " FROM " + placed + " WHERE place <= " + most;
    if (filter.max_partitions > 0) {
      sql = "SELECT " + kColumns +
            " FROM (SELECT *, dense_rank() OVER (ORDER BY newest DESC, project, name) AS part "
            "FROM " +
            placed + " WHERE place <= " + most +
            ") WHERE part <= " + std::to_string(filter.max_partitions);
    }
    sql += filter.sort ? " ORDER BY start DESC, id DESC" : " ORDER BY id";
  } else {
    sql = "SELECT " + kRunColumns + " FROM runs r" + where.text() + " ORDER BY r.id";
  }
  return read(sql + " LIMIT ? OFFSET ?", std::span(&where, 1), filter);
}

Result<std::int64_t> RunLists::count(const RunFilter& filter) const {
  const auto where = where_of(filter, Where::Lookup::in);
  METIER_TRY(q, db_->query("SELECT count(*) FROM runs r" + where.text()));
  where.bind(q);
  METIER_TRY(found, q.step());
  return found ? q.integer(0) : 0;
}

}  // namespace

Result<std::vector<RunRow>> SqliteRecords::runs(const RunFilter& filter) const {
  return RunLists(*db_).runs(filter);
}

Result<std::int64_t> SqliteRecords::count_runs(const RunFilter& filter) const {
  return RunLists(*db_).count(filter);
}

}  // namespace metier
