// A pod's journal: nothing in it is trusted. The bytes are a file of lines; they are read in pieces and applied.
#include <fcntl.h>
#include <unistd.h>

#include <filesystem>

#include "base/files.h"
#include "engine/journal.h"
#include "engine/records/records.h"
#include "engine/testing/memory_store.h"
#include "fuzz.h"

namespace {

// One folder for the whole process, removed at its end.
struct Folder {
  Folder() {
    std::string name = "/tmp/metier-fuzz-XXXXXX";
    path = ::mkdtemp(name.data());
  }
  ~Folder() { std::filesystem::remove_all(path); }
  std::string path;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  using namespace metier;
  static const Folder folder;
  static const auto file = folder.path + "/journal";
  const auto text = fuzz::text_of(data, size);
  const int fd = ::open(file.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  fuzz::require(fd >= 0 && ::write(fd, text.data(), size) == static_cast<ssize_t>(size), "file");
  ::close(fd);

  MemoryRecords records;
  fuzz::require(records.put_project("default", "{}").has_value(), "project");
  const auto now = from_iso("2026-11-28T10:00:00+00:00").value();
  const records::RunWrite target{"default", "0123456789abcdef", 0, true};
  JsonObject base{{"metadata", {{"name", "fuzz"}}}, {"status", {{"state", "running"}}}};
  fuzz::require(records::store_run(records, target, base, now).has_value(), "a plain run");
  std::uint64_t offset = 0;
  while (true) {
    const auto batch = read_journal(folder.path, offset);
    if (!batch) {
      fuzz::require_sentence(batch.error());
      return 0;
    }
    const auto applied = apply_journal(records, "default", target.uid, 1, batch->records, now);
    if (!applied) { fuzz::require_sentence(applied.error()); }
    fuzz::require(batch->next >= offset && batch->next <= size, "the offset left the file");
    if (batch->next == offset) { break; }
    offset = batch->next;
  }
  const auto run = records::read_run(records, "default", target.uid, 0, true);
  fuzz::require(run.has_value(), "the run does not read any more");
  fuzz::require(string_at(*run, "status.state") == "running", "a pod changed the state itself",
                dump_json(*run));
  return 0;
}
