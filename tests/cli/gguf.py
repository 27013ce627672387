"""Writes small GGUF files, as ggml's docs/gguf.md describes them."""

import struct

F32, Q4_0, Q4_1, Q8_0, Q8_1 = 0, 2, 3, 8, 9
# Type -> elements and bytes of a block.
BLOCKS = {F32: (1, 4), Q4_0: (32, 18), Q4_1: (32, 20), Q8_0: (32, 34), Q8_1: (32, 36)}


def _text(value):
    return struct.pack('<Q', len(value)) + value


def write(path, tensors, architecture=b'llama'):
    """tensors: (name, type, shape, data); a shape's outermost dimension stands first, as in [N, K].
    data None: zeros, which take no room on the disk.  Names are bytes."""
    head = b'GGUF' + struct.pack('<IQQ', 3, len(tensors), 1)
    head += _text(b'general.architecture') + struct.pack('<I', 8) + _text(architecture)
    sizes, end = [], 0
    for name, kind, shape, data in tensors:
        elements, size = BLOCKS[kind]
        count = 1
        for n in shape:
            count *= n
        sizes.append(count // elements * size)
        assert data is None or len(data) == sizes[-1]
        head += _text(name) + struct.pack('<I', len(shape))
        head += struct.pack(f'<{len(shape)}Q', *reversed(shape)) + struct.pack('<IQ', kind, end)
        end += -(-sizes[-1] // 32) * 32
    with open(path, 'wb') as file:
        file.write(head + b'\0' * (-len(head) % 32))
        for (_, _, _, data), size in zip(tensors, sizes):
            if data is None:
                file.seek(-(-size // 32) * 32, 1)
            else:
                file.write(data + b'\0' * (-size % 32))
        file.truncate(file.tell())
    return path
