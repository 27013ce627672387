"""Writes a GGUF file of the shapes of Llama-3.2-1B, four layers of them, with random weights and no
tokenizer: what llama-bench needs to be timed.

Sizes: config.json of meta-llama/Llama-3.2-1B.  Keys: llama.cpp's gguf-py (constants.py) and
docs/gguf.md of ggml.

usage: shapes_gguf.py Q4_K|Q6_K OUT.gguf
"""

import os
import random
import struct
import sys

EMBEDDING, FEED_FORWARD, HEADS, KV_HEADS, VOCABULARY, LAYERS = 2048, 8192, 32, 8, 128256, 4
F32, BLOCK = 0, 256
# Id, bytes of a block, and where its f16 scales lie.
TYPES = {'Q4_K': (12, 144, (0, 2)), 'Q6_K': (14, 210, (208,))}
UINT32, FLOAT32, STRING = 4, 6, 8


def text(value):
    data = value.encode()
    return struct.pack('<Q', len(data)) + data


def key(name, kind, value):
    packed = {UINT32: lambda: struct.pack('<I', value), FLOAT32: lambda: struct.pack('<f', value),
              STRING: lambda: text(value)}[kind]()
    return text(name) + struct.pack('<I', kind) + packed


def keys():
    head = EMBEDDING // HEADS
    return [key('general.architecture', STRING, 'llama'),
            key('general.name', STRING, 'shapes of Llama-3.2-1B'),
            key('llama.block_count', UINT32, LAYERS),
            key('llama.context_length', UINT32, 2048),
            key('llama.embedding_length', UINT32, EMBEDDING),
            key('llama.feed_forward_length', UINT32, FEED_FORWARD),
            key('llama.attention.head_count', UINT32, HEADS),
            key('llama.attention.head_count_kv', UINT32, KV_HEADS),
            key('llama.attention.layer_norm_rms_epsilon', FLOAT32, 1e-5),
            key('llama.rope.dimension_count', UINT32, head),
            key('llama.rope.freq_base', FLOAT32, 500000.0),
            key('llama.vocab_size', UINT32, VOCABULARY),
            key('tokenizer.ggml.model', STRING, 'no_vocab')]


def tensors():
    """Name, rows, columns; one row: a vector."""
    kv = EMBEDDING // HEADS * KV_HEADS
    yield 'token_embd.weight', VOCABULARY, EMBEDDING
    yield 'output_norm.weight', 1, EMBEDDING
    for i in range(LAYERS):
        yield f'blk.{i}.attn_norm.weight', 1, EMBEDDING
        yield f'blk.{i}.attn_q.weight', EMBEDDING, EMBEDDING
        yield f'blk.{i}.attn_k.weight', kv, EMBEDDING
        yield f'blk.{i}.attn_v.weight', kv, EMBEDDING
        yield f'blk.{i}.attn_output.weight', EMBEDDING, EMBEDDING
        yield f'blk.{i}.ffn_norm.weight', 1, EMBEDDING
        yield f'blk.{i}.ffn_gate.weight', FEED_FORWARD, EMBEDDING
        yield f'blk.{i}.ffn_up.weight', FEED_FORWARD, EMBEDDING
        yield f'blk.{i}.ffn_down.weight', EMBEDDING, FEED_FORWARD


def blocks(kind, seed):
    """A thousand blocks or so, of small scales."""
    _, size, scales = TYPES[kind]
    data = bytearray(random.Random(seed).randbytes(size * 1024))
    for at in range(0, len(data), size):
        for scale in scales:
            data[at + scale:at + scale + 2] = struct.pack('<e', 0.0004)
    return bytes(data)


def main(kind, path):
    head, data, end = b'', [], 0
    for name, rows, columns in tensors():
        quantized = rows > 1
        shape = (columns, rows) if quantized else (columns,)
        size = rows * columns // BLOCK * TYPES[kind][1] if quantized else columns * 4
        head += text(name) + struct.pack('<I', len(shape)) + struct.pack(f'<{len(shape)}Q', *shape)
        head += struct.pack('<IQ', TYPES[kind][0] if quantized else F32, end)
        data.append((quantized, size))
        end += -(-size // 32) * 32
    head = b'GGUF' + struct.pack('<IQQ', 3, len(data), len(keys())) + b''.join(keys()) + head
    random_blocks = blocks(kind, 1)
    with open(path + '.part', 'wb') as file:
        file.write(head + b'\0' * (-len(head) % 32))
        for quantized, size in data:
            unit = random_blocks if quantized else struct.pack('<f', 1.0) * 1024
            for at in range(0, size, len(unit)):
                file.write(unit[:size - at])
            file.write(b'\0' * (-size % 32))
    os.replace(path + '.part', path)


if __name__ == '__main__':
    if len(sys.argv) != 3 or sys.argv[1] not in TYPES:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2])
