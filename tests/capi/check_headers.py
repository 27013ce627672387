#!/usr/bin/env python3
"""Each public header by itself, as strict C11 and C++17, by the compilers that there are.

usage: check_headers.py INCLUDE ABI COMPILER...
    INCLUDE    the folder that holds tilewright/
    ABI        a stand-in for the user's own dlpack.h, which tilewright/dlpack.h needs before it
    COMPILER   of C, then of C++, and so on by pairs
"""

import os
import shutil
import subprocess
import sys

# Nothing that a user turns on for code of their own may fire inside of ours.
WARNINGS = ['-pedantic-errors', '-Wall', '-Wextra', '-Werror', '-Wconversion', '-Wsign-conversion',
            '-Wshadow', '-Wundef', '-Wcast-qual', '-Wunused']
LANGUAGES = [('c', '-std=c11', ['-Wstrict-prototypes']),
             ('c++', '-std=c++17', ['-Wold-style-cast', '-Wzero-as-null-pointer-constant'])]


def compiles(compiler, language, include, text):
    """Whether the text compiles with nothing but `include` in sight."""
    name, standard, extra = language
    done = subprocess.run([compiler, '-x', name, standard, *WARNINGS, *extra, '-I', include,
                           '-fsyntax-only', '-'], input=text, text=True, check=False)
    if done.returncode:
        print(f'{compiler} {standard} refuses:\n{text}')
    return done.returncode == 0


def main():
    include, abi, *compilers = sys.argv[1:]
    with open(abi, encoding='utf-8') as file:
        stand_in = file.read()
    headers = sorted(os.listdir(os.path.join(include, 'tilewright')))
    if len(headers) < 4:
        print(f'only {headers} in {include}: this script needs mending')
        return 1
    good, runs = True, 0
    for place, compiler in enumerate(compilers):
        if not shutil.which(compiler):
            continue
        for header in headers:
            line = f'#include <tilewright/{header}>\n'
            # Twice: headers have guards.
            text = (stand_in if header == 'dlpack.h' else '') + 2 * line
            good = compiles(compiler, LANGUAGES[place % 2], include, text) and good
            runs += 1
    if runs < 2 * len(headers):
        print(f'too few of {compilers} are here')
        return 1
    return 0 if good else 1


if __name__ == '__main__':
    sys.exit(main())
