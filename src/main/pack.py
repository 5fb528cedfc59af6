"""Packs files into the bundle that the binary carries: for each file a line `<octal mode> <size> <name>` and its bytes."""

import os
import sys


def main() -> None:
    out, *words = sys.argv[1:]
    entries: list[tuple[str, int, str]] = []
    for word in words:
        # NAME=FILE, NAME/=FOLDER (its .py and other text files), a leading + makes it executable
        name, _, path = word.partition("=")
        mode = 0o755 if name.startswith("+") else 0o644
        name = name.lstrip("+")
        if not name.endswith("/"):
            entries.append((name, mode, path))
            continue
        for folder, folders, files in os.walk(path):
            folders[:] = sorted(f for f in folders if not f.startswith((".", "__pycache__")))
            for file in sorted(files):
                if file.endswith((".py", ".typed", ".json")):
                    full = os.path.join(folder, file)
                    entries.append((name + os.path.relpath(full, path), mode, full))
    blob = bytearray()
    for name, mode, path in sorted(entries):
        with open(path, "rb") as file:
            data = file.read()
        blob += f"{mode:o} {len(data)} {name}\n".encode() + data
    with open(out + ".tmp", "wb") as file:
        file.write(blob)
    os.replace(out + ".tmp", out)


main()
