#!/usr/bin/env python3
"""Layering: an include may only point at a layer that LAYERS allows, a foreign header may only be
included where FOREIGN says, and quoted includes are written from the root of the repository.

usage: check_layers.py [ROOT]     prints path:line: what is wrong; exit code 1 if anything is
"""

import os
import sys

import source_tree

PUBLIC = 'include/tilewright/'
CORE = [PUBLIC, 'src/base/', 'src/core/']
# cache, codegen, src/backend and src/format are siblings: none of them sees another.
SIBLINGS = ['cache/', 'codegen/', 'src/backend/', 'src/format/']

# Layer -> what it may include besides itself.  The longest prefix of a path is its layer.
LAYERS = {
    PUBLIC: [],
    'src/base/': [PUBLIC],
    'src/core/': [PUBLIC, 'src/base/'],
    'src/quant/': CORE,
    'cache/': CORE,
    'codegen/': CORE,
    'src/backend/': CORE,
    'src/format/': CORE,
    'templates/': CORE + ['codegen/'],
    # The tuner hands each measurement to a sink that it is given; it does not know the cache.
    'autotune/': CORE + ['codegen/', 'src/backend/', 'templates/'],
    'src/': CORE + SIBLINGS + ['src/quant/', 'templates/', 'autotune/'],
    'tools/': ['*'],
    'tests/': ['*'],
    # What a user of the library would write may see only what a user sees.
    'benchmarks/': [PUBLIC],
    'examples/': [PUBLIC],
    'hosts/': [PUBLIC],
}

# Headers that meson.build generates.
GENERATED = ('tw_build.h',)

# Foreign header -> layers that may include it.
FOREIGN = {
    'llvm-c/': ['codegen/cpu/'],
    'llvm/': ['codegen/cpu/'],
    'sqlite3.h': ['cache/', 'tests/cache/'],
    'pcre2.h': ['src/base/'],
    'nvrtc.h': ['codegen/cuda/'],
    'cuda.h': ['src/backend/cuda/'],
    'cuda_runtime.h': [],
    'pthreadpool.h': ['src/backend/cpu/'],
    'cpuinfo.h': ['src/backend/cpu/'],
    'cmocka.h': ['tests/'],
}


def layer(path):
    """The layer that a file belongs to, or None."""
    return max((name for name in LAYERS if path.startswith(name)), key=len, default=None)


def check_ours(path, target):
    """What is wrong with `path` including our own file `target`, or None."""
    mine, theirs = layer(path), layer(target)
    allowed = LAYERS[mine]
    if mine == theirs or '*' in allowed or theirs in allowed:
        return None
    return f'{mine} may not include {target}: it sees ' + (', '.join(allowed) or 'nothing of ours')


def check_foreign(path, name):
    """What is wrong with `path` including somebody else's header, or None."""
    for header, where in FOREIGN.items():
        if name == header or (header.endswith('/') and name.startswith(header)):
            if not path.startswith(tuple(where)):
                return f'<{name}> belongs to ' + (', '.join(where) or 'no layer')
    return None


def check(root):
    """All violations as 'path:line: text'."""
    wrong = []
    for path in source_tree.files(root, source_tree.C_LIKE):
        if layer(path) is None:
            wrong.append(f'{path}:1: lies in no layer')
            continue
        for line, quote, name, target in source_tree.includes(root, path):
            if target:
                text = check_ours(path, target)
            elif quote == '"' and name in GENERATED:
                text = None
            elif quote == '"':
                text = f'"{name}" is no file of ours: includes are written from the root'
            else:
                text = check_foreign(path, name)
            if text:
                wrong.append(f'{path}:{line}: {text}')
    return wrong


def main():
    root = sys.argv[1] if len(sys.argv) > 1 else os.path.dirname(os.path.dirname(
        os.path.abspath(__file__)))
    wrong = check(root)
    print('\n'.join(wrong), end='\n' if wrong else '')
    return 1 if wrong else 0


if __name__ == '__main__':
    sys.exit(main())
