// Joins the ranks' logs: whole lines, each with the number of its rank in front.
#pragma once

#include <map>
#include <string>

namespace metier::mpi {

class RankLogs {
 public:
  // `prefix`: false writes lines as they are (a job of one rank).
  RankLogs(std::string gang, bool prefix);
  ~RankLogs();
  RankLogs(const RankLogs&) = delete;
  RankLogs& operator=(const RankLogs&) = delete;
  std::size_t count() const { return logs_.size(); }  // ranks that have started
  int descriptor() const { return watch_; }
  // Takes what is there; `last`: also lines without an end.
  void pump(bool last);

 private:
  struct Log {
    int fd = -1;
    std::string rest;  // a line that has not ended
  };
  void find();
  void take(int rank, Log& log, bool last);

  std::string gang_;
  bool prefix_;
  int watch_ = -1;
  std::map<int, Log> logs_;
  std::string out_;
};

}  // namespace metier::mpi
