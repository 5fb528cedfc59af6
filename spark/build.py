"""Builds the jar: `build.py JAVAC OUT.jar`. The same sources give the same bytes."""

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
SERVICE = "META-INF/services/org.apache.spark.scheduler.ExternalClusterManager"


def compile_all(javac: str, sources: Path, target: Path, *options: str) -> None:
    """Compile every file below `sources`."""
    files = sorted(str(path) for path in sources.rglob("*.java"))
    subprocess.run([javac, "--release", "11", "-Xlint:all", "-Werror", *options, "-d", str(target), *files], check=True)


def main() -> None:
    """Stubs first, then our classes against them; only ours are packed."""
    javac, out = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        stubs, classes = Path(folder, "stubs"), Path(folder, "classes")
        compile_all(javac, FOLDER / "stubs", stubs)
        compile_all(javac, FOLDER / "src", classes, "-cp", str(stubs))
        entries = {str(path.relative_to(classes)): path.read_bytes() for path in classes.rglob("*.class")}
        entries["META-INF/MANIFEST.MF"] = b"Manifest-Version: 1.0\r\n\r\n"
        entries[SERVICE] = b"dev.metier.spark.ClusterManager\n"
        with zipfile.ZipFile(out + ".tmp", "w", zipfile.ZIP_DEFLATED) as jar:
            for name in sorted(entries):
                jar.writestr(zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0)), entries[name])
    Path(out + ".tmp").replace(out)


main()
