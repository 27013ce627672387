#!/usr/bin/env python3
"""quantize: rules, report, memory, and what an interrupt leaves behind."""

import json
import os
import resource
import signal
import struct
import subprocess
import time
import unittest

import cli

WIDTH = 576  # SmolLM2's


class Quantize(cli.Cli):
    def checkpoint(self, shapes, name='in.safetensors'):
        """f32 tensors; values repeat every 4 KiB."""
        header, at = {}, 0
        for tensor, shape in shapes.items():
            size = 4
            for extent in shape:
                size *= extent
            header[tensor] = {'dtype': 'F32', 'shape': shape, 'data_offsets': [at, at + size]}
            at += size
        text = json.dumps(header).encode()
        piece = struct.pack('<1024f', *((i * 37 % 101 - 50) / 64 for i in range(1024)))
        with open(self.path(name), 'wb') as file:
            file.write(struct.pack('<Q', len(text)) + text)
            for _ in range(at // 4096):
                file.write(piece)
            file.write(piece[:at % 4096])
        return self.path(name)

    def small(self):
        return self.checkpoint({'model.layers.0.down_proj.weight': [8, WIDTH],
                                'model.layers.0.up_proj.weight': [WIDTH, 8],
                                'model.norm.weight': [WIDTH], 'lm_head.weight': [16, WIDTH]})

    def left(self):
        return sorted(set(os.listdir(self.folder)) - {'in.safetensors', 'cache.db'})

    def test_report(self):
        source, out = self.small(), self.path('out.safetensors')
        text = self.run_cli('quantize', source, out, '--config', 'int4_weight_only').stdout
        self.assertIn('short last group: the last group has 64 of 128 columns', text)
        self.assertIn('3 of 4 tensors quantized (3 with a short last group)', text)
        shapes = self.run_cli('shapes', out).stdout
        self.assertIn('w=i4,g=128,s=f32,z=value,a=none', shapes)
        self.fails(1, 'is there already', 'quantize', source, out, '--config', 'int4_weight_only')
        rows = self.records('quantize', source, out, '--config', 'int8_weight_only', '--force')
        self.assertEqual([r['outcome'] for r in rows], ['quantized', 'quantized', 'kept',
                                                        'quantized'])
        self.assertEqual(rows[2]['reason'], 'no linear layer')

    def test_rules(self):
        source, out = self.small(), self.path('out.safetensors')
        rules = self.write('rules.txt', '# a comment\n\nre:.*down_proj   int8_weight_only\n'
                                        'lm_head none\n')
        for given in ('@' + rules, 're:.*down_proj int8_weight_only; lm_head none'):
            rows = self.records('quantize', source, out, '--config', 'int4_weight_only,g=64',
                                '--filter', given, '--force')
            self.assertEqual([r['rule'] for r in rows], ['re:.*down_proj', 'default', None,
                                                         'lm_head'])
            self.assertEqual(rows[0]['to'], 'w=i8,g=channel,s=f32,z=none,a=none')
            self.assertEqual(rows[3]['outcome'], 'kept')
        text = self.run_cli('quantize', source, out, '--config', 'int4_weight_only', '--filter',
                            'lm_head none', '--force').stdout
        self.assertIn('1 linear layers kept', text)
        os.unlink(out)
        self.fails(2, 'expected PATTERN RECIPE', 'quantize', source, out, '--filter', 'lm_head')
        self.fails(1, 'no tensor and no module', 'quantize', source, out, '--filter', 'x none')
        self.fails(1, 'cannot be read', 'quantize', source, out, '--filter', '@nowhere')
        self.fails(1, 'cannot be read as text', 'quantize', source, out, '--filter',
                   '@' + self.write('nul.txt', 'lm_head none\0\nx int8_weight_only\n'))
        os.unlink(self.path('nul.txt'))
        self.fails(2, 'has no rule', 'quantize', source, out, '--filter', ' ; ;')
        self.fails(2, '--config or --filter is missing', 'quantize', source, out)
        self.fails(1, 'strict allows no exception', 'quantize', source, out, '--strict',
                   '--config', 'mx_weight_only')
        self.run_cli('quantize', source, out, '--config', 'int8_weight_only', '--dry-run')
        self.assertEqual(self.left(), ['rules.txt'])

    def test_memory(self):
        """One large tensor: less than twice its size, though it is mapped and quantized."""
        mib, rows = 64, 4096
        source = self.checkpoint({'a.weight': [rows, (mib << 20) // 4 // rows]})
        for config in ('intx_weight_only,w=i8,g=32', 'float8_weight_only,g=tensor'):
            self.run_cli('quantize', source, self.path('out.safetensors'), '--config', config,
                         '--force')
            peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
            self.assertLess(peak, 2 * mib << 10, config)

    def test_interrupt(self):
        """HQQ takes seconds for this: the signal comes while it works."""
        source = self.checkpoint({f'layers.{i}.weight': [256, 1024] for i in range(100)})
        for number in (signal.SIGINT, signal.SIGTERM):
            with subprocess.Popen(self.command('quantize', source, self.path('out.safetensors'),
                                               '--config', 'hqq'),
                                  env=self.env, stderr=subprocess.PIPE, text=True) as process:
                deadline = time.monotonic() + 60
                while not self.left() and time.monotonic() < deadline:
                    time.sleep(0.01)
                self.assertTrue(self.left()[0].endswith('.part'), self.left())
                process.send_signal(number)
                error = process.communicate(timeout=60)[1]
            self.assertEqual(process.returncode, -number)
            self.assertIn('cancelled at tensor', error)
            self.assertEqual(self.left(), [])


if __name__ == '__main__':
    unittest.main()
