#!/bin/sh
# Makes the GGUF files of the comparison in models/llama/, which git ignores: SmolLM2-135M in each
# type, from the Q4_1 file of tools/fetch_models.sh, and the shapes of Llama-3.2-1B.
#
# usage: hosts/ggml/models.sh     from anywhere, after build.sh; does only what is left to do
set -eu
cd -- "$(dirname -- "$0")/../.."
given=models/SmolLM2-135M-Instruct.Q4_1.gguf
to=models/llama
mkdir -p $to

# quantize FROM TYPE: into $to/smollm2.TYPE.gguf
quantize() {
    [ -f "$to/smollm2.$2.gguf" ] && return 0
    build-llama/bin/llama-quantize --allow-requantize "$1" $to/part.gguf "$2" 2 >$to/log 2>&1 ||
        { tail -5 $to/log >&2; exit 1; }
    mv $to/part.gguf "$to/smollm2.$2.gguf"
    echo "hosts/ggml/models.sh: $to/smollm2.$2.gguf made"
}

[ -f $to/smollm2.Q4_1.gguf ] || ln -s ../../$given $to/smollm2.Q4_1.gguf
quantize $given F16
for type in Q4_0 Q8_0 Q4_K_M Q6_K; do quantize $to/smollm2.F16.gguf $type; done
for type in Q4_K Q6_K; do
    file=$to/llama1b.$type.gguf
    [ -f "$file" ] || python3 hosts/ggml/shapes_gguf.py llama1b $type "$file"
done
