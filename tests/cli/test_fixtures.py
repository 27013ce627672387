#!/usr/bin/env python3
"""verify --fixtures: recorded cases of torchao's own code, in every bit; a false one is noticed."""

import json
import os
import shutil
import struct
import unittest

import cli

DATA = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), 'data', 'torchao')


def split(path):
    """The header and the data of a safetensors file."""
    with open(path, 'rb') as file:
        size, = struct.unpack('<Q', file.read(8))
        return json.loads(file.read(size)), bytearray(file.read())


class Fixtures(cli.Cli):
    def verify(self, path, code=0):
        return self.records('verify', '--fixtures', path, code=code)

    def falsify(self, op, role, byte=0, bit=1):
        """A copy in which one bit of a tensor of the op's first case is another; its name."""
        name = {'affine': 'affine', 'float8': 'float', 'mx': 'float', 'floatx': 'float',
                'floatx_cast': 'float', 'nvfp4': 'float', 'observer': 'observers',
                'config': 'configs', 'decode': 'codes', 'encode_saturating': 'codes',
                'round_f32_to_bf16': 'codes'}.get(op, 'float_domain')
        header, data = split(os.path.join(DATA, name + '.safetensors'))
        cases = {k: json.loads(v) for k, v in header['__metadata__'].items() if k != 'about'}
        case = next(k for k, v in cases.items() if v['op'] == op and role in v['out'])
        tensor = header[json.loads(header['__metadata__'][case])['out'][role]]
        data[tensor['data_offsets'][0] + byte] ^= bit
        text = json.dumps(header).encode()
        with open(self.path('false.safetensors'), 'wb') as file:
            file.write(struct.pack('<Q', len(text)) + text + data)
        return case

    def test_every_case_agrees(self):
        found = {r['op']: (r['cases'], r['wrong']) for r in self.verify(DATA)}
        self.assertEqual(found, {'affine': (420, 0), 'affine_float_zero': (105, 0),
                                 'choose_no_preserve_zero': (105, 0), 'fake_quantize': (105, 0),
                                 'hqq': (20, 0), 'float8': (62, 0), 'floatx': (30, 0),
                                 'floatx_cast': (15, 0), 'mx': (120, 0), 'nvfp4': (12, 0),
                                 'decode': (8, 0), 'encode_saturating': (2, 0),
                                 'round_f32_to_bf16': (1, 0), 'observer': (10, 0),
                                 'config': (114, 0)})
        self.assertIn('420 of 420 cases agree in every bit',
                      self.run_cli('verify', '--fixtures', DATA).stdout)

    def checkpoints(self, entries, **files):
        """A manifest in a folder of its own, with safetensors files of f32 rows."""
        for name, tensors in files.items():
            header, data = {}, b''
            for tensor, values in tensors.items():
                header[tensor] = {'dtype': 'F32', 'shape': [1, len(values)],
                                  'data_offsets': [len(data), len(data) + 4 * len(values)]}
                data += struct.pack(f'<{len(values)}f', *values)
            text = json.dumps(header).encode()
            with open(self.path(name + '.safetensors'), 'wb') as file:
                file.write(struct.pack('<Q', len(text)) + text + data)
        self.write('manifest.json', json.dumps(entries))

    def test_checkpoints_of_other_projects(self):
        """Those in tests/data: values in every bit, and refusals."""
        found = self.verify(os.path.dirname(DATA))
        self.assertEqual(len(found), 203)
        self.assertEqual({r['file'] for r in found if not r['ok']}, set())

    def test_checkpoints_of_a_manifest(self):
        def entry(expected, **more):
            return {'path': 'a.safetensors', 'expected_file': expected + '.safetensors', **more}
        self.checkpoints([entry('same'), entry('off'), entry('near', approximate=True),
                          entry('readings'), entry('no_reading'), entry('missing'),
                          {'path': 'a.safetensors', 'must': 'reject'},
                          {'path': 'manifest.json', 'must': 'reject'},
                          {'path': 'gone', 'expected_file': None}],
                         a={'x': [1, 2], 'y': [3]}, same={'x': [1, 2], 'x.original': [7, 8]},
                         off={'x': [1, 2.0000002]}, near={'x': [1, 2.0000002]},
                         readings={'x.b': [1, 3], 'x.c': [1, 2]}, no_reading={'x.b': [1, 3]},
                         missing={'z': [1]})
        found = self.verify(os.path.dirname(self.path('manifest.json')), code=1)
        self.assertEqual([r['ok'] for r in found],
                         [True, False, True, True, False, False, False, True, False])
        self.assertEqual(found[1]['wrong'], 'x: element 1 is 2, expected 2.00000024')
        self.assertEqual(found[4]['wrong'], 'x: differs from each reading')
        self.assertEqual(found[5]['wrong'], 'z: no such tensor')
        self.assertEqual(found[6]['wrong'], 'must be refused')
        self.assertIn('4 of 9 checkpoints are as expected',
                      self.run_cli('verify', '--fixtures', self.path('manifest.json'),
                                   code=1).stdout)

    def test_one_file_by_its_path(self):
        shutil.copy(os.path.join(DATA, 'affine.safetensors'), self.path('other.safetensors'))
        record, = self.verify(self.path('other.safetensors'))
        self.assertEqual((record['cases'], record['wrong'], record['first']), (420, 0, None))

    def test_a_false_bit_is_noticed(self):
        for op, roles in (('affine', ('scale', 'zero', 'q', 'dq')),
                          ('choose_no_preserve_zero', ('scale', 'zero')),
                          ('affine_float_zero', ('scale', 'zero', 'q', 'dq')),
                          ('fake_quantize', ('y', 'mask')), ('float8', ('scale', 'q')),
                          ('floatx', ('scale', 'q')), ('floatx_cast', ('q',)),
                          ('mx', ('scale_e8m0', 'q')),
                          ('nvfp4', ('scale_e4m3', 'q', 'tensor_scale')), ('decode', ('f32',)),
                          ('encode_saturating', ('q',)), ('round_f32_to_bf16', ('y',)),
                          ('observer', ('scale', 'zero')), ('config', ('q', 'scale', 'zero')),
                          ('hqq', ('scale', 'zero', 'q'))):
            for role in roles:
                # HQQ's scales and zeros may differ in their last bits, and few codes by 1.
                case = (self.falsify(op, role) if op != 'hqq' else
                        self.falsify(op, role, *((0, 4) if role == 'q' else (3, 1))))
                found = self.verify(self.path('false.safetensors'), code=1)
                wrong = [r for r in found if r['wrong']]
                self.assertEqual([(r['op'], r['wrong']) for r in wrong], [(op, 1)])
                self.assertIn(f'{case}: {role}[0,0] is ', wrong[0]['first'])

    def test_another_y_is_noticed(self):
        case = self.falsify('config', 'y', 3, 64)
        wrong = [r for r in self.verify(self.path('false.safetensors'), code=1) if r['wrong']]
        self.assertEqual([(r['op'], r['wrong']) for r in wrong], [('config', 1)])
        self.assertRegex(wrong[0]['first'], f'{case}: y is (-inf|-?[0-9.]+) dB from what')

    def test_what_is_no_case(self):
        header, data = split(os.path.join(DATA, 'affine.safetensors'))
        case = next(k for k in header['__metadata__'] if k != 'about')
        good = json.loads(header['__metadata__'][case])
        for change, sentence in (({'qmin': 'x'}, 'qmin: expected an integer'),
                                 ({'mapping': 'odd'}, 'mapping: odd, not known'),
                                 ({'in': {'x': 5}}, 'in.x: expected the name'),
                                 ({'group_k': 7}, 'expected one for each group'),
                                 ({'group_n': 0}, 'both must be at least 1'),
                                 ({'code': 'i99'}, 'code: i99, not known'),
                                 ({'code': 'f32'}, 'codes: dtype f32'),
                                 ({'in': {}}, 'in.x: missing'),
                                 ({'out': {**good['out'], 'q': 'nowhere'}}, 'out.q: expected')):
            header['__metadata__'] = {case: json.dumps({**good, **change})}
            text = json.dumps(header).encode()
            with open(self.path('odd.safetensors'), 'wb') as file:
                file.write(struct.pack('<Q', len(text)) + text + data)
            record, = self.verify(self.path('odd.safetensors'), code=1)
            self.assertIn(sentence, record['first'])

    def test_other_operations_are_counted(self):
        header, data = split(os.path.join(DATA, 'affine.safetensors'))
        header['__metadata__'] = {'a': '{"op": "later"}', 'b': 'no JSON', 'about': '{}'}
        text = json.dumps(header).encode()
        with open(self.path('later.safetensors'), 'wb') as file:
            file.write(struct.pack('<Q', len(text)) + text + data)
        done = self.run_cli('verify', '--fixtures', self.path('later.safetensors'))
        self.assertEqual(done.stdout, '')
        self.assertIn('1 cases of operations that are not known here', done.stderr)

    def test_failures(self):
        self.fails(1, 'nowhere', 'verify', '--fixtures', self.path('nowhere'))
        self.fails(1, 'no .safetensors file in it', 'verify', '--fixtures', self.folder)
        self.fails(2, 'takes no device', 'verify', 'cpu', '--fixtures', DATA)
        self.fails(2, 'MODEL|PROBLEM|@FILE is missing (or --fixtures DIR)', 'verify', 'cpu')
        self.fails(1, 'bad.safetensors', 'verify', '--fixtures',
                   self.write('bad.safetensors', 'garbage'))


if __name__ == '__main__':
    unittest.main()
