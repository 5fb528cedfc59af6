"""A processor of its own per function: `metier processor --config FILE` with real workers, driven over HTTP and raw sockets."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from processors import ALONE, BINARY, ROOT, Answer, Make, Processor, children, until

__all__ = ["ALONE", "BINARY", "ROOT", "Answer", "Make", "Processor", "children", "until"]


@pytest.fixture(scope="session")
def lib(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The unpacked worker: the tree's own Python files and the extension that was built with the binary."""
    folder = tmp_path_factory.mktemp("lib")
    shutil.copytree(
        ROOT / "python" / "worker" / "metier_worker",
        folder / "metier_worker",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    extension = Path(BINARY).parent / "worker" / "_ring.abi3.so"
    if extension.exists():
        shutil.copy(extension, folder / "metier_worker")
    return str(folder)


@pytest.fixture
def make(tmp_path: Path, lib: str, request: pytest.FixtureRequest) -> Iterator[Make]:
    made = Make(tmp_path, lib)
    yield made
    logs = []
    for processor in made.running:
        processor.stop(kill=processor.process.poll() is None and getattr(processor, "kill", False))
        logs.append(processor.log())
    assert "AddressSanitizer" not in "".join(logs) and "Assertion" not in "".join(logs), "".join(logs)[-4000:]
