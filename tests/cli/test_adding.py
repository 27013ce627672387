#!/usr/bin/env python3
"""docs/adding.md, followed literally in a copy of the tree: every block goes where the sentence
above it says, and the program that is built then has every addition."""

import os
import re
import shutil
import subprocess
import unittest

import cli

PAGE = os.path.join(cli.ROOT, 'docs', 'adding.md')
FOLDERS = ('include', 'src', 'cache', 'codegen', 'templates', 'autotune', 'tools', 'benchmarks')
STEP = re.compile(r'In `([^`]+)`, a (row|line|file)(?: (of|after|before) `([^`]+)`)?:\n\n'
                  r'```\w+\n(.*?)```\n', re.DOTALL)


class Adding(cli.Cli):
    def setUp(self):
        super().setUp()
        self.tree = self.path('tree')
        for folder in FOLDERS:
            shutil.copytree(os.path.join(cli.ROOT, folder), os.path.join(self.tree, folder))
        shutil.copy(os.path.join(cli.ROOT, 'meson.build'), self.tree)
        os.mkdir(os.path.join(self.tree, 'tests'))
        with open(os.path.join(self.tree, 'tests', 'meson.build'), 'w', encoding='utf-8'):
            pass

    def add(self, path, kind, where, anchor, text):
        path = os.path.join(self.tree, path)
        if kind == 'file':
            self.assertFalse(os.path.exists(path), path)
            old = ''
        else:
            with open(path, encoding='utf-8') as file:
                old = file.read()
        if where:
            # A row of an X-macro follows the line that opens it.
            line = next(x for x in old.splitlines(True) if
                        (f'#define {anchor}(X)' if where == 'of' else anchor) in x)
            text = text + line if where == 'before' else line + text
            new = old.replace(line, text, 1)
        else:
            new = old + text
        with open(path, 'w', encoding='utf-8') as file:
            file.write(new)

    def follow(self):
        with open(PAGE, encoding='utf-8') as file:
            page = file.read()
        steps = STEP.findall(page)
        self.assertEqual(len(steps), page.count('```') // 2, 'a block without its sentence')
        for path, kind, where, anchor, text in steps:
            self.add(path, kind, where, anchor, text)
        return [step[0] for step in steps]

    def build(self):
        folder = os.path.join(self.tree, 'build')
        for command in (['meson', 'setup', folder, self.tree, '-Dbuildtype=debug', '-Dwerror=true'],
                        ['ninja', '-C', folder, 'tilewright']):
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                  text=True, check=False)
            self.assertEqual(done.returncode, 0, done.stdout[-4000:])
        # The module is the same: additions do not change what lies between it and the library.
        self.env['TW_MODULE'] = os.path.join(os.path.dirname(os.environ['TW_CLI']),
                                             'libtilewright-llvm.so')
        return os.path.join(folder, 'tilewright')

    def command(self, *args):
        return [self.program, *args]

    def test_everything_that_was_added_is_there(self):
        touched = self.follow()
        self.assertEqual(len(touched), len(set(touched)) + 2)  # two dtype, status; two meson lines
        self.program = self.build()
        for name, row in (('tunables', 'unroll'), ('options', 'TW_VERBATIM'), ('dtypes', 'e4m2'),
                          ('targets', 'avx512fp16'), ('layouts', 'rows'), ('kernels', 'cpu.dot'),
                          ('recipes', 'int4_symmetric')):
            self.assertIn(row, [next(iter(r.values())) for r in self.records('list', name)])
        self.assertRegex(self.run_cli('version').stdout, r'^\d+\.\d+\.\d+\n$')
        self.assertIn('version', self.run_cli('--help').stdout)
        self.assertIn('isa=avx512fp16', self.run_cli('plan', 'cpu:avx512fp16', 'M=1,N=8,K=8,w=u4',
                                                    '--kernel', 'cpu.dq_gemm').stdout)
        plan, = self.records('plan', 'cpu', 'M=1,N=8,K=8,w=e4m2')
        self.assertEqual((plan['origin'], plan['kernel']), ('guess', 'cpu.dq_gemm'))
        record, = self.records('verify', 'cpu', 'M=3,N=70,K=77,w=e4m2,g=32', '--full')
        self.assertTrue(record['ok'])
        header = os.path.join(self.tree, 'include', 'tilewright', 'tilewright.h')
        probe = f'#include "{header}"\n_Static_assert(TW_TIMEOUT == 14 && TW_E4M2 == 12, "rows");\n'
        subprocess.run(['cc', '-fsyntax-only', '-xc', '-'], input=probe, text=True, check=True)
        self.check_kernel()

    def check_kernel(self):
        for problem in ('M=7,N=100,K=33,w=f32,bias=f32', 'M=1,N=1,K=1,w=f32',
                        'M=40,N=70,K=256,w=f32'):
            record, = self.records('verify', 'cpu', problem, '--kernel', 'cpu.dot', '--full')
            self.assertTrue(record['ok'])
        record, = self.records('tune', 'cpu', 'M=16,N=64,K=64,w=f32', '--budget', '20s',
                               '--threads', '1')
        self.assertEqual(record['kernel'], 'cpu.dq_gemm')
        self.fails(1, 'at most 256 products', 'verify', 'cpu', 'M=1,N=8,K=300,w=f32', '--kernel',
                   'cpu.dot', '--json')


if __name__ == '__main__':
    unittest.main()
