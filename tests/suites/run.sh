#!/usr/bin/env bash
# Suites of servers and of clients, at the server and through a stamp and a guard: are the results the same?
# `make suites`, by hand: it needs the suites' sources, and takes minutes.
#
#   tests/suites/run.sh SOURCES OUT [NAME…]
#
# SOURCES has a folder for each suite (docs/databases-suites.md says what has to be in it); a suite without one is left
# out. OUT gets what is told below, and can be looked at later. NAME: only these. WAYS="direct through failovers": all
# three ways; without, the first two. EVERY=30: seconds between failovers.
set -euo pipefail

own=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tests/suites/suites.sh
. "$own/suites.sh"
(($# >= 2)) || { sed -n '2,10s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 2; }
sources=$1 out=$2
shift 2
(($#)) || set -- "${all_suites[@]}"
mkdir -p "$out"

ran=()
for suite in "$@"; do
  protocol_of "$suite" >/dev/null
  folder=$(sources_of "$suite")
  if [[ -n $folder && ! -d $sources/$folder ]]; then
    echo "$suite is left out: there is no $sources/$folder"
    continue
  fi
  for way in ${WAYS:-direct through}; do
    nice "$own/one.sh" "$suite" "$way" "$sources" "$out" || echo "$suite $way did not come to its end"
  done
  ran+=("$suite")
done
((${#ran[@]})) || exit 1
python3 "$own/compare.py" "$out" "${ran[@]}"
