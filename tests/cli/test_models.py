#!/usr/bin/env python3
"""The commands on the real models, where tools/fetch_models.sh has put them."""

import hashlib
import json
import os
import struct
import unittest

import cli

SMOLLM2 = 'SmolLM2-135M-Instruct.Q4_1.gguf'
MINILM = 'all-MiniLM-L6-v2'


def tensors(path):
    """The header of a safetensors file."""
    with open(path, 'rb') as file:
        size, = struct.unpack('<Q', file.read(8))
        header = json.loads(file.read(size))
    header.pop('__metadata__', None)
    return header


class Shapes(cli.Cli):
    def shapes(self, *args):
        return [(r['K'], r['N'], r['dtype'], r['count']) for r in self.records('shapes', *args)]

    def test_smollm2(self):
        model = self.model(SMOLLM2)
        self.assertEqual(self.shapes(model), [
            (1536, 576, 'Q4_1', 30), (576, 1536, 'Q4_1', 60), (576, 192, 'Q4_1', 60),
            (576, 576, 'Q4_1', 60), (576, 49152, 'Q8_0', 1)])
        text = self.run_cli('shapes', model).stdout
        self.assertIn('(M, 576, 49152)', text)
        self.assertIn('5 different, 211 linear layers in all (gguf, llama)', text)
        names = self.records('shapes', model, '--names')
        self.assertEqual([len(r['names']) for r in names], [r['count'] for r in names])

    def test_minilm_with_and_without_its_weights(self):
        folder = self.model(MINILM)
        expected = {(384, 384, 'F32'), (384, 1536, 'F32'), (1536, 384, 'F32')}
        for path in (folder, folder + '/model.safetensors', folder + '/config.json'):
            self.assertEqual({s[:3] for s in self.shapes(path)}, expected)


class Work(cli.Cli):
    """One row of x each, so that the tests stay short."""

    def test_verify(self):
        for model in (SMOLLM2, MINILM):
            found = self.records('verify', 'cpu', self.model(model), '--m', '1')
            self.assertTrue(all(r['ok'] for r in found))
            # Each problem on generated data and on the model's own weights.
            for weights in ('generated', 'model'):
                self.assertGreaterEqual([r['weights'] for r in found].count(weights), 3)

    def test_bench(self):
        model = self.model(MINILM)
        found = self.bench('cpu', model, '--m', '4')
        self.assertEqual([r['count'] for r in found],
                         [r['count'] for r in self.records('shapes', model)])

    def test_tune(self):
        model = self.model(MINILM)
        args = ('cpu', model, '--m', '1', '--budget', '20s', '--threads', '1', '--scheme',
                cli.SCHEME)
        self.assertEqual({r['origin'] for r in self.records('tune', *args)}, {'tuned'})
        self.assertEqual({r['origin'] for r in self.records('tune', *args)}, {'cache'})


class Dequantize(cli.Cli):
    def test_chosen_tensors(self):
        model, out = self.model(SMOLLM2), self.path('out.safetensors')
        found = self.records('dequantize', model, out, '--tensor', r'^blk\.0\.attn_(k|norm)')
        header = tensors(out)
        self.assertEqual(set(header), {'blk.0.attn_k.weight', 'blk.0.attn_norm.weight'})
        self.assertEqual({r['tensor'] for r in found}, set(header))
        key = header['blk.0.attn_k.weight']
        self.assertEqual((key['dtype'], key['shape']), ('F32', [192, 576]))
        self.assertEqual(self.records('shapes', out)[0]['dtype'], 'F32')

    def test_plain_weights_come_out_as_they_went_in(self):
        model, out = self.model(MINILM) + '/model.safetensors', self.path('out.safetensors')
        name = 'encoder.layer.0.attention.self.query.weight'
        self.run_cli('dequantize', model, out, '--tensor', f'^{name}$')
        digests = []
        for path in (model, out):
            begin, end = tensors(path)[name]['data_offsets']
            with open(path, 'rb') as file:
                size, = struct.unpack('<Q', file.read(8))
                file.seek(8 + size + begin)
                digests.append(hashlib.sha256(file.read(end - begin)).hexdigest())
        self.assertEqual(digests[0], digests[1])

    def test_nothing_is_overwritten_or_left_behind(self):
        model, out = self.model(SMOLLM2), self.write('out.safetensors', 'precious')
        self.fails(1, '--force', 'dequantize', model, out, '--tensor', 'attn_k')
        for code, sentence, name, pattern in ((1, 'no tensor', 'x', '^no'),
                                              (2, '--tensor: "("', 'x', '('),
                                              (1, 'no/x', 'no/x', 'norm')):
            self.fails(code, sentence, 'dequantize', model, self.path(name + '.safetensors'),
                       '--tensor', pattern)
        with open(out, encoding='utf-8') as file:
            self.assertEqual(file.read(), 'precious')
        self.run_cli('dequantize', model, out, '--tensor', 'output_norm', '--force')
        self.assertEqual(set(tensors(out)), {'output_norm.weight'})
        self.assertEqual(set(os.listdir(self.folder)) - {'.cache'}, {'out.safetensors'})


if __name__ == '__main__':
    unittest.main()
