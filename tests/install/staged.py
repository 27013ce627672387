"""A tree as `meson install` leaves it, in a temporary folder, and programs built against it."""

import os
import re
import subprocess
import tempfile
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
# What would help a program to find the library, its module or a cache, or change what it says.
CLEARED = re.compile(r'TW_|XDG_CACHE_HOME|HOME$|LD_|PKG_CONFIG')


class Staged(unittest.TestCase):
    """Installs once for all tests of a class; each test has a folder and a home of its own."""

    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.stage = os.path.join(os.path.realpath(folder.name), 'stage')
        subprocess.run([os.environ['TW_MESON'], 'install', '-C', os.environ['TW_BUILD'],
                        '--no-rebuild', '--quiet', '--destdir', cls.stage], check=True)
        cls.built = {}
        cls.files = sorted(os.path.relpath(os.path.join(where, name), cls.stage)
                           for where, _, names in os.walk(cls.stage) for name in names)
        # Where things went is the builder's choice: the .pc file knows.
        pc, = [f for f in cls.files if f.endswith('/tilewright.pc')]
        cls.pc = os.path.join(cls.stage, pc)
        cls.prefix = cls.stage + cls.variable('prefix')
        cls.libdir = cls.stage + cls.variable('libdir')

    @classmethod
    def variable(cls, name):
        done = subprocess.run([os.environ['TW_PKG_CONFIG'], '--variable=' + name, cls.pc],
                              check=True, stdout=subprocess.PIPE, text=True)
        return done.stdout.strip()

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = os.path.realpath(folder.name)
        self.env = {k: v for k, v in os.environ.items() if not CLEARED.match(k)}
        self.env |= {'HOME': self.folder, 'TW_CACHE_SYSTEM': ''}

    def path(self, name):
        return os.path.join(self.folder, name)

    def pkg_config(self, *options, prefix=None):
        """Flags for the staged tree, as the user of a tree that was moved asks for them."""
        done = subprocess.run([os.environ['TW_PKG_CONFIG'],
                               f'--define-variable=prefix={prefix or self.prefix}', *options,
                               'tilewright'], check=True, stdout=subprocess.PIPE, text=True,
                              env=self.env | {'PKG_CONFIG_PATH': os.path.dirname(self.pc)})
        return done.stdout.split()

    def build(self, source, *flags):
        """Compiles a file of the repository against the staged tree alone, once a class."""
        if (source, flags) in self.built:
            return self.built[source, flags]
        program = os.path.join(os.path.dirname(self.stage), f'program{len(self.built)}')
        subprocess.run([os.environ['TW_CC'], '-Wall', '-Wextra', '-Werror', '-O2',
                        os.path.join(ROOT, source), '-o', program,
                        *self.pkg_config('--cflags', '--libs'), *flags], check=True, env=self.env)
        self.built[source, flags] = program
        return program

    def run_program(self, *command, code=0, **env):
        done = subprocess.run(command, env=self.env | env, cwd=self.folder, text=True, timeout=100,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
        self.assertEqual(done.returncode, code, f'{command}\n{done.stdout}\n{done.stderr}')
        return done

    def module_of(self, *command, **env):
        """Which file the program opened as its compiler; the C library's loader tells."""
        told = self.run_program(*command, LD_DEBUG='files', **env).stderr
        found = re.search(r'file=(\S*)/libtilewright-llvm\.so \[0\];  generating link map', told)
        self.assertTrue(found, told)
        return os.path.realpath(found[1])
