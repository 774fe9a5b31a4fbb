#!/bin/sh
# libraries.sh [--if-possible] PYTHON [ARGUMENT...]: tests/libraries on PYTHON and on a free-threaded build, against PostgreSQL and
# Redis. The arguments are pytest's; "sharing" instead prints what sharing a pool between strands costs.
# As root it installs Debian's servers where they are missing; otherwise it says what to install, and fails; with --if-possible
# it says that the tests are left out, and succeeds, save in CI ($CI is set).
# The libraries are in tests/libraries/requirements.txt, with those that the free-threaded build has to do without, and why.
set -eu
cd "$(dirname "$0")/.."
optional=
if [ "$1" = --if-possible ]; then optional=1; shift; fi
python=$1
shift

missing() {
    command -v redis-server >/dev/null || printf 'redis-server '
    for initdb in /usr/lib/postgresql/*/bin/initdb "$(command -v initdb || true)"; do
        if [ -x "$initdb" ]; then return; fi
    done
    printf 'postgresql '
}

packages=$(missing)
if [ -n "$packages" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "installing $packages"
    apt-get update -qq
    # shellcheck disable=SC2086  # a list of words
    RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $packages >/dev/null  # starts no service
    packages=$(missing)
fi
if [ -n "$packages" ]; then
    if [ -n "$optional" ] && [ -z "${CI:-}" ]; then
        echo "== tests/libraries LEFT OUT: they need servers; run as root:  apt-get install $packages"
        exit 0
    fi
    echo "the library tests need servers; run as root:  apt-get install $packages" >&2
    exit 1
fi

list=tests/libraries/requirements.txt
left_out=$(sed -n 's/^\([a-z-]*==[^ ]*\) *# not free-threaded/left out: \1/p' "$list")
all=$(sed 's/#.*//' "$list")
some=$(grep -v 'not free-threaded:' "$list" | sed 's/#.*//')
tools="pytest==9.2.0 pytest-timeout==2.4.0"

run() { # interpreter, pytest's arguments
    interpreter=$1
    shift
    if [ "${1:-}" = sharing ]; then
        PYTHONPATH=src:tests/libraries "$interpreter" tests/libraries/sharing.py
    else
        PLAIT_LIBRARIES=1 PYTHONPATH=src "$interpreter" -X faulthandler -m pytest -p no:asyncio -p no:anyio \
            "$@" tests/libraries
    fi
}

status=0
# shellcheck disable=SC2086  # lists of packages
gil=$(VENV_FOR=libraries tools/venv.sh "$python" $tools $all)
echo "== libraries on $("$gil" -VV)"
run "$gil" "$@" || status=1
if interpreter=$(tools/freethreaded.sh); then
    # shellcheck disable=SC2086
    free=$(VENV_FOR=libraries tools/venv.sh "$interpreter" $tools $some)
    echo "== libraries on $("$free" -VV), with PYTHON_GIL=0"
    echo "$left_out"
    PYTHON_GIL=0 run "$free" "$@" || status=1
elif [ -n "${CI:-}" ]; then
    echo "CI must test the free-threaded build as well" >&2
    exit 1
else
    echo "no free-threaded Python: the libraries were tested on the GIL build alone"
fi
exit $status
