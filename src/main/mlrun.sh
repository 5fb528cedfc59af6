#!/bin/sh
# The entry point of pods whose environment has no `mlrun` of its own. The runner is on PYTHONPATH.
exec "${METIER_PYTHON:-python3}" -m metier_runner "$@"
