#!/usr/bin/env python3
"""The installed tree: what is in it, what pkg-config says, and that the compiler is found in it."""

import json
import os
import re
import shutil
import subprocess
import unittest

import staged


class Files(staged.Staged):
    def test_what_is_installed(self):
        lib = os.path.relpath(self.libdir, self.prefix)
        version = self.pkg_config('--modversion')[0]
        headers = os.listdir(os.path.join(staged.ROOT, 'include/tilewright'))
        expected = ['bin/tilewright', 'share/man/man1/tilewright.1',
                    *(f'include/tilewright/{name}' for name in headers),
                    *(f'{lib}/libtilewright{end}' for end in
                      ('.so', '.so.' + version.split('.')[0], '.so.' + version, '-llvm.so')),
                    f'{lib}/pkgconfig/tilewright.pc']
        there = [os.path.relpath(os.path.join(self.stage, f), self.prefix) for f in self.files]
        self.assertEqual(sorted(there), sorted(expected))

    def test_pkg_config_says_what_a_user_needs_and_no_more(self):
        self.assertEqual(self.pkg_config('--cflags'), [f'-I{self.prefix}/include'])
        self.assertEqual(self.pkg_config('--libs'), [f'-L{self.libdir}', '-ltilewright'])
        with open(os.path.join(staged.ROOT, 'include/tilewright/tilewright.h')) as file:
            version = re.findall(r'TW_VERSION_(?:MAJOR|MINOR|PATCH) (\d+)', file.read())
        self.assertEqual(self.pkg_config('--modversion'), ['.'.join(version)])
        with open(self.pc, encoding='utf-8') as file:
            self.assertNotRegex(file.read(), r'(?i)private|requires|sqlite|sodium|llvm|build')

    def test_nothing_names_the_build_folder(self):
        """A run path into the build folder would hide a library that is missing."""
        for name in ('libtilewright.so', 'libtilewright-llvm.so'):
            path = os.path.join(self.libdir, name)
            told = subprocess.run(['readelf', '-d', path], check=True, stdout=subprocess.PIPE,
                                  text=True).stdout
            self.assertNotRegex(told, 'RPATH|RUNPATH')


class Library(staged.Staged):
    def check_hello(self, program, **env):
        self.assertRegex(self.run_program(program, **env).stdout, r'^y\[0,0\] = \S+ by cpu\.')
        self.assertEqual(self.module_of(program, TW_CACHE=self.path('other.db'), **env),
                         self.libdir)

    def test_by_run_path(self):
        self.check_hello(self.build('examples/hello.c', f'-Wl,-rpath,{self.libdir}'))

    def test_by_the_loaders_path(self):
        self.check_hello(self.build('examples/hello.c'), LD_LIBRARY_PATH=self.libdir)

    def test_behind_a_link(self):
        """The module lies where the library really is, not where a link to it is."""
        os.symlink(os.path.join(self.libdir, 'libtilewright.so.0'), self.path('libtilewright.so.0'))
        self.check_hello(self.build('examples/hello.c', f'-Wl,-rpath,{self.folder}'))


class Program(staged.Staged):
    def check_compiler(self, *command, libdir, **env):
        dump = (*command, 'dump', 'cpu', 'M=1,N=64,K=64,w=f32', '--asm')
        self.assertEqual(self.module_of(*dump, **env), libdir)

    def test_finds_the_compiler_from_its_folder(self):
        self.check_compiler(os.path.join(self.prefix, 'bin/tilewright'), libdir=self.libdir)

    def test_works(self):
        told = self.run_program(os.path.join(self.prefix, 'bin/tilewright'), 'doctor', '--json')
        for record in map(json.loads, told.stdout.splitlines()):
            self.assertNotEqual(record['verdict'], 'failed', record)

    def test_by_name_and_behind_a_link(self):
        os.symlink(os.path.join(self.prefix, 'bin/tilewright'), self.path('tw'))
        self.check_compiler('env', 'tw', libdir=self.libdir,
                            PATH=self.folder + ':' + os.environ['PATH'])

    def test_after_a_move(self):
        moved = self.path('moved')
        shutil.copytree(self.prefix, moved, symlinks=True)
        libdir = os.path.join(moved, os.path.relpath(self.libdir, self.prefix))
        self.check_compiler(os.path.join(moved, 'bin/tilewright'), libdir=libdir)
        self.assertEqual(self.pkg_config('--libs', prefix=moved)[0], f'-L{libdir}')

    def test_without_the_module_the_sentence_names_it(self):
        alone = shutil.copy(os.path.join(self.prefix, 'bin/tilewright'), self.path('alone'))
        if os.path.exists(os.path.join(self.libdir[len(self.stage):], 'libtilewright-llvm.so')):
            self.skipTest('tilewright is installed on this machine')
        done = self.run_program(alone, 'dump', 'cpu', 'M=1,N=64,K=64,w=f32', '--asm', code=1)
        self.assertIn('libtilewright-llvm.so', done.stderr)


class Manual(staged.Staged):
    def test_it_lists_what_help_lists(self):
        """Every command with its very options, and every variable: no more and no fewer."""
        program = os.path.join(self.prefix, 'bin/tilewright')
        with open(os.path.join(self.prefix, 'share/man/man1/tilewright.1')) as file:
            text = file.read().replace('\\-', '-')
        commands = re.findall(r'(?m)^  ([a-z]+)  ', self.run_program(program, '--help').stdout)
        sections = dict(re.findall(r'(?ms)^\.SS (\w+)\n(.*?)(?=^\.S[SH] )', text))
        self.assertEqual(list(sections), commands)
        for command, section in sections.items():
            told = self.run_program(program, command, '--help').stdout
            options = re.findall(r'(?m)^  (--[a-z-]+(?: \S+)?)  ', told)
            self.assertEqual(re.findall(r'(?m)^\.TP\n\\fB(--.*)\\fR$', section), options, command)
        environment = re.search(r'(?ms)^\.SH ENVIRONMENT\n(.*?)^\.SH ', text)[1]
        rows = self.run_program(program, 'list', 'options', '--json').stdout.splitlines()
        self.assertEqual(re.findall(r'\\fB(\w+)\\fR', environment),
                         [json.loads(row)['option'] for row in rows])


if __name__ == '__main__':
    unittest.main()
