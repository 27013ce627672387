#!/bin/sh
# Runs the compiler, by CMake's CMAKE_CXX_COMPILER_LAUNCHER.  GCC's _tile_loadconfig tells it that
# eight of the table's 64 bytes are read (12 and 13 at least), so that it drops stores of the others
# from ggml's AMX kernels, which then stop at an illegal instruction: there dead stores are kept.
#
# usage: hosts/ggml/compiler.sh COMPILER ARGUMENT...
set -eu
case "$*" in
*ggml-cpu/amx/mmq.cpp*) exec "$@" -fno-dse -fno-tree-dse ;;
esac
exec "$@"
