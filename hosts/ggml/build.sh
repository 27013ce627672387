#!/bin/sh
# Builds stock llama.cpp's tools into build-llama/bin and our backend beside them, against
# build/libtilewright.so.
#
# usage: hosts/ggml/build.sh     from anywhere, after fetch.sh and ./dev build; what is built stays
set -eu
cd -- "$(dirname -- "$0")/../.."
folder=build-llama
tools='llama-bench llama-perplexity llama-quantize test-backend-ops'

[ -f $folder/build.ninja ] ||
    cmake -S $folder/source -B $folder -G Ninja -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=ON \
        -DCMAKE_CXX_COMPILER_LAUNCHER="$PWD/hosts/ggml/compiler.sh" -DGGML_NATIVE=ON \
        -DLLAMA_OPENSSL=OFF -DLLAMA_BUILD_SERVER=OFF -DLLAMA_BUILD_EXAMPLES=OFF \
        >$folder/configure.log
# shellcheck disable=SC2086 # a list of words
ninja -C $folder $tools

# backend OUTPUT [ARGUMENT...]
backend() {
    output=$1
    shift
    "${CC:-cc}" -std=gnu17 -O2 -g -fPIC -shared -fvisibility=hidden -Wall -Wextra -Werror \
        -DGGML_BACKEND_DL -DGGML_BACKEND_SHARED -DGGML_BACKEND_BUILD -DGGML_SHARED -I. -Iinclude \
        -isystem $folder/source/ggml/include -isystem $folder/source/ggml/src "$@" \
        hosts/ggml/*.c -o "$output" -L$folder/bin -lggml -lggml-base -Lbuild -ltilewright \
        -Wl,-rpath,"$PWD/build" -Wl,-z,defs -lpthread -lm
}
backend $folder/libggml-tilewright.so
"${CC:-cc}" -std=gnu17 -O1 -g -Wall -Wextra -Werror -I. -isystem $folder/source/ggml/include \
    -isystem $folder/source/ggml/src hosts/ggml/tests/*.c hosts/ggml/attention_kernel.c \
    -o $folder/test-backend -L$folder/bin -lggml -lggml-base -lpthread -lm \
    -Wl,-rpath,"$PWD/$folder/bin"
# As if for another ggml, to see that it is refused.
backend $folder/libggml-tilewright-other.so -DTWG_API_VERSION=GGML_BACKEND_API_VERSION+1
