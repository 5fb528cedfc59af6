from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from metier_runner import processor


def config_of(folder: Path, **given) -> list[str]:
    (folder / "lib" / "metier_worker").mkdir(parents=True)
    file = folder / "config.json"
    file.write_text(json.dumps({"lib": str(folder / "lib"), "python": sys.executable, **given}))
    return ["/bin/metier", "processor", "--config", str(file)]


def test_the_interpreter_that_was_asked_for_can_be_the_template(tmp_path):
    argv = config_of(tmp_path, env=[{"name": "COLOUR", "value": "green"}])
    assert processor.template_config(argv)["lib"] == str(tmp_path / "lib")


@pytest.mark.parametrize(
    "given",
    [
        {"python": "/opt/other/python"},
        {"workerMemoryBytes": 1 << 28},
        {"env": [{"name": "PYTHONPATH", "value": "/mine"}]},
        {"lib": "/nowhere"},
    ],
)
def test_what_a_fork_could_not_give_is_left_to_the_processor(tmp_path, given):
    assert processor.template_config(config_of(tmp_path, **given)) is None


@pytest.mark.parametrize("text", ["", "{", "{}"])
def test_a_wrong_configuration_is_for_the_processor_to_tell(tmp_path, monkeypatch, text):
    (tmp_path / "config.json").write_text(text)
    started = []
    monkeypatch.setattr(os, "execve", lambda *words: started.append(words))
    monkeypatch.setattr(os, "fork", lambda: pytest.fail("there is nothing to be a template of"))
    argv = ["/bin/metier", "processor", "--config", str(tmp_path / "config.json")]
    processor.main(argv)
    assert started[0][:2] == ("/bin/metier", argv) and processor.VARIABLE not in started[0][2]
