#!/usr/bin/env python3
"""The shared library exports exactly what the public headers declare with TW_API, and the LLVM
module the one symbol that the library asks it for.

usage: check_symbols.py LIBRARY MODULE NM SOURCE     SOURCE: the root of the repository
"""

import glob
import re
import subprocess
import sys


def declared(header):
    """Names of the functions that the header declares."""
    with open(header, encoding='utf-8') as f:
        text = re.sub(r'/\*.*?\*/', '', f.read(), flags=re.DOTALL)
    text = re.sub(r'(?m)^#.*?(?<!\\)$', '', text, flags=re.DOTALL)
    return set(re.findall(r'TW_API[^;(]*?\b(\w+)\(', text))


def exported(library, nm):
    """Names of the dynamic symbols that the library defines."""
    out = subprocess.run([nm, '-D', '--defined-only', library], check=True, capture_output=True,
                         text=True).stdout
    return {line.split()[-1].split('@')[0] for line in out.splitlines()}


def entry(root):
    """The symbol of the module, as its header names it."""
    with open(root + '/codegen/cpu/module.h', encoding='utf-8') as f:
        return {re.search(r'#define TW_MODULE_SYMBOL "(\w+)"', f.read())[1]}


def main():
    library, module, nm, root = sys.argv[1:]
    headers = glob.glob(root + '/include/tilewright/*.h')
    api = set().union(*map(declared, headers))
    there = exported(library, nm)
    if len(api) < 10 or len(headers) < 4:
        print(f'only {len(api)} functions found in {headers}: this script needs mending')
        return 1
    for name in sorted(api - there):
        print(f'{name}: declared, not exported')
    for name in sorted(there - api):
        print(f'{name}: exported, not declared')
    hidden = exported(module, nm)
    if hidden != entry(root):
        print(f'the module exports {sorted(hidden)}, not {sorted(entry(root))}')
    return 1 if api != there or hidden != entry(root) else 0


if __name__ == '__main__':
    sys.exit(main())
