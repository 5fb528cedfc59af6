#include "cli/settings.h"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include <fstream>

namespace metier::cli {
namespace {

namespace fs = std::filesystem;

std::string refusal(std::string_view text, FileOf owner = FileOf::user) {
  auto values = parse_settings("f.toml", text, owner);
  if (values) { return "accepted"; }
  EXPECT_EQ(values.error().kind, ErrorKind::invalid);
  EXPECT_FALSE(values.error().fix.empty()) << text;
  return values.error().text();
}

TEST(Settings, ReadsBothKindsOfQuotesAndComments) {
  const auto values =
      parse_settings("f.toml",
                     "# mine\n\nproject = \"fl\\u0069ghts\"  # why\n data='/srv/a#b'\r\n"
                     "server = \"http://h:1\"",
                     FileOf::user);
  ASSERT_TRUE(values) << values.error().text();
  EXPECT_EQ(values->at("project").value, "flights");
  EXPECT_EQ(values->at("project").line, 3U);
  EXPECT_EQ(values->at("data").value, "/srv/a#b");
  EXPECT_EQ(values->at("server").line, 5U);
}

TEST(Settings, RefusesByLineWithWhatIsAccepted) {
  EXPECT_EQ(refusal("\nprojct = \"a\""),
            "f.toml:2: 'projct' is not a setting, did you mean project?");
  EXPECT_EQ(refusal("[server]"), "f.toml:1: '[server]' is not a setting");
  EXPECT_EQ(refusal("project = a"), "f.toml:1: the value of project is not one quoted text");
  EXPECT_EQ(refusal("project = \"a"), "f.toml:1: the value of project is not one quoted text");
  EXPECT_EQ(refusal("project = \"a\\\""), "f.toml:1: the value of project is not one quoted text");
  EXPECT_EQ(refusal("project = 'a' b"), "f.toml:1: the value of project is not one quoted text");
  EXPECT_EQ(refusal("project = 'a'\nproject = 'b'"),
            "f.toml:2: project is set a second time, first in line 1");
  EXPECT_EQ(refusal("project = 'A'"), "f.toml:1: project: 'A' is not the name of a project");
  EXPECT_EQ(refusal("server = 'ftp://h'"), "f.toml:1: server: 'ftp://h' is not an address");
  EXPECT_EQ(refusal("data = 'here'"), "f.toml:1: data: 'here' is not an absolute path");
  EXPECT_EQ(refusal("python = 'bin/python'"),
            "f.toml:1: python: 'bin/python' is not an absolute path");
  EXPECT_EQ(refusal("project = ''"), "f.toml:1: project: '' is empty");
}

TEST(Settings, AWrongTokenIsNotShown) {
  const auto said = refusal("token = 'se cret'");
  EXPECT_EQ(said.find("se cret"), std::string::npos);
  EXPECT_EQ(said, "f.toml:1: token: the value holds a character that no token has");
}

TEST(Settings, AFolderChoosesItsProjectAndNothingElse) {
  EXPECT_EQ(refusal("project = 'flights'", FileOf::project), "accepted");
  for (const auto* line :
       {"server = 'http://evil:1'", "python = '/tmp/p'", "data = '/tmp/d'", "token = 'abc'"}) {
    EXPECT_NE(refusal(line, FileOf::project).find("is not a setting of a folder"),
              std::string::npos)
        << line;
  }
}

TEST(Settings, AnEditKeepsEveryOtherLine) {
  const std::string text = "# mine\nproject = 'a' # old\n\n# project = 'no'\ndata = '/d'";
  EXPECT_EQ(edit_settings(text, "project", "b\"c"),
            "# mine\nproject = \"b\\\"c\"\n\n# project = 'no'\ndata = '/d'\n");
  EXPECT_EQ(edit_settings(text, "project", std::nullopt),
            "# mine\n\n# project = 'no'\ndata = '/d'\n");
  EXPECT_EQ(edit_settings("", "server", "http://h:1"), "server = \"http://h:1\"\n");
  EXPECT_EQ(edit_settings("data = '/d'", "server", std::nullopt), "data = '/d'\n");
}

class SettingsFiles : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string path = fs::temp_directory_path() / "metier-settings-XXXXXX";
    ASSERT_NE(::mkdtemp(path.data()), nullptr);
    folder_ = fs::canonical(path);
    fs::create_directories(folder_ / "a" / "b");
    environment_ = {{"METIER_CONFIG", (folder_ / "user.toml").string()}};
  }
  void TearDown() override { fs::remove_all(folder_); }
  void write(const std::string& name, const std::string& text) {
    std::ofstream(folder_ / name) << text;
    fs::permissions(folder_ / name, fs::perms::owner_read | fs::perms::owner_write);
  }
  Result<Settings> load() { return Settings::load(environment_, false, folder_ / "a" / "b"); }

  fs::path folder_;
  Environment environment_;
};

TEST_F(SettingsFiles, TheVariableThenTheFoldersFileThenTheUsersCounts) {
  write("user.toml", "project = 'mine'\nserver = 'http://h:1'\n");
  auto settings = load();
  ASSERT_TRUE(settings) << settings.error().text();
  EXPECT_EQ(settings->origin("METIER_PROJECT"), (folder_ / "user.toml").string() + ":1");

  write("a/metier.toml", "\nproject = 'folders'\n");
  settings = load();
  ASSERT_TRUE(settings) << settings.error().text();
  EXPECT_EQ(settings->origin("METIER_PROJECT"), (folder_ / "a/metier.toml").string() + ":2");
  auto filled = environment_;
  settings->fill(filled);
  EXPECT_EQ(filled["METIER_PROJECT"], "folders");
  EXPECT_EQ(filled["METIER_SERVER"], "http://h:1");

  environment_["METIER_PROJECT"] = "named";
  settings = load();
  ASSERT_TRUE(settings) << settings.error().text();
  EXPECT_EQ(settings->origin("METIER_PROJECT"), "");
  filled = environment_;
  settings->fill(filled);
  EXPECT_EQ(filled["METIER_PROJECT"], "named");
}

TEST_F(SettingsFiles, ATokenThatOthersCanReadIsRefused) {
  write("user.toml", "token = 'abcdefgh'\n");
  ASSERT_TRUE(load());
  fs::permissions(folder_ / "user.toml", fs::perms::others_read, fs::perm_options::add);
  const auto settings = load();
  ASSERT_FALSE(settings);
  EXPECT_EQ(settings.error().fix, "chmod 600 " + (folder_ / "user.toml").string());
}

TEST_F(SettingsFiles, AnotherUsersFileIsNamedAndNotRead) {
  if (::geteuid() != 0) { GTEST_SKIP() << "only root gives a file away"; }
  write("a/metier.toml", "project = 'planted'\nnonsense\n");
  ASSERT_EQ(::chown((folder_ / "a/metier.toml").c_str(), 12345, 12345), 0);
  const auto settings = load();
  ASSERT_TRUE(settings) << settings.error().text();
  EXPECT_EQ(settings->origin("METIER_PROJECT"), "");
  EXPECT_EQ(settings->files().front().ignored, "it belongs to another user");
}

TEST(SettingsPlaces, TheUsersFile) {
  EXPECT_EQ(Settings::user_file({{"HOME", "/h"}}, false), "/h/.config/metier/metier.toml");
  EXPECT_EQ(Settings::user_file({{"HOME", "/h"}, {"XDG_CONFIG_HOME", "/c"}}, false),
            "/c/metier/metier.toml");
  EXPECT_EQ(Settings::user_file({{"HOME", "/root"}}, true), "/etc/metier/metier.toml");
  EXPECT_EQ(Settings::user_file({{"METIER_CONFIG", "/m.toml"}}, true), "/m.toml");
  EXPECT_EQ(Settings::user_file({}, false), "");
}

}  // namespace
}  // namespace metier::cli
