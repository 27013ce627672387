"""Writes a GGUF file of a model's shapes, with random weights and no tokenizer: what llama-bench
needs to be timed.

  llama1b    Llama-3.2-1B, four layers of it
  smollm2    SmolLM2-135M, for where the real one is not at hand

Sizes: config.json of meta-llama/Llama-3.2-1B and HuggingFaceTB/SmolLM2-135M-Instruct.  Keys:
llama.cpp's gguf-py (constants.py) and docs/gguf.md of ggml.

usage: shapes_gguf.py llama1b|smollm2 F16|Q4_K|Q6_K OUT.gguf
"""

import collections
import os
import random
import struct
import sys

Shapes = collections.namedtuple('Shapes', 'embedding feed_forward heads kv_heads vocabulary layers '
                                          'rope')
MODELS = {'llama1b': Shapes(2048, 8192, 32, 8, 128256, 4, 500000.0),
          'smollm2': Shapes(576, 1536, 9, 3, 49152, 30, 100000.0)}
# Id, elements and bytes of a block, and where its f16 scales lie.
Type = collections.namedtuple('Type', 'number block size scales')
TYPES = {'F16': Type(1, 256, 512, range(0, 512, 2)), 'Q4_K': Type(12, 256, 144, (0, 2)),
         'Q6_K': Type(14, 256, 210, (208,))}
F32 = 0
UINT32, FLOAT32, STRING = 4, 6, 8


def text(value):
    data = value.encode()
    return struct.pack('<Q', len(data)) + data


def key(name, kind, value):
    packed = {UINT32: lambda: struct.pack('<I', value), FLOAT32: lambda: struct.pack('<f', value),
              STRING: lambda: text(value)}[kind]()
    return text(name) + struct.pack('<I', kind) + packed


def keys(model):
    return [key('general.architecture', STRING, 'llama'),
            key('llama.block_count', UINT32, model.layers),
            key('llama.context_length', UINT32, 2048),
            key('llama.embedding_length', UINT32, model.embedding),
            key('llama.feed_forward_length', UINT32, model.feed_forward),
            key('llama.attention.head_count', UINT32, model.heads),
            key('llama.attention.head_count_kv', UINT32, model.kv_heads),
            key('llama.attention.layer_norm_rms_epsilon', FLOAT32, 1e-5),
            key('llama.rope.dimension_count', UINT32, model.embedding // model.heads),
            key('llama.rope.freq_base', FLOAT32, model.rope),
            key('llama.vocab_size', UINT32, model.vocabulary),
            key('tokenizer.ggml.model', STRING, 'no_vocab')]


def tensors(model):
    """Name, rows, columns; one row: a vector."""
    embedding, feed_forward = model.embedding, model.feed_forward
    kv = embedding // model.heads * model.kv_heads
    yield 'token_embd.weight', model.vocabulary, embedding
    yield 'output_norm.weight', 1, embedding
    for i in range(model.layers):
        yield f'blk.{i}.attn_norm.weight', 1, embedding
        yield f'blk.{i}.attn_q.weight', embedding, embedding
        yield f'blk.{i}.attn_k.weight', kv, embedding
        yield f'blk.{i}.attn_v.weight', kv, embedding
        yield f'blk.{i}.attn_output.weight', embedding, embedding
        yield f'blk.{i}.ffn_norm.weight', 1, embedding
        yield f'blk.{i}.ffn_gate.weight', feed_forward, embedding
        yield f'blk.{i}.ffn_up.weight', feed_forward, embedding
        yield f'blk.{i}.ffn_down.weight', embedding, feed_forward


def blocks(kind, seed):
    """A thousand blocks or so, of small scales."""
    number = random.Random(seed)
    data = bytearray(number.randbytes(kind.size * 1024))
    for at in range(0, len(data), kind.size):
        for scale in kind.scales:
            value = 0.0004 if len(kind.scales) < 3 else number.gauss(0, 0.02)
            data[at + scale:at + scale + 2] = struct.pack('<e', value)
    return bytes(data)


def main(model, kind, path):
    head, data, end = b'', [], 0
    for name, rows, columns in tensors(model):
        weights = rows > 1
        shape = (columns, rows) if weights else (columns,)
        size = rows * columns * kind.size // kind.block if weights else columns * 4
        head += text(name) + struct.pack('<I', len(shape)) + struct.pack(f'<{len(shape)}Q', *shape)
        head += struct.pack('<IQ', kind.number if weights else F32, end)
        data.append((weights, size))
        end += -(-size // 32) * 32
    said = keys(model)
    head = b'GGUF' + struct.pack('<IQQ', 3, len(data), len(said)) + b''.join(said) + head
    random_blocks = blocks(kind, 1)
    with open(path + '.part', 'wb') as file:
        file.write(head + b'\0' * (-len(head) % 32))
        for weights, size in data:
            unit = random_blocks if weights else struct.pack('<f', 1.0) * 1024
            for at in range(0, size, len(unit)):
                file.write(unit[:size - at])
            file.write(b'\0' * (-size % 32))
    os.replace(path + '.part', path)


if __name__ == '__main__':
    if len(sys.argv) != 4 or sys.argv[1] not in MODELS or sys.argv[2] not in TYPES:
        sys.exit(__doc__)
    main(MODELS[sys.argv[1]], TYPES[sys.argv[2]], sys.argv[3])
