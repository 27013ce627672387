#!/usr/bin/env python3
"""House style that a formatter cannot see: sizes, who may call what, comments, words.

usage: check_style.py [ROOT]     prints path:line: what is wrong; exit code 1 if anything is
"""

import ast
import os
import re
import sys

import source_tree

FILE_LINES, FUNCTION_LINES, WIDTH = 600, 80, 100
CODE = source_tree.C_LIKE + ('.py', '.sh')
# Rows of recorded numbers or golden output are data, however they are spelt.
DATA = ('tests/data/', 'tests/golden/')

# Call -> who may make it among the library's folders and the tools, and why nobody else does.
CALLS = [
    (r'(?:secure_)?getenv', ('src/base/options.c',),
     ('tests/', 'benchmarks/', 'examples/', 'hosts/'),
     'environment variables are rows of src/base/options.def'),
    (r'v?f?printf|v?dprintf|f?puts|f?putc|putchar|perror', ('src/base/log.c',),
     ('tests/', 'tools/', 'benchmarks/', 'examples/', 'hosts/'),
     'the library writes to no stream: log lines go through src/base/log.h'),
    (r'abort|_?_?exit|_Exit|quick_exit|raise|signal|sigaction', (),
     ('tests/', 'tools/', 'benchmarks/', 'examples/'),
     'the library never ends or interrupts its host: return a tw_status'),
    # An emitter's types are its author's doing, and llvm-c checks none of them.
    (r'assert', (), ('codegen/', 'templates/', 'tests/', 'tools/', 'benchmarks/', 'examples/'),
     'the library never ends its host: return a tw_status, or make it a _Static_assert'),
]

# Written in halves where the whole word would be a finding in this very file.
WORDS = [
    (r'\b(?:TO' r'DO|FIX' r'ME|XX' r'X|HA' r'CK)\b', 'unfinished work is an issue, not a comment'),
    (r'(?i)\bsess' r'ions?\b', 'says how the work was organised, not what the code does'),
    (r'(?<![\w.}/])/(?:wo' r'rk|tm' r'p|ho' r'me|ro' r'ot|mn' r't)/', 'a path of one machine'),
    (r'(?i)\b(?:pypi\.o' r'rg|pythonhosted\.o' r'rg|deb\.debian\.o' r'rg|archive\.ubuntu\.c' r'om)',
     'packages are named, where they come from is the user\'s set-up'),
]

STRINGS_AND_COMMENTS = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'',
                                  re.DOTALL)


def blank(text):
    """C text with comments and literals overwritten by spaces: same lines, same columns."""
    return STRINGS_AND_COMMENTS.sub(lambda m: re.sub(r'[^\n]', ' ', m[0]), text)


def check_text(path, text):
    """Sizes, white space and words, for every kind of file."""
    lines = text.split('\n')
    if path.endswith(CODE) and not path.startswith(DATA) and len(lines) - 1 > FILE_LINES:
        yield FILE_LINES + 1, f'the file has {len(lines) - 1} lines, at most {FILE_LINES}'
    if text and not text.endswith('\n'):
        yield len(lines), 'no newline at the end of the file'
    code = path.endswith(CODE) or path == 'dev'
    for number, line in enumerate(lines, 1):
        if code and len(line) > WIDTH:
            yield number, f'{len(line)} columns, at most {WIDTH}'
        if line.rstrip() != line:
            yield number, 'white space at the end of the line'
        if code and '\t' in line:
            yield number, 'a tab'
        if '\ufffd' in line:
            yield number, 'bytes that are not UTF-8'
        for pattern, why in WORDS:
            word = re.search(pattern, line)
            if word:
                yield number, f'"{word[0]}": {why}'


def check_opening(path, text):
    """A file opens with what it is for."""
    first = text[2:].split('\n', 1)[-1] if text.startswith('#!') else text
    opening = {'.py': ('"""', '#')}.get(os.path.splitext(path)[1], ('#',))
    if path.endswith(source_tree.C_LIKE):
        opening = ('/*', '//')
    if text.strip() and not first.startswith(opening):
        yield 1, 'the file does not open with a comment that says what it is for'


def c_functions(lines):
    """(first line, lines) of each function of clang-formatted C: column 0 opens and closes it."""
    start = None
    for number, line in enumerate(lines, 1):
        if re.match(r'[A-Za-z_]', line) and not line.rstrip().endswith((';', ':')):
            start = number
        if line.startswith('}') and start:
            yield start, number - start + 1
            start = None


def check_c(path, text):
    """Function sizes, forbidden calls, code that is switched off."""
    bare = blank(text)
    lines = bare.split('\n')
    for start, length in c_functions(lines):
        if '(' in lines[start - 1] and length > FUNCTION_LINES:
            yield start, f'the function has {length} lines, at most {FUNCTION_LINES}'
    for number, line in enumerate(lines, 1):
        if re.match(r'\s*#\s*if\s+0\b', line):
            yield number, 'code that is switched off: delete it'
        for pattern, files, folders, why in CALLS:
            call = re.search(r'(?<![\w.>])(' + pattern + r')\s*\(', line)
            if call and path not in files and not path.startswith(folders):
                yield number, f'{call[1]}: {why}'


def check_python(text):
    """Function sizes."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            length = node.end_lineno - node.lineno + 1
            if length > FUNCTION_LINES:
                yield node.lineno, f'the function has {length} lines, at most {FUNCTION_LINES}'


def check_shell(text):
    """Function sizes: a function opens with `name() {` and closes with a brace in column 0."""
    start = 0
    for number, line in enumerate(text.split('\n'), 1):
        if re.match(r'\w+\(\)', line):
            start = number
        if line.startswith('}') and number - start + 1 > FUNCTION_LINES:
            yield start, f'the function has {number - start + 1} lines, at most {FUNCTION_LINES}'


def is_text(root, path):
    with open(os.path.join(root, path), 'rb') as file:
        return b'\0' not in file.read(8192)


def check(root):
    """All violations as 'path:line: text'."""
    wrong = []
    for path in source_tree.files(root):
        if path.startswith(DATA) or not is_text(root, path):
            continue
        text = source_tree.read(root, path)
        found = list(check_text(path, text))
        if path.endswith(CODE) or path == 'dev':
            found += check_opening(path, text)
        if path.endswith(source_tree.C_LIKE):
            found += check_c(path, text)
        elif path.endswith('.py'):
            found += check_python(text)
        elif path.endswith('.sh') or path == 'dev':
            found += check_shell(text)
        wrong += [f'{path}:{line}: {what}' for line, what in sorted(found)]
    return wrong


def main():
    root = sys.argv[1] if len(sys.argv) > 1 else os.path.dirname(os.path.dirname(
        os.path.abspath(__file__)))
    wrong = check(root)
    print('\n'.join(wrong), end='\n' if wrong else '')
    return 1 if wrong else 0


if __name__ == '__main__':
    sys.exit(main())
