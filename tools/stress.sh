#!/bin/sh
# stress.sh PYTHON: the long form of the stress tests on PYTHON and on a free-threaded build, then the long run on both at once,
# STRESS_MINUTES (30) of it. Its figures go to build/long-run-VERSION.json, and as a table to the terminal.
set -eu
cd "$(dirname "$0")/.."
python=$1
status=0
PLAIT_STRESS=1 tools/test.sh "$python" tests/stress tests/fuzz || status=1

figures() {  # INTERPRETER: the file for its figures
    "$1" -c 'import platform, sysconfig
print("build/long-run-" + platform.python_version() + ("t" if sysconfig.get_config_var("Py_GIL_DISABLED") else "") + ".json")'
}

echo "== the long run, ${STRESS_MINUTES:-30} minutes on each build"
mkdir -p build
files=
children=
trap 'kill $children 2>/dev/null || true; exit 130' INT TERM  # what a shell runs in the background doesn't hear Ctrl-C
for interpreter in "$python" $(tools/freethreaded.sh || true); do
    file=$(figures "$interpreter")
    rm -f "$file"
    PYTHONPATH=src "$interpreter" -X faulthandler tests/stress/long_run.py --json "$file" &
    children="$children $!"
    files="$files $file"
done
for child in $children; do
    wait "$child" || status=1
done
# shellcheck disable=SC2086  # a list of paths
PYTHONPATH=src "$python" tests/stress/long_run.py --table $files || status=1
exit $status
