"""What the lint tools share: which files are ours, and who includes whom.

Files are found by walking the tree, not by asking git, so that lint works on a copy without git.
"""

import os
import re

# Folders of the tree, in the order of the layers; whatever else lies at the root is not linted.
FOLDERS = ('include', 'src', 'cache', 'codegen', 'templates', 'autotune', 'tools', 'tests',
           'benchmarks', 'examples', 'hosts', 'python', 'docs', '.ci')
# Folders whose code ends up in the library.
LIBRARY = ('include', 'src', 'cache', 'codegen', 'templates', 'autotune')
C_LIKE = ('.c', '.h', '.def', '.cu', '.cuh', '.metal', '.cc', '.cpp')

INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*([<"])([^>"\n]+)[>"]', re.MULTILINE)


def files(root, suffixes=None):
    """Sorted paths of our files, relative to root, with forward slashes."""
    found = []
    for folder in FOLDERS:
        for where, folders, names in os.walk(os.path.join(root, folder)):
            folders[:] = [f for f in folders if f != '__pycache__' and not f.startswith('.')]
            found += [os.path.relpath(os.path.join(where, n), root) for n in names]
    found += [n for n in os.listdir(root) if os.path.isfile(os.path.join(root, n))
              and n in ('dev', 'README.md', 'meson.build', 'meson.options')]
    return sorted(f.replace(os.sep, '/') for f in found
                  if suffixes is None or f.endswith(tuple(suffixes)))


def read(root, path):
    """A file's text; bytes that are not UTF-8 become U+FFFD, which the style check reports."""
    with open(os.path.join(root, path), encoding='utf-8', errors='replace') as file:
        return file.read()


def resolve(root, name):
    """The file of ours that an include means, or None for somebody else's header."""
    for candidate in (name, 'include/' + name):
        if os.path.isfile(os.path.join(root, candidate)):
            return candidate
    return None


def includes(root, path):
    """(line number, '<' or '"', name as written, our file or None) for each include of a file."""
    text = read(root, path)
    return [(text.count('\n', 0, m.start()) + 1, m[1], m[2], resolve(root, m[2]))
            for m in INCLUDE.finditer(text)]


def closure(root, path, known):
    """path and all files of ours it includes, directly or not; known caches the direct ones."""
    seen, todo = set(), [path]
    while todo:
        file = todo.pop()
        if file in seen:
            continue
        seen.add(file)
        if file not in known:
            known[file] = [target for _, _, _, target in includes(root, file) if target]
        todo += known[file]
    return sorted(seen)
