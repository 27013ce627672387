#!/usr/bin/env python3
"""Commands that look and generate: devices, list, plan, dump, verify, doctor."""

import base64
import json
import os
import re
import struct
import unittest

import cli
import gguf

DATA = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), 'data')

TARGETS = ('portable', 'avx2', 'avxvnni', 'avx512', 'avx512vnni', 'avx512bf16',
           'avx512gfni', 'avx512amx')


class Listings(cli.Cli):
    def test_devices(self):
        device, = self.records('devices')
        self.assertEqual(device['device'], 'cpu')
        self.assertIn(device['target'], TARGETS)
        self.assertGreater(device['threads'], 0)
        self.assertIn(device['name'], self.run_cli('devices').stdout)
        self.assertEqual(self.records('devices', '--threads', '1')[0]['threads'], 1)

    def test_lists_have_their_rows(self):
        lists = {'kernels': 'cpu.int_gemm', 'dtypes': 'u4', 'layouts': 'panel64', 'schemes': 'q4_1',
                 'recipes': 'int4_weight_only', 'options': 'TW_CACHE', 'targets': 'avx512vnni',
                 'tunables': 'micro_m'}
        for name, row in lists.items():
            first = [next(iter(r.values())) for r in self.records('list', name)]
            self.assertIn(row, first)
            self.assertEqual(len(first), len(set(first)))
            text = self.run_cli('list', name).stdout.splitlines()
            self.assertEqual([line.split()[0] for line in text[1:]], first)

    def test_recipes_tell_what_may_be_chosen(self):
        for row in self.records('list', 'recipes'):
            fields = [[field.split('=')[0] for field in row[key].split(',')]
                      for key in ('open', 'fixed')]
            self.assertFalse(set(fields[0]) & set(fields[1]), row)
            self.assertTrue(row['from'], row)
            self.assertTrue({'a', 'g'} <= set(fields[0] + fields[1]), row)

    def test_schemes_are_schemes(self):
        for row in self.records('list', 'schemes'):
            planned, = self.records('plan', 'cpu', 'M=4,N=512,K=512,' + row['fields'])
            self.assertNotEqual(planned['kernel'], 'reference', row)

    def test_schemes_of_gguf_are_what_its_files_have(self):
        named = {row['from'].removeprefix('GGUF ').split(':')[0]: row['fields']
                 for row in self.records('list', 'schemes') if row['from'].startswith('GGUF')}
        schemes = {name: fields for names, fields in named.items() for name in names.split(', ')}
        seen = set()
        for file in ('legacy', 'kquants', 'iq', 'ternary_fp4_align64'):
            for row in self.records('shapes', os.path.join(DATA, 'gguf', file + '.gguf')):
                if row['dtype'] in schemes:
                    self.assertEqual(row['scheme'], schemes[row['dtype']], row['dtype'])
                    seen.add(row['dtype'])
        self.assertEqual(seen, set(schemes))


class Plan(cli.Cli):
    def test_says_what_and_why_not(self):
        record, = self.records('plan', 'cpu:avx512gfni', 'M=500,' + cli.SMALL)
        self.assertEqual((record['kernel'], record['origin']), ('cpu.int_gemm', 'guess'))
        self.assertIn('M<=512,N=96,K=96,', record['key'])
        kernels = {row['kernel'] for row in self.records('list', 'kernels')}
        self.assertEqual({o['kernel'] for o in record['others']} | {record['kernel']}, kernels)
        for other in record['others']:
            self.assertTrue(other['takes_it'] or len(other['reason']) > 20, other)
            self.assertIn(other['kernel'], self.run_cli('plan', 'cpu:avx512gfni',
                                                        'M=500,' + cli.SMALL).stdout)

    def test_many_rows_are_for_the_matrix_unit(self):
        for scheme in ('w=i8,a=i8', 'w=i4,g=32,s=f16,a=i8g32', 'w=u4,g=32,s=f32,z=code,a=i8z',
                       'w=i6,g=16,s=f16i8,a=i8g256'):
            for rows, kernel in ((512, 'cpu.amx_gemm'), (1, 'cpu.int_gemm')):
                record, = self.records('plan', 'cpu:avx512amx', f'M={rows},N=576,K=1536,{scheme}')
                self.assertEqual(record['kernel'], kernel, scheme)

    def test_every_target_can_be_planned_for(self):
        for target in TARGETS:
            record, = self.records('plan', 'cpu:' + target, 'M=16,' + cli.SMALL)
            self.assertIn(f'isa={target};', record['key'])
            self.assertTrue(record['config'])

    def test_what_no_kernel_takes_runs_on_the_reference(self):
        problem = 'M=1,N=64,K=64,w=u4,g=3'
        record, = self.records('plan', 'cpu', problem)
        self.assertEqual((record['kernel'], record['origin']), ('reference', 'reference'))
        self.assertIn('origin   reference', self.run_cli('plan', 'cpu', problem).stdout)

    def test_forced(self):
        record, = self.records('plan', 'cpu', 'M=4,' + cli.SMALL, '--kernel', 'cpu.int_gemm')
        self.assertEqual(record['origin'], 'forced')
        self.fails(1, 'cpu.dq_gemm: ', 'plan', 'cpu', 'M=4,' + cli.SMALL, '--kernel', 'cpu.dq_gemm')

    def test_debug_logs(self):
        self.assertEqual(self.run_cli('plan', 'cpu', 'M=1,' + cli.SMALL).stderr, '')
        self.env['TW_DEBUG'] = '5'
        self.assertNotEqual(self.run_cli('plan', 'cpu', 'M=1,' + cli.SMALL).stderr, '')


class Dump(cli.Cli):
    problem = 'M=64,' + cli.SMALL

    def dump(self, *args):
        return self.run_cli('dump', *args, text=False).stdout

    def test_kinds(self):
        ir = self.dump('cpu', self.problem, '--ir')
        self.assertIn(b'define ', ir)
        self.assertEqual(self.dump('cpu', self.problem, '--source'), ir)
        self.assertIn(b'tw_matmul:', self.dump('cpu', self.problem, '--asm'))
        self.assertIn(b'function tw_pack_x', self.dump('cpu', self.problem, '--trace'))
        self.assertEqual(self.dump('cpu', self.problem, '--object')[:4], b'\x7fELF')

    def test_the_banner_regenerates_the_same_bytes(self):
        for target in ('portable', 'avx2', 'avx512vnni'):
            for kind in ('--ir', '--asm', '--trace'):
                text = self.dump('cpu:' + target, self.problem, kind)
                line = next(x for x in text.decode().splitlines() if 'tilewright dump ' in x)
                words = re.findall(r'"[^"]*"|\S+', line[line.index('dump '):])
                again = self.run_cli(*[w.strip('"') for w in words], text=False).stdout
                self.assertEqual(again, text)

    def test_rows_between_two_buckets(self):
        for rows in (3, 5, 6, 7, 9):
            problem = f'M={rows},N=100,K=300,w=i8,a=i8'
            self.assertIn(b'tw_matmul:', self.dump('cpu', problem, '--asm'))
            self.assertEqual(len(self.bench('cpu', problem)), 1)

    def test_objects_are_the_same_every_time(self):
        args = ('cpu:avx512vnni', self.problem, '--object')
        self.assertEqual(self.dump(*args), self.dump(*args))

    def test_out(self):
        out = self.path('k.s')
        self.assertEqual(self.dump('cpu', self.problem, '--asm', '--out', out), b'')
        with open(out, 'rb') as file:
            self.assertEqual(file.read(), self.dump('cpu', self.problem, '--asm'))
        self.fails(1, 'no/k.s', 'dump', 'cpu', self.problem, '--asm', '--out', self.path('no/k.s'))
        self.assertEqual([n for n in os.listdir(self.folder) if n.endswith('.part')], [])

    def test_json(self):
        plan, = self.records('plan', 'cpu', self.problem)
        for option, kind in (('--source', 'ir'), ('--ir', 'ir'), ('--asm', 'asm'),
                             ('--trace', 'trace'), ('--object', 'object')):
            code = self.dump('cpu', self.problem, option)
            record, = self.records('dump', 'cpu', self.problem, option)
            for field in ('problem', 'device', 'kernel', 'version', 'config'):
                self.assertEqual(record[field], plan[field])
            self.assertEqual((record['kind'], record['bytes']), (kind, len(code)))
            text = base64.b64decode(record['base64']) if kind == 'object' else record[
                'text'].encode()
            self.assertEqual(text, code)
            self.assertNotIn('text' if kind == 'object' else 'base64', record)

    def test_json_and_a_file(self):
        out = self.path('k.o')
        record, = self.records('dump', 'cpu', self.problem, '--object', '--out', out)
        self.assertEqual((record['out'], record['bytes']), (out, os.path.getsize(out)))
        self.assertFalse({'text', 'base64'} & set(record))

    def test_what_no_kernel_takes(self):
        self.fails(1, 'no kernel takes it', 'dump', 'cpu', 'M=1,N=64,K=64,w=u4,g=3', '--ir')


class Verify(cli.Cli):
    def test_every_kernel_that_takes_it(self):
        for problem, kernel in (('M=7,N=100,K=100,w=u4,g=32,s=f16,z=code,a=i8', 'cpu.int_gemm'),
                                ('M=7,N=100,K=100,x=bf16,w=i8', 'cpu.dq_gemm')):
            found = self.records('verify', 'cpu', problem)
            self.assertIn(kernel, [r['kernel'] for r in found])
            for record in found:
                self.assertTrue(record['ok'])
                self.assertLess(record['nmse'], 1e-5)
            full = self.records('verify', 'cpu', problem, '--full')
            self.assertEqual([r['rows'] for r in full], ['all'] * len(found))

    def test_files_of_problems(self):
        text = self.write('p.txt', '# comment\nN=65,K=33,w=i8,a=i8\n\nM=3,N=64,K=64,w=f32\n')
        for word in ('@' + text, text):
            found = self.records('verify', 'cpu', word, '--m', '1,5')
            self.assertEqual([r['problem'].split(',')[0] for r in found], ['M=1', 'M=5', 'M=3'])

    def test_scheme_overrides(self):
        found = self.records('verify', 'cpu', 'M=2,N=64,K=64,w=f32', '--scheme',
                             'w=u3,g=16,s=f16,a=i8')
        self.assertIn('w=u3,g=16', found[0]['problem'])

    def test_failures(self):
        self.fails(1, 'cpu.dq_gemm declines', 'verify', 'cpu', 'M=2,' + cli.SMALL, '--kernel',
                   'cpu.dq_gemm', '--json')
        self.fails(1, 'cpu.dq_gemm declines', 'verify', 'cpu', 'M=1,N=8,K=8,w=u4,g=3', '--kernel',
                   'cpu.dq_gemm', '--json')

    def test_what_no_kernel_takes(self):
        """The reference is what kernels are checked against: there is nothing to check."""
        text = self.write('p.txt', 'M=1,N=8,K=8,w=u4,g=3\nM=2,N=8,K=8,w=i8\n')
        done = self.run_cli('verify', 'cpu', text)
        self.assertIn('M=1,N=8,K=8,x=f32,w=u4,g=3,s=f32,z=none,a=none,y=f32,bias=none,'
                      'act=none: no kernel takes it, so a layer runs the reference', done.stderr)
        self.assertTrue(done.stdout.endswith('2 problems, 1 check, 0 failures\n'), done.stdout)
        none, one = self.records('verify', 'cpu', text)
        self.assertEqual((none['kernel'], none['ok']), (None, None))
        self.assertIn('no kernel takes it', none['note'])
        self.assertTrue(one['ok'])

    def test_targets_of_other_machines_cannot_run(self):
        others = [r['target'] for r in self.records('list', 'targets') if not r['runs_here']]
        if not others:
            self.skipTest('this CPU runs every target')
        self.fails(1, others[0], 'verify', 'cpu:' + others[0], 'M=2,' + cli.SMALL)


class Bench(cli.Cli):
    def test_what_no_kernel_takes(self):
        """It runs on the reference, which is measured as a kernel is."""
        problem = 'M=3,N=64,K=64,w=u4,g=3,bias=f32'
        record, = self.bench('cpu', problem)
        self.assertEqual((record['kernel'], record['config'], record['origin']),
                         ('reference', '', 'reference'))
        self.assertGreater(record['median_ns'], 0)
        self.assertGreater(record['limit_gops'], 0)
        self.assertLess(record['fraction_of_limit'], 1)
        self.assertIsNone(record['wrong'])
        done = self.run_bench('cpu', problem)
        self.assertIn(': no kernel takes it, so a layer runs the reference, on one thread',
                      done.stderr)
        self.assertRegex(done.stdout, r'\breference +reference\b')
        self.fails(1, 'cpu.dq_gemm: ', 'bench', 'cpu', problem, '--kernel', 'cpu.dq_gemm')


class ModelsOwnWeights(cli.Cli):
    """verify on the weights of a file."""

    name = 'blk.0.attn_k.weight'

    def model(self, data, kind=gguf.Q4_0, shape=(4, 64)):
        return gguf.write(self.path('m.gguf'), [(self.name.encode(), kind, shape, data)])

    def refuses(self, path, sentence):
        done = self.run_cli('verify', 'cpu', path, '--m', '1', code=1)
        self.assertIn(f"tilewright: {path}: tensor '{self.name}': {sentence}", done.stderr)
        self.assertNotIn('FAILED', done.stdout)
        return done

    def test_scales_that_are_no_numbers(self):
        for bits, word in ((0x7e00, 'NaN'), (0xfe00, 'NaN'), (0x7c00, 'infinity'),
                           (0xfc00, 'infinity')):
            data = bytearray(struct.pack('<H', 0x3c00) + bytes(range(16))) * 8
            data[5 * 18:5 * 18 + 2] = struct.pack('<H', bits)
            path = self.model(bytes(data))
            done = self.refuses(path, f'scales: {word} at [2,1], must be finite')
            # Generated weights of the same problem are checked all the same.
            self.assertRegex(done.stdout, '1 problem, [123] checks?, 1 failure')
            self.run_cli('dequantize', path, self.path('out'), '--force')

    def test_dequantize_gives_what_ggml_gives(self):
        data = struct.pack('<H', 0x7e00) + bytes(16)
        self.run_cli('dequantize', self.model(data, shape=(1, 32)), self.path('out'))
        with open(self.path('out'), 'rb') as file:
            values = struct.unpack('<32f', file.read()[-128:])
        self.assertTrue(all(v != v for v in values))

    def test_plain_weights_that_are_no_numbers(self):
        values = [0.5] * 64
        values[33] = float('nan')
        path = self.model(struct.pack('<64f', *values), gguf.F32, (2, 32))
        self.refuses(path, 'weight: NaN at [1,1], must be finite')


class Doctor(cli.Cli):
    def test_all_well(self):
        checks = {r['check']: r for r in self.records('doctor')}
        self.assertEqual({'cpu', 'compiler', 'kernels', 'cache', 'pages', 'hooks'}, set(checks))
        for record in checks.values():
            self.assertNotEqual(record['verdict'], 'failed', record)
        self.assertIn(self.env['TW_CACHE'], checks['cache']['found'])

    def test_system_cache(self):
        self.run_cli('tune', 'cpu', 'M=1,' + cli.SMALL, '--budget', '20s', '--threads', '1')
        self.env['TW_CACHE_SYSTEM'] = self.env['TW_CACHE']
        self.assertEqual([r for r in self.records('doctor') if r['check'] == 'system'], [])
        self.env['TW_CACHE'] = self.path('other.db')
        found, = [r for r in self.records('doctor') if r['check'] == 'system']
        self.assertEqual(found['verdict'], 'ok')
        self.assertIn(self.env['TW_CACHE_SYSTEM'] + ': 1 choices', found['found'])
        self.env['TW_CACHE_SYSTEM'] = self.path('missing.db')
        found, = [r for r in self.records('doctor', code=1) if r['check'] == 'system']
        self.assertEqual(found['verdict'], 'failed')

    def test_says_what_to_do(self):
        self.env['TW_MODULE'] = self.path('nowhere.so')
        self.env['TW_CACHE'] = self.folder
        self.env['TW_DUMP'] = self.write('file', '')
        done = self.run_cli('doctor', '--json', code=1)
        failed = [r for r in map(json.loads, done.stdout.splitlines()) if r['verdict'] == 'failed']
        self.assertEqual([r['check'] for r in failed], ['compiler', 'kernels', 'cache', 'hooks'])
        for record in failed:
            self.assertTrue(record['remedy'])
        self.assertIn('-> ', self.run_cli('doctor', code=1).stdout)

    def test_without_the_compiler_nothing_else_breaks(self):
        self.env['TW_MODULE'] = self.path('nowhere.so')
        self.fails(1, 'nowhere.so', 'bench', 'cpu', 'M=1,' + cli.SMALL)
        self.assertIn(b'function ', self.run_cli('dump', 'cpu', 'M=1,' + cli.SMALL, '--trace',
                                                 text=False).stdout)


if __name__ == '__main__':
    unittest.main()
