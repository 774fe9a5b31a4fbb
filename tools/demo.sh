#!/bin/sh
# Runs the demo on the Python that is named. Needs nothing but Python 3.11 or later.
set -eu
cd "$(dirname "$0")/.."
"$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "plait needs Python 3.11 or later: make demo PYTHON=..."; exit 1; }
PYTHONPATH=src exec "$1" -m demo
