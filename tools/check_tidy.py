#!/usr/bin/env python3
"""clang-tidy over the C and C++ files that the build compiles, but only over those that have
changed since they last passed: what passed is remembered by a hash of the file, of all headers of
ours that it includes, of its compile command and of .clang-tidy.

usage: check_tidy.py BUILD [--all]     BUILD holds compile_commands.json and receives the memory
"""

import concurrent.futures
import hashlib
import json
import os
import subprocess
import sys

import source_tree

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TIDY = 'clang-tidy-19'


def units(build):
    """{our path: compile command}; a file that several targets compile is checked once."""
    with open(os.path.join(build, 'compile_commands.json'), encoding='utf-8') as file:
        commands = json.load(file)
    found = {}
    for entry in commands:
        absolute = os.path.normpath(os.path.join(entry['directory'], entry['file']))
        path = os.path.relpath(absolute, ROOT).replace(os.sep, '/')
        ours = path.startswith(tuple(f + '/' for f in source_tree.FOLDERS))
        if ours and path.endswith(('.c', '.cpp')):
            found.setdefault(path, entry['command'])
    return found


def fingerprint(path, command, known):
    """Changes whenever clang-tidy might say something else about the file."""
    digest = hashlib.sha256(command.encode())
    for name in ['.clang-tidy', 'tests/.clang-tidy'] + source_tree.closure(ROOT, path, known):
        with open(os.path.join(ROOT, name), 'rb') as file:
            content = file.read()
        digest.update(f'\0{name}\0{len(content)}\0'.encode())
        digest.update(content)
    return digest.hexdigest()


def tidy(build, path):
    """None when the file passes, else what clang-tidy says."""
    run = subprocess.run([TIDY, '--quiet', '-p', build, path], cwd=ROOT, check=False, text=True,
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    return None if run.returncode == 0 else run.stdout + run.stderr


def main():
    build = os.path.abspath(sys.argv[1])
    memory = os.path.join(build, 'clang-tidy-passed')
    passed = set()
    if '--all' not in sys.argv and os.path.exists(memory):
        with open(memory, encoding='utf-8') as file:
            passed = set(file.read().split())
    known = {}
    prints = {path: fingerprint(path, command, known) for path, command in units(build).items()}
    todo = sorted(path for path in prints if prints[path] not in passed)
    still = {p for p in prints.values() if p in passed}
    workers = len(os.sched_getaffinity(0))
    failed = 0
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        for path, said in zip(todo, pool.map(lambda path: tidy(build, path), todo)):
            if said is None:
                still.add(prints[path])
            else:
                failed += 1
                print(said, end='')
    with open(memory, 'w', encoding='utf-8') as file:
        file.write('\n'.join(sorted(still)) + '\n')
    print(f'clang-tidy: {len(prints)} files, {len(todo)} changed, {failed} failed')
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main())
