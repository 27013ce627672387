#!/bin/sh
# The main job in short: tune well-known shapes here, then a second process that starts warm.
set -eu
cd -- "$(dirname -- "$0")/.."
build/tilewright demo "$@"
printf '\n'
build/tilewright demo --warm
