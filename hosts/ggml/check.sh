#!/bin/sh
# What must be right before speed is looked at: our own cases, ggml's suites of matrix products, of
# norms, of SWIGLU and of what is done with heads, a part of that of attention, a model of which
# ggml computes a part itself (by the same threads, whose matrix unit it configures once), and that
# a ggml of another backend API version refuses the backend with a sentence.
#
# usage: hosts/ggml/check.sh     from anywhere, after build.sh
set -eu
cd -- "$(dirname -- "$0")/../.."
folder=build-llama
export GGML_BACKEND_PATH="$PWD/$folder/libggml-tilewright.so"

$folder/test-backend
TW_GGML_STRICT=1 $folder/test-backend >$folder/strict.log || {
    grep WRONG $folder/strict.log >&2
    exit 1
}
for microseconds in 0 1000 3000 10000 30000; do
    $folder/test-backend leave $microseconds 2>/dev/null || {
        echo "hosts/ggml/check.sh: a process that ended after $microseconds us crashed" >&2
        exit 1
    }
done
# suite OPERATION [PARAMETERS]
suite() {
    $folder/bin/test-backend-ops test -b Tilewright -o "$1" ${2:+-p "$2"} >$folder/ops.log 2>&1 || {
        grep -a FAIL $folder/ops.log >&2
        exit 1
    }
    echo "$1: $(grep -a 'tests passed' $folder/ops.log)"
}
suite MUL_MAT
suite FLASH_ATTN_EXT 'hsk=(64|128|192),.*nb=(1|3|32|75),.*type_K=(f16|q8_0),'
suite RMS_NORM
suite RMS_NORM_MUL_ADD
suite ROPE
suite SET_ROWS
suite SWIGLU
for model in models/llama/smollm2.*.gguf; do
    $folder/bin/llama-bench -m "$model" -t 2 -p 64 -n 1 -r 1 -ngl 15 >$folder/shared.log 2>&1 || {
        echo "hosts/ggml/check.sh: $model, half of whose layers ggml has, failed" >&2
        tail -3 $folder/shared.log >&2
        exit 1
    }
done
export GGML_BACKEND_PATH="$PWD/$folder/libggml-tilewright-other.so"
$folder/test-backend 2>&1 | grep 'incompatible API version' || {
    echo 'hosts/ggml/check.sh: a backend for another API version was not refused' >&2
    exit 1
}
