#!/bin/sh
# Builds the fuzz targets with libFuzzer and the address and undefined-behaviour sanitizers, and
# runs each.
#
# usage: tests/fuzz/run.sh [SECONDS]     each target runs for so long (60)
#
# The corpus starts from tests/fuzz/corpus/TARGET and the files of tests/data, and grows in
# build-fuzz/corpus/TARGET.  A find is written to build-fuzz/find-TARGET-*: fix it, then keep it
# in tests/fuzz/corpus/TARGET, where the plain tests run it from then on.
set -eu

cd -- "$(dirname -- "$0")/../.."
seconds=${1:-60}
out=build-fuzz
compiler=${CLANG:-clang-19}

command -v "$compiler" >/dev/null || {
    echo "fuzz: $compiler is missing: install the package clang-19" >&2
    exit 1
}

# The sources are few, so that one call a target is simpler than a build of its own.
compile() {
    # shellcheck disable=SC2046
    "$compiler" -std=gnu17 -g -O1 -fno-omit-frame-pointer -DNDEBUG -I. -Iinclude \
        -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all \
        "tests/fuzz/fuzz_$1.c" src/base/*.c src/core/*.c src/format/*.c \
        -o "$out/fuzz_$1" $(pkg-config --cflags --libs jansson libpcre2-8 libsodium) -lm
}

# fuzz TARGET SEEDS...
# malloc_limit: no count in a file may decide how much is allocated.
# close_fd_mask: warnings about files would be most of the output; libFuzzer's own lines stay.
fuzz() {
    target=$1
    shift
    echo "fuzz: $target for $seconds s"
    compile "$target"
    mkdir -p "$out/corpus/$target"
    [ ! -f "tests/fuzz/$target.dict" ] || set -- "-dict=tests/fuzz/$target.dict" "$@"
    "$out/fuzz_$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=1024 \
        -malloc_limit_mb=64 -max_len=65536 -print_final_stats=1 -verbosity=0 \
        -close_fd_mask=2 \
        -artifact_prefix="$out/find-$target-" \
        "$out/corpus/$target" "tests/fuzz/corpus/$target" "$@"
}

mkdir -p "$out"
fuzz gguf tests/data/gguf tests/data/gguf/broken
fuzz safetensors tests/data/safetensors_broken tests/data/sharded/plain_f16_bf16_f32
fuzz config_json tests/data/sharded/plain_f16_bf16_f32 tests/data/sharded/gptq_2_shards
fuzz checkpoint
fuzz problem
echo "fuzz: nothing found"
