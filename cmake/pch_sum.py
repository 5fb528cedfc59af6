#!/usr/bin/env python3
"""pch_sum.py LAUNCHER... ccache COMPILER ARGUMENT...: runs the command; where it makes a precompiled header, writes the
sum of the header's preprocessed text, macros included, beside it (.sum): the same in every folder and for every user.
ccache takes that sum for the header's contents (CCACHE_PCH_EXTSUM), which hold absolute paths."""

import hashlib
import subprocess
import sys
from pathlib import Path

command = sys.argv[1:]
ended = subprocess.run(command).returncode
output = Path(command[command.index("-o") + 1])
if ended == 0 and output.suffix == ".pch":
    compiler = command[next(i for i, word in enumerate(command) if Path(word).name == "ccache") + 1 :]
    outputs = [i for i, word in enumerate(compiler) if word in ("-o", "-MT", "-MF")]
    left_out = {j for i in outputs for j in (i, i + 1)}
    left_out |= {j for i, word in enumerate(compiler) if word == "-emit-pch" for j in (i - 1, i)}
    words = [word for i, word in enumerate(compiler) if i not in left_out and word not in ("-c", "-MD")]
    text = subprocess.run([*words, "-E", "-dD", "-P"], check=True, stdout=subprocess.PIPE).stdout
    version = subprocess.run([compiler[0], "--version"], check=True, stdout=subprocess.PIPE).stdout
    output.with_name(output.name + ".sum").write_text(hashlib.sha256(version + text).hexdigest() + "\n")
sys.exit(ended)
