#include "engine/spark_history.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace metier {
namespace {

using testing::HasSubstr;
using testing::Not;

// An application of two jobs as Spark 4 writes them, shortened; the second fails.
constexpr std::string_view kEvents =
    R"({"Event":"SparkListenerLogStart","Spark Version":"4.3.0"}
{"Event":"SparkListenerExecutorAdded","Timestamp":1000,"Executor ID":"1","Executor Info":{"Host":"127.64.0.2","Total Cores":2}}
{"Event":"SparkListenerApplicationStart","App Name":"delays","App ID":"app-7","Timestamp":900,"User":"me"}
{"Event":"org.apache.spark.sql.execution.ui.SparkListenerSQLExecutionStart","executionId":0,"description":"not shown"}
{"Event":"SparkListenerJobStart","Job ID":0,"Submission Time":2000,"Stage Infos":[{"Stage ID":0,"Stage Attempt ID":0,"Stage Name":"read <csv>","Number of Tasks":2},{"Stage ID":1,"Stage Attempt ID":0,"Stage Name":"collect at delays.py:9","Number of Tasks":1}]}
{"Event":"SparkListenerStageSubmitted","Stage Info":{"Stage ID":0,"Stage Attempt ID":0,"Stage Name":"read <csv>","Number of Tasks":2,"Submission Time":2100}}
{"Event":"SparkListenerTaskEnd","Stage ID":0,"Stage Attempt ID":0,"Task End Reason":{"Reason":"Success"},"Task Info":{"Executor ID":"1"},"Task Metrics":{"Executor Run Time":1500,"JVM GC Time":20,"Executor CPU Time":1000000000,"Input Metrics":{"Bytes Read":1048576},"Shuffle Write Metrics":{"Shuffle Bytes Written":2048}}}
{"Event":"SparkListenerTaskEnd","Stage ID":0,"Stage Attempt ID":0,"Task End Reason":{"Reason":"Success"},"Task Info":{"Executor ID":"1"},"Task Metrics":{"Executor Run Time":500}}
{"Event":"SparkListenerStageCompleted","Stage Info":{"Stage ID":0,"Stage Attempt ID":0,"Stage Name":"read <csv>","Number of Tasks":2,"Submission Time":2100,"Completion Time":4100}}
{"Event":"SparkListenerJobEnd","Job ID":0,"Completion Time":5000,"Job Result":{"Result":"JobSucceeded"}}
{"Event":"SparkListenerJobStart","Job ID":1,"Submission Time":6000,"Stage Infos":[{"Stage ID":2,"Stage Attempt ID":0,"Stage Name":"collect at delays.py:12","Number of Tasks":4}]}
{"Event":"SparkListenerTaskEnd","Stage ID":2,"Stage Attempt ID":0,"Task End Reason":{"Reason":"ExceptionFailure","Class Name":"x"},"Task Info":{"Executor ID":"1"}}
{"Event":"SparkListenerTaskEnd","Stage ID":2,"Stage Attempt ID":0,"Task End Reason":{"Reason":"TaskKilled"},"Task Info":{"Executor ID":"1"}}
{"Event":"SparkListenerStageCompleted","Stage Info":{"Stage ID":2,"Stage Attempt ID":0,"Stage Name":"collect at delays.py:12","Number of Tasks":4,"Submission Time":6100,"Completion Time":7100,"Failure Reason":"Job aborted\nat x"}}
{"Event":"SparkListenerJobEnd","Job ID":1,"Completion Time":7200,"Job Result":{"Result":"JobFailed","Exception":{"Message":"ZeroDivisionError\nat y"}}}
{"Event":"SparkListenerApplicationEnd","Timestamp":9900}
)";

TEST(SparkHistory, ShowsJobsStagesAndExecutors) {
  const auto page = spark_history_page(kEvents, "run 1");
  ASSERT_TRUE(page) << page.error().text();
  EXPECT_THAT(*page, HasSubstr("Spark 4.3.0, application app-7, delays, took 9"));
  EXPECT_THAT(*page, HasSubstr("<h2>Jobs (2)</h2>"));
  EXPECT_THAT(*page, HasSubstr("<td>0</td><td>collect at delays.py:9</td><td>completed</td>"));
  EXPECT_THAT(*page, HasSubstr("<td>failed</td>"));
  EXPECT_THAT(*page, HasSubstr("<td>ZeroDivisionError</td>"));
  EXPECT_THAT(*page, HasSubstr("<td>read &lt;csv&gt;</td><td>completed</td>"));
  EXPECT_THAT(*page, HasSubstr("<td>2/2</td>"));
  EXPECT_THAT(*page, HasSubstr("<td>0/4, 1 failed, 1 killed</td>"));
  EXPECT_THAT(*page, HasSubstr("<td>127.64.0.2</td><td>2</td>"));
  EXPECT_THAT(*page, HasSubstr("<td>4, 1 failed</td>"));
  EXPECT_THAT(*page, Not(HasSubstr("not shown")));
}

TEST(SparkHistory, ADriverThatWasKilledLeavesWhatItWrote) {
  const auto cut =
      kEvents.substr(0, kEvents.find("{\"Event\":\"SparkListenerStageCompleted\"") + 60);
  const auto page = spark_history_page(cut, "run 1");
  ASSERT_TRUE(page);
  EXPECT_THAT(*page, HasSubstr("its log ends before the application did"));
  EXPECT_THAT(*page, HasSubstr("<td>not ended</td>"));
}

TEST(SparkHistory, SaysWhatIsNoEventLog) {
  EXPECT_FALSE(spark_history_page("", "x"));
  EXPECT_FALSE(spark_history_page(
      "root:x:0:0\n{\"Event\":\"Other\"}\n{\"Event\":\"SparkListenerX\",\n", "x"));
}

TEST(SparkHistory, ACompressedLogIsRefusedByItsCodec) {
  using namespace std::string_view_literals;
  for (const auto& [begin, codec] :
       {std::pair("\x28\xb5\x2f\xfd\x04"sv, "with zstd,"), std::pair("LZ4Block\x25"sv, "with lz4,"),
        std::pair("\x82SNAPPY\0\0"sv, "with snappy,"), std::pair("ZV\x01"sv, "with lzf,")}) {
    const auto page = spark_history_page(begin, "x");
    ASSERT_FALSE(page);
    EXPECT_EQ(page.error().field, "spark.eventLog.compress");
    EXPECT_THAT(page.error().message, HasSubstr(codec));
  }
}

}  // namespace
}  // namespace metier
