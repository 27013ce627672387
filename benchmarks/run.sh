#!/bin/sh
# The figures of this project on this machine, beside what they must be: ./dev bench [ARGS].
# benchmarks/figures.py --help tells what can be asked for.
set -eu
cd -- "$(dirname -- "$0")/.."
exec python3 -B benchmarks/figures.py "$@"
