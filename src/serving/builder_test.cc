#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "metier/graph.h"
#include "serving/native_graph.h"

namespace metier::serving {
namespace {

JsonObject document_of(const metier::Graph& graph) {
  auto parsed = parse_json(graph.json());
  EXPECT_TRUE(parsed) << graph.json();
  return parsed ? parsed->get_object() : JsonObject();
}

TEST(GraphBuilder, SaysWhatPythonsCallsSay) {
  metier::Graph graph;
  graph.set_topology("flow", "async");
  graph.to("Clean", "clean", {{"lower", true}})
      .error_handler(metier::handler("on_err"), "catch", {"out"})
      .to("*mlrun.serving.ParallelRun", "models", {{"extend_event", true}})
      .input_path("data")
      .result_path("res")
      .add_route("m1", "M", {{"model_path", "s3://b/m1"}})
      .add_route("m2:v2", metier::handler("fn2"));
  graph.add_step(metier::handler("(event['res'])"), "out", {"models"}).respond();
  auto expected = parse_json(R"x({"engine":"async","steps":{
    "clean":{"kind":"task","class_name":"Clean","class_args":{"lower":true},"on_error":"catch"},
    "catch":{"kind":"error_step","handler":"on_err","base_step":"clean","before":["out"]},
    "models":{"kind":"router","class_name":"mlrun.serving.ParallelRun","class_args":{"extend_event":true},"after":["clean"],"input_path":"data","result_path":"res","routes":{"m1":{"kind":"task","class_name":"M","class_args":{"model_path":"s3://b/m1"}},"m2:v2":{"kind":"task","handler":"fn2"}}},
    "out":{"kind":"task","handler":"(event['res'])","after":["models"],"responder":true}}})x");
  EXPECT_EQ(Json(document_of(graph)), *expected) << graph.json();
}

TEST(GraphBuilder, ItsGraphRunsInTheEnginesMockServer) {
  metier::Graph graph;
  graph.set_topology("flow", "async");
  graph.to("storey.Filter", "f", {{"_fn", "(event['x'] > 0)"}})
      .to(">>", "q", {{"path", ""}})
      .to(metier::handler("({**event, 'y': 'a\"b'})"), "m")
      .function("*")
      .respond();
  const auto made = NativeGraph::make(document_of(graph));
  ASSERT_TRUE(made) << made.error().text();
  EXPECT_EQ((*made)->test({.body = R"x({"x": 1})x"}).body, "{\"x\": 1, \"y\": \"a\\\"b\"}");
}

TEST(GraphBuilder, RoutersAndModels) {
  metier::Graph graph;
  graph.add_model("m1", "Model", "a.pkl", {{"k", 1.5}});
  auto expected = parse_json(
      R"x({"kind":"router","routes":{"m1":{"kind":"task","class_name":"Model","class_args":{"model_path":"a.pkl","k":1.5}}}})x");
  EXPECT_EQ(Json(document_of(graph)), *expected);
  EXPECT_THROW(graph.to("A", "a"), std::invalid_argument);
}

TEST(GraphBuilder, WrongUseIsSaid) {
  metier::Graph graph;
  graph.to("A", "a");
  EXPECT_THROW(graph.to("B", "a"), std::invalid_argument);
  EXPECT_THROW(graph.add_step("B", "b", {"gone"}), std::invalid_argument);
  EXPECT_THROW(graph["gone"], std::invalid_argument);
  EXPECT_THROW(graph.add_model("m", "M", ""), std::invalid_argument);
  metier::Graph other;
  EXPECT_THROW(other.set_topology("ring"), std::invalid_argument);
}

}  // namespace
}  // namespace metier::serving
