#!/bin/sh
# Fetches llama.cpp's source, whole with ggml, from the sdist of llama-cpp-python into
# build-llama/source, which git ignores.
#
# usage: hosts/ggml/fetch.sh     from anywhere; does only what is left to do
set -eu
cd -- "$(dirname -- "$0")/../.."

version=0.3.36
sha256=832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e
folder=build-llama
archive=$folder/llama_cpp_python-$version.tar.gz

fail() {
    echo "hosts/ggml/fetch.sh: $*" >&2
    exit 1
}

is_right() { [ -f "$archive" ] && [ "$(sha256sum <"$archive")" = "$sha256  -" ]; }

if [ "$(cat $folder/source/.version 2>/dev/null)" = "$version" ]; then
    echo "hosts/ggml/fetch.sh: $folder/source is there"
    exit 0
fi
mkdir -p $folder
if ! is_right; then
    echo "hosts/ggml/fetch.sh: downloading llama-cpp-python $version"
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --no-binary :all: \
        --dest $folder "llama-cpp-python==$version" || fail "pip could not download it"
fi
is_right || fail "$archive has SHA-256 $(sha256sum <"$archive" | cut -c 1-64), expected $sha256"
rm -rf $folder/source $folder/unpacked
mkdir $folder/unpacked
tar -xzf "$archive" -C $folder/unpacked
mv $folder/unpacked/llama_cpp_python-$version/vendor/llama.cpp $folder/source
rm -rf $folder/unpacked
echo $version >$folder/source/.version
echo "hosts/ggml/fetch.sh: $folder/source fetched"
