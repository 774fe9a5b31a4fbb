#!/bin/sh
# The figures: on PYTHON, on python3.13 where there is one, and on a free-threaded build; uvloop in an environment of its own.
set -eu
cd "$(dirname "$0")/.."
python=$1
set -- --python "$python"
for other in ${PLAIT_BENCH_PYTHONS:-$(command -v python3.13 || true)}; do set -- "$@" --python "$other"; done
if free=$(tools/freethreaded.sh); then set -- "$@" --python "$free"; fi
PYTHONPATH=src exec "$python" -m bench --install-peers "$@" ${BENCH_OPTIONS:-}
