"""Where tests find the serving package with its engine: METIER_SERVING_PATH, else the newest kind of build that is there."""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def use_built() -> None:
    """Let `import metier_serving` find the build's package."""
    for folder in (
        os.environ.get("METIER_SERVING_PATH", ""),
        *(str(ROOT / "build" / p / "serving") for p in ("dev", "release")),
    ):
        if folder and list(Path(folder).glob("metier_serving/_engine*.so")):
            sys.path.insert(0, folder)
            return
