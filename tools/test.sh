#!/bin/sh
# test.sh PYTHON [PATH...]: lint, types, and the tests in PATH (all) on PYTHON and on a free-threaded build.
# tests/libraries need servers and an environment of their own: tools/libraries.sh runs them, after all the others.
# Without a free-threaded build it says so and tests PYTHON alone, save in CI ($CI is set), where it fails.
set -eu
cd "$(dirname "$0")/.."
python=$1
shift
tests=${*:-tests}

gil=$(tools/venv.sh "$python" pytest==9.2.0 pytest-timeout==2.4.0 ruff==0.17.6 mypy==2.4.1)
echo "== ruff and mypy"
"$gil" -m ruff check .
"$gil" -m ruff format --check .
"$gil" -m mypy

free=
if interpreter=$(tools/freethreaded.sh); then
    free=$(tools/venv.sh "$interpreter" pytest==9.2.0 pytest-timeout==2.4.0)
elif [ -n "${CI:-}" ]; then
    echo "CI must test the free-threaded build as well" >&2
    exit 1
else
    echo "no free-threaded Python: testing the GIL build alone"
fi

status=0
for interpreter in "$gil" $free; do
    echo "== tests on $("$interpreter" -VV)"
    # shellcheck disable=SC2086  # a list of paths
    PYTHONPATH=src "$interpreter" -X faulthandler -m pytest $tests --ignore=tests/libraries || status=1
done
if [ "$tests" = tests ]; then
    tools/libraries.sh --if-possible "$python" || status=1
fi
exit $status
