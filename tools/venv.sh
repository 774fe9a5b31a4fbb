#!/bin/sh
# venv.sh PYTHON PACKAGE...: prints the python of a virtual environment for PYTHON with the packages in it, made once under
# build/ and made anew when the interpreter or the packages change. $VENV_FOR names one apart from the tests' own.
set -eu
cd "$(dirname "$0")/.."
python=$1
shift
tag=$("$python" -c 'import sys, sysconfig; print("%d.%d.%d" % sys.version_info[:3] + ("t" if sysconfig.get_config_var("Py_GIL_DISABLED") else ""))')
venv=build/venv-${VENV_FOR:+$VENV_FOR-}$tag
want="$("$python" -c 'import sys; print(sys.executable)') $*"
if [ "$(cat "$venv/made-of" 2>/dev/null)" != "$want" ]; then
    echo "making $venv with $*" >&2
    rm -rf "$venv"
    "$python" -m venv "$venv" || { echo "python's venv module does not work: apt-get install python3-venv" >&2; exit 1; }
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@" >&2
    echo "$want" > "$venv/made-of"
fi
echo "$PWD/$venv/bin/python"
