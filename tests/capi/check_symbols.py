#!/usr/bin/env python3
"""The shared library exports exactly what the headers declare with TW_API.

usage: check_symbols.py LIBRARY NM HEADER...
"""

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


def main():
    library, nm, *headers = sys.argv[1:]
    api = set().union(*map(declared, headers))
    there = exported(library, nm)
    if len(api) < 10:
        print(f'only {len(api)} functions found in {headers}: this script needs mending')
        return 1
    for name in sorted(api - there):
        print(f'{name}: declared, not exported')
    for name in sorted(there - api):
        print(f'{name}: exported, not declared')
    return 1 if api != there else 0


if __name__ == '__main__':
    sys.exit(main())
