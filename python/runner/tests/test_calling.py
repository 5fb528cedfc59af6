from __future__ import annotations

import bisect  # noqa: F401  (a test shadows it)
import json
import sys

import pytest


def test_parameters_come_by_name_and_unknown_ones_are_ignored(run):
    done = run("def f(context, a, b=5):\n    return [a, b, context.get_param('c')]\n", "f", parameters={"a": 1, "c": 3})
    assert done.results == {"return": [1, 5, 3]}


def test_kwargs_receive_the_rest(run):
    done = run("def f(a, **rest):\n    return {k: str(v) for k, v in rest.items()}\n", "f", parameters={"a": 1, "c": 3}, inputs={"d": "/x"})
    assert done.results == {"return": {"c": "3", "d": "/x"}}


@pytest.mark.parametrize(
    ("annotation", "text", "expected"),
    [
        ("int", "7", 7), ("int", "0x10", 16), ("float", "1e-3", 0.001), ("bool", "no", False), ("bool", "True", True),
        ("list", "[1, 2]", [1, 2]),
        ("dict", '{"a": 1}', {"a": 1}), ("Optional[int]", "3", 3), ("Optional[int]", "none", None), ("Union[int, str]", "3", "3"),
        ("List[int]", "[3]", [3]), ("list[int]", "[3]", [3]), ("str", "3", "3"), ("'int'", "3", 3), ("pathlib.Path", "/a", "/a"),
        ("Color", "red", "Color.red"),
        ("datetime.date", "2024-02-03", "2024-02-03"), ("Any", "3", "3"),
    ],
)  # fmt: skip
def test_text_parameters_become_what_the_annotation_says(run, annotation, text, expected):
    head = "import datetime, enum, pathlib\nfrom typing import *\nclass Color(enum.Enum):\n    red = 1\n"
    done = run(f"{head}def f(context, x: {annotation}):\n    context.log_result('x', [x])\n", "f", parameters={"x": text})
    assert done.results == {"x": [expected]}


def test_future_annotations_are_evaluated(run):
    code = (
        "from __future__ import annotations\nfrom typing import Optional\ndef f(context, x: Optional[int], y: int = 1):\n    return x + y\n"
    )
    assert run(code, "f", parameters={"x": "4", "y": "5"}).results == {"return": 9}


def test_a_text_that_is_no_number_names_parameter_and_form(run):
    done = run("def f(context, lr: float):\n    pass\n", "f", parameters={"lr": "high"})
    assert done.code == 1 and done.failure["code"] == "InvalidParameter"
    assert done.failure["message"] == "parameter lr was passed as the text 'high', which is no float; numbers look like -p lr=0.1"


def test_a_parameter_without_value_names_the_signature(run):
    done = run("def f(context, lr, epochs=3):\n    pass\n", "f")
    assert "parameter 'lr' has no value: work.py:1 f(context, lr, epochs) needs it" in done.failure["message"]


def test_inputs_are_data_items_or_local_paths(run, tmp_path):
    (tmp_path / "d.txt").write_text("hello")
    code = "def f(context, a, b='', c: 'DataItem' = None):\n    return [a.get(encoding='utf-8'), open(b).read(), type(c).__name__]\n"
    assert run(code, "f", inputs={"a": "d.txt", "b": "d.txt", "c": "d.txt"}).results == {"return": ["hello", "hello", "DataItem"]}


def test_inputs_follow_type_hints_of_annotations_and_of_the_run(run, tmp_path):
    pytest.importorskip("pandas")
    (tmp_path / "d.csv").write_text("x,y\n1,2\n3,4\n")
    (tmp_path / "d.json").write_text(json.dumps({"k": 1}))
    code = "import pandas as pd, pathlib\ndef f(context, a: pd.DataFrame, p: pathlib.Path, j: dict, s: str, h):\n"
    code += "    return [int(a.x.sum()), p.name, j, s.rsplit('/')[-1], len(h)]\n"
    inputs = {"a": "d.csv", "p": "d.csv", "j": "d.json", "s": "d.csv", "h": "d.csv"}
    done = run(code, "f", inputs=inputs, inputs_type_hints={"h": "pandas.DataFrame"})
    assert done.results == {"return": [4, "d.csv", {"k": 1}, "d.csv", 2]}


def test_relative_inputs_lie_below_the_input_path(run, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "x").write_text("1")
    assert run("def f(a):\n    return a.get()\n", "f", inputs={"a": "x"}, input_path=str(tmp_path / "in")).results == {"return": "b'1'"}


def test_class_methods_take_init_args(run):
    code = (
        "class C:\n    def __init__(self, base):\n        self.base = base\n    def add(self, context, n):\n        return self.base + n\n"
    )
    assert run(code, "C::add", parameters={"_init_args": {"base": 10}, "n": 1}).results == {"return": 11}


def test_module_handlers_need_no_file(pod):
    done = pod(["--handler", "json.dumps"], {"spec": {"parameters": {"obj": [1]}}})
    assert done.results == {"return": "[1]"}


@pytest.mark.parametrize("value", ["0", "''", "None", "False", "[]"])
def test_false_return_values_are_dropped(run, value):
    assert run(f"def f():\n    return {value}\n", "f").results == {}


def test_a_data_frame_without_hint_raises(run):
    pytest.importorskip("pandas")
    done = run("import pandas\ndef f():\n    return pandas.DataFrame({'a': [1]})\n", "f")
    assert done.code == 1 and done.failure["type"] == "ValueError"


def test_an_unknown_handler_suggests_the_near_one(run):
    done = run("def train(context):\n    pass\ndef evaluate(context):\n    pass\n_x = 1\n", "trian")
    assert done.failure["code"] == "HandlerMissing"
    assert done.failure["message"] == "work.py: no function 'trian', did you mean 'train'?\nfunctions in this file: train, evaluate"


def test_a_class_alone_is_no_handler(run):
    assert "C::method" in run("class C:\n    def go(self):\n        pass\n", "C").failure["message"]


def test_coroutines_are_finished(run):
    assert run("async def f(context):\n    return 4\n", "f").results == {"return": 4}


def test_positional_only_parameters(run):
    assert run("def f(a, /, b):\n    return a - b\n", "f", parameters={"a": 5, "b": 2}).results == {"return": 3}


def test_a_context_annotation_of_mlrun_gets_ours_when_mlrun_is_missing(run):
    assert run("def f(context: 'mlrun.MLClientCtx'):\n    return context.project\n", "f").results == {"return": "p"}


def test_a_context_annotation_of_mlrun_gets_mlruns_own_where_it_is_installed(run, tmp_path):
    package = tmp_path / "mlrun"
    package.mkdir()
    text = "class MLClientCtx:\n    def __init__(self): self.r = {}\n    def log_result(self, k, v): self.r[k] = v\n"
    text += "    def commit(self): pass\n"
    text += "    def to_dict(self): return {'metadata': {'annotations': {'why': 'so'}}, 'status': {'results': self.r}}\n\ndef get_or_create_ctx(name): return MLClientCtx()\n"
    (package / "__init__.py").write_text(text)
    done = run("import mlrun\ndef f(context: mlrun.MLClientCtx):\n    context.log_result('own', type(context).__module__)\n", "f")
    assert done.results == {"own": "mlrun"}
    assert done.run["metadata"]["annotations"] == {"why": "so"}


def test_a_file_named_like_a_library_does_not_replace_it(run):
    done = run(
        "import json\nimport pickle\nclass A: pass\ndef f():\n    return [json.dumps(1), pickle.loads(pickle.dumps(A)).__module__]\n",
        "f",
        file="bisect.py",
    )
    assert done.results == {"return": ["1", "user_bisect" if "bisect" in sys.modules else "bisect"]}
    assert hasattr(sys.modules.get("bisect", json), "__doc__") and not hasattr(sys.modules.get("bisect"), "A")


def test_type_hints_of_inputs_may_stand_in_their_keys(run, tmp_path):
    (tmp_path / "d.json").write_text("[1]")
    assert run("def f(a):\n    return a + [2]\n", "f", inputs={"a : list": "d.json"}).results == {"return": [1, 2]}


def test_parameters_are_passed_before_inputs_of_the_same_name(run):
    assert run("def f(a):\n    return a\n", "f", parameters={"a": 1}, inputs={"a": "/x"}).results == {"return": 1}
