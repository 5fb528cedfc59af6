from __future__ import annotations

from pathlib import Path

import pytest

from metier_runner.errors import InvalidArgument
from metier_runner.returns import parse_hint


@pytest.mark.parametrize("hint", ["", "a:b:c", "a : nope", {"x": 1}, 5, "a:"])
def test_wrong_hints_are_refused(hint):
    with pytest.raises(InvalidArgument):
        parse_hint(hint)


def test_a_tuple_is_spread_over_the_hints_and_none_skips(run):
    done = run("def f():\n    return 1, 'skipped', [2]\n", "f", returns=["a", None, {"key": "b"}])
    assert done.results == {"a": 1, "b": [2]}


def test_a_wrong_count_warns_and_pairs_what_it_can(run, capsys):
    done = run("def f():\n    return 1, 2, 3\n", "f", returns=["a", "b"])
    assert done.code == 0 and done.results == {"a": 1, "b": 2} and "returned 3 values" in capsys.readouterr().out


def test_a_value_that_cannot_be_packed_warns_only(run, capsys):
    done = run("def f():\n    return (lambda: 1), 2\n", "f", returns=["a : dataset", "b"])
    assert done.code == 0 and done.results == {"b": 2} and "'a' could not be kept" in capsys.readouterr().out


def test_false_values_are_kept_under_a_hint(run):
    assert run("def f():\n    return 0\n", "f", returns=["a"]).results == {"a": 0}


def test_objects_are_pickled(run):
    done = run("import fractions\ndef f():\n    return fractions.Fraction(1, 3)\n", "f", returns=["a"])
    spec = done.artifact("a")["body"]["spec"]
    import pickle

    assert (
        str(pickle.loads(Path(spec["target_path"]).read_bytes())) == "1/3"
        and spec["unpackaging_instructions"]["object_type"] == "fractions.Fraction"
    )


def test_paths_and_texts_as_files(run, tmp_path):
    code = "import pathlib\ndef f():\n    p = pathlib.Path('made.txt'); p.write_text('x')\n    return p, 'hello'\n"
    done = run(code, "f", returns=["a", "b : file"])
    assert Path(done.artifact("a")["body"]["spec"]["target_path"]).name == "a.txt"
    assert Path(done.artifact("b")["body"]["spec"]["target_path"]).read_text() == "hello"


def test_frames_arrays_and_series(run):
    np = pytest.importorskip("numpy")
    pytest.importorskip("pandas")
    code = "import numpy as np, pandas as pd\ndef f():\n    d = pd.DataFrame({'a': [1, 2]})\n    return d, np.arange(3), d.a, np.float64(2), [np.ones(2)]\n"
    done = run(code, "f", returns=[{"key": "d", "format": "csv"}, "n", "s", "x", "l"])
    assert done.results == {"x": 2.0}
    assert done.artifact("d")["body"]["kind"] == "dataset"
    assert list(np.load(done.artifact("n")["body"]["spec"]["target_path"])) == [0, 1, 2]
    assert Path(done.artifact("s")["body"]["spec"]["target_path"]).read_text().startswith(",a\n0,1")
    assert list(np.load(done.artifact("l")["body"]["spec"]["target_path"])["0"]) == [1, 1]


def test_figures_become_plots(run):
    pytest.importorskip("matplotlib")
    code = "import matplotlib\nmatplotlib.use('Agg')\nimport matplotlib.pyplot as plt\ndef f(context):\n    fig, ax = plt.subplots(figsize=(1, 1))\n"
    code += "    context.log_artifact('direct', body=fig)\n    return fig\n"
    done = run(code, "f", returns=["chart"])
    for key in ("chart", "direct"):
        body = done.artifact(key)["body"]
        assert body["kind"] == "plot" and body["spec"]["viewer"] == "chart" and body["spec"]["target_path"].endswith(".html")
        assert "data:image/png;base64," in Path(body["spec"]["target_path"]).read_text()


def test_estimators_become_models(run):
    pytest.importorskip("sklearn")
    code = "def f():\n    from sklearn.linear_model import LinearRegression\n    return LinearRegression().fit([[0], [1]], [0, 1])\n"
    done = run(code, "f", returns=["model"])
    spec = done.artifact("model")["body"]["spec"]
    assert done.artifact("model")["body"]["kind"] == "model" and (spec["framework"], spec["algorithm"]) == ("sklearn", "LinearRegression")


def test_an_explicit_result_hint_wins(run):
    pytest.importorskip("numpy")
    assert run("import numpy as np\ndef f():\n    return np.arange(2)\n", "f", returns=["a : result"]).results == {"a": [0, 1]}
