#!/bin/sh
# The ten longest delays, with nothing but the shell: longest.sh FLIGHTS.csv.zip
set -eu
python3 -c 'import sys, zipfile; z = zipfile.ZipFile(sys.argv[1]); sys.stdout.write(z.read(z.namelist()[0]).decode())' "$1" |
  awk -F, 'NR == 1 { for (i = 1; i <= NF; i++) column[$i] = i; next }
           $column["dep_delay"] != "" && $column["dep_delay"] != "NA" { print $column["dep_delay"], $column["carrier"] $column["flight"], $column["origin"], $column["dest"] }' |
  sort -rn | head -n 10
