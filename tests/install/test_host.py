#!/usr/bin/env python3
"""examples/host.c, built against the installed library as its readers build it, on real files."""

import json
import os
import random
import re
import struct
import subprocess
import sys
import unittest

import staged

sys.path.insert(0, os.path.join(staged.ROOT, 'tests/cli'))

import gguf  # noqa: E402

MODEL = os.path.join(staged.ROOT, 'models/SmolLM2-135M-Instruct.Q4_1.gguf')


def blocks(kind, count, seed):
    """Blocks of a type with random codes, whose weights lie around zero."""
    source, data = random.Random(seed), b''
    for _ in range(count):
        scale = source.uniform(0.01, 0.02) / (16 if kind == gguf.Q8_0 else 1)
        data += struct.pack('<e', scale)
        if kind == gguf.Q4_1:
            data += struct.pack('<e', -7.5 * scale)
        data += source.randbytes(32 if kind == gguf.Q8_0 else 16)
    return data


def model(path, outer=96, inner=160, kinds=(gguf.Q4_0, gguf.Q8_0, gguf.Q4_1), cut=0):
    """A model of one layer.  What is not the MLP stands before and behind it."""
    count = outer * inner // 32
    tensors = [(b'blk.0.attn_norm.weight', gguf.F32, [outer], struct.pack('<f', 1) * outer)]
    for seed, (word, kind) in enumerate(zip((b'gate', b'up', b'down'), kinds)):
        shape = [outer, inner] if word == b'down' else [inner, outer]
        data = None if kind in (gguf.Q8_1, gguf.F32) else blocks(kind, count, seed)
        tensors.append((b'blk.0.ffn_' + word + b'.weight', kind, shape, data))
    gguf.write(path, tensors)
    if cut:
        os.truncate(path, os.path.getsize(path) - cut)
    return path


class Host(staged.Staged):
    def setUp(self):
        super().setUp()
        self.program = self.build('examples/host.c', '-std=c11', '-Wpedantic', '-lm', '-pthread',
                                  f'-Wl,-rpath,{self.libdir}')

    def check(self, *arguments):
        """The first run generates its kernels, the second finds all of them in the cache."""
        cold = self.run_program(self.program, *arguments)
        self.assertRegex(cold.stdout, r'^default: cpu\.')
        self.assertRegex(cold.stderr, r'MISS: the cache has no kernel for choice/1 \| M<=1,')
        self.assertRegex(cold.stdout, r'(?s)M=1 .* us .*M=16 .* us ')
        warm = self.run_program(self.program, *arguments)
        self.assertRegex(warm.stdout, r'^cached only: cpu\.')
        self.assertEqual(warm.stderr, '')

    def test_as_the_readme_builds_it(self):
        """Its very command, in a staged tree, which pkg-config calls a system root."""
        with open(os.path.join(staged.ROOT, 'README.md'), encoding='utf-8') as file:
            command = re.search(r'(?m)^    (cc examples/host\.c .*)$', file.read())[1]
        os.symlink(os.path.join(staged.ROOT, 'examples'), self.path('examples'))
        subprocess.run(command, shell=True, check=True, cwd=self.folder, env=self.env | {
            'PKG_CONFIG_SYSROOT_DIR': self.stage, 'PKG_CONFIG_PATH': os.path.dirname(self.pc)})
        done = self.run_program('./host', model(self.path('model.gguf')),
                                LD_LIBRARY_PATH=self.libdir)
        self.assertRegex(done.stdout, r'^default: cpu\.')

    def test_each_type_both_ways_of_x(self):
        path = model(self.path('model.gguf'))
        self.check(path)
        self.check(path, '0', 'a=none')
        path = model(self.path('other.gguf'), kinds=(gguf.Q8_0, gguf.Q4_1, gguf.Q4_0))
        self.check(path, '0', 'a=none')

    def test_a_real_model(self):
        if not os.path.exists(MODEL):
            if os.environ.get('TW_REQUIRE_MODELS') == '1':
                self.fail(f'{MODEL} is missing and TW_REQUIRE_MODELS=1: run tools/fetch_models.sh')
            self.skipTest('no model: run tools/fetch_models.sh')
        self.check(MODEL, '7')
        self.check(MODEL, '7', 'a=none')

    def test_a_trace_tells_what_took_time(self):
        """Two runs in one file; the second finds its kernels, and the first one's layers twice:
        there CACHED_ONLY missed."""
        path, trace = model(self.path('model.gguf')), self.path('trace.json')
        self.run_program(self.program, path, TW_TRACE=trace)
        self.run_program(self.program, path, TW_TRACE=trace)
        with open(trace, encoding='utf-8') as file:
            events = json.loads(file.read().rstrip(',\n') + ']')
        self.assertEqual({e['name'] for e in events}, {'pack', 'compile', 'load', 'forward'})
        cold, warm = ([e for e in events if e['pid'] == pid] for pid in
                      dict.fromkeys(e['pid'] for e in events))
        self.assertEqual({e['args']['from'] for e in warm if e['name'] == 'load'}, {'cache'})
        self.assertNotIn('compile', {e['name'] for e in warm})
        self.assertEqual(sum(e['name'] == 'forward' for e in cold), 2 * 3 * 20)
        for event in cold + warm:
            self.assertIn('N=', event['args']['problem'])
            if event['name'] != 'pack':
                self.assertRegex(event['args']['kernel'], r'^cpu\.')
                self.assertRegex(event['args']['config'], r'^mm\d')

    def test_what_is_wrong_is_said(self):
        path = model(self.path('model.gguf'))
        broken = self.path('broken.gguf')
        with open(path, 'rb') as file:
            head = file.read(100)
        with open(broken, 'wb') as file:
            file.write(head)
        for sentence, *arguments in (
                ('this is not what plain C computes', path, '0', 'a=mxfp4'),
                ('"nonsense", expected none, i8', path, '0', 'a=nonsense'),
                ('there is no matrix blk.1.ffn_gate.weight', path, '1'),
                ('blk.0.ffn_down.weight: cut short', model(self.path('cut.gguf'), cut=64)),
                ('type: Q8_1, layers cannot be made of its blocks', model(
                    self.path('unknown.gguf'), kinds=(gguf.Q4_0, gguf.Q8_1, gguf.Q4_0))),
                ('blk.0.ffn_gate.weight: type 0, which plain C here does not know', model(
                    self.path('floats.gguf'), kinds=(gguf.F32, gguf.Q4_0, gguf.Q4_0))),
                ('the header is broken', broken),
                ('no GGUF', os.path.join(staged.ROOT, 'examples/host.c'))):
            self.assertIn(sentence, self.run_program(self.program, *arguments, code=1).stderr)
        self.run_program(self.program, self.path('missing.gguf'), code=2)
        self.run_program(self.program, code=2)


if __name__ == '__main__':
    unittest.main()
