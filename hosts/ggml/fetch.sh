#!/bin/sh
# Fetches llama.cpp's source, whole with ggml, from the sdist of llama-cpp-python into
# build-llama/source, and a text to read (Lewis Carroll's Alice in Wonderland, in the public domain)
# from Brotli's into build-llama/text.txt.  Git ignores both.
#
# usage: hosts/ggml/fetch.sh     from anywhere; does only what is left to do
set -eu
cd -- "$(dirname -- "$0")/../.."
folder=build-llama

fail() {
    echo "hosts/ggml/fetch.sh: $*" >&2
    exit 1
}

# is_right FILE SHA256
is_right() { [ -f "$1" ] && [ "$(sha256sum <"$1")" = "$2  -" ]; }

# sdist NAME VERSION ARCHIVE SHA256: into $folder/unpacked
sdist() {
    archive=$folder/$3
    is_right "$archive" "$4" || {
        echo "hosts/ggml/fetch.sh: downloading $1 $2"
        python3 -m pip download --quiet --disable-pip-version-check --no-deps --no-binary :all: \
            --dest $folder "$1==$2" || fail "pip could not download $1 $2"
    }
    is_right "$archive" "$4" ||
        fail "$archive has SHA-256 $(sha256sum <"$archive" | cut -c 1-64), expected $4"
    rm -rf $folder/unpacked
    mkdir $folder/unpacked
    tar -xzf "$archive" -C $folder/unpacked
}

mkdir -p $folder
version=0.3.36
if [ "$(cat $folder/source/.version 2>/dev/null)" = "$version" ]; then
    echo "hosts/ggml/fetch.sh: $folder/source is there"
else
    sdist llama-cpp-python $version llama_cpp_python-$version.tar.gz \
        832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e
    rm -rf $folder/source
    mv $folder/unpacked/llama_cpp_python-$version/vendor/llama.cpp $folder/source
    echo $version >$folder/source/.version
    echo "hosts/ggml/fetch.sh: $folder/source fetched"
fi
if [ ! -f $folder/text.txt ]; then
    sdist brotli 1.2.1 brotli-1.2.1.tar.gz \
        02b2f7b5a83485efe448a44ddf7983def05c3bb1dcf917d4f7154070260e13de
    mv $folder/unpacked/brotli-1.2.1/tests/testdata/alice29.txt $folder/text.txt
    echo "hosts/ggml/fetch.sh: $folder/text.txt fetched"
fi
rm -rf $folder/unpacked
