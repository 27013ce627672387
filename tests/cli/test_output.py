#!/usr/bin/env python3
"""What commands write: files, what may be replaced, what is left behind; text from outside."""

import glob
import json
import os
import resource
import signal
import stat
import struct
import subprocess
import threading
import time
import unittest

import cli
import gguf

PROBLEM = ('cpu', 'M=8,N=64,K=64,w=u4,g=32,s=f16,a=i8', '--trace')


def names(path):
    """The tensors of a safetensors file."""
    with open(path, 'rb') as file:
        size, = struct.unpack('<Q', file.read(8))
        return set(json.loads(file.read(size))) - {'__metadata__'}


class Output(cli.Cli):
    def setUp(self):
        super().setUp()
        self.trace = self.run_cli('dump', *PROBLEM, text=False).stdout
        self.model_path = gguf.write(self.path('m.gguf'), [(b'a', gguf.F32, [2, 32], None)])
        self.before = set(os.listdir(self.folder))

    def dump(self, out, code=0, **options):
        return self.run_cli('dump', *PROBLEM, '--out', out, code=code, text=False, **options)

    def device(self, name, minor):
        """A node of our own for a memory device, since the program may do it harm."""
        try:
            os.mknod(self.path(name), 0o666 | stat.S_IFCHR, os.makedev(1, minor))
            open(self.path(name), 'wb').close()
        except PermissionError:
            self.skipTest('only root makes device nodes, and not in every container')
        return self.path(name)

    def new(self):
        """What stands in the folder and did not before."""
        return sorted(set(os.listdir(self.folder)) - self.before)

    def read(self, name):
        with open(self.path(name), 'rb') as file:
            return file.read()


class Dump(Output):
    def test_a_symbolic_link_stays_one(self):
        os.mkdir(self.path('deep'))
        self.write('deep/target', 'old')
        os.symlink('deep/target', self.path('link'))
        os.symlink(self.path('link'), self.path('link2'))
        self.dump(self.path('link2'))
        self.assertTrue(os.path.islink(self.path('link')) and os.path.islink(self.path('link2')))
        self.assertEqual(self.read('deep/target'), self.trace)
        self.assertEqual(os.listdir(self.path('deep')), ['target'])
        self.assertEqual(self.new(), ['deep', 'link', 'link2'])

    def test_a_link_to_what_is_not_there_yet(self):
        os.symlink('target', self.path('link'))
        self.dump(self.path('link'))
        self.assertTrue(os.path.islink(self.path('link')))
        self.assertEqual(self.read('target'), self.trace)

    def test_a_link_to_itself(self):
        os.symlink('loop', self.path('loop'))
        done = self.dump(self.path('loop'), code=1)
        self.assertIn(b'loop: Too many levels of symbolic links', done.stderr)
        self.assertTrue(os.path.islink(self.path('loop')))

    def test_permissions_stay(self):
        os.chmod(self.write('k.s', 'old'), 0o640)
        self.dump(self.path('k.s'))
        self.assertEqual(self.read('k.s'), self.trace)
        self.assertEqual(os.stat(self.path('k.s')).st_mode & 0o777, 0o640)

    def test_a_fifo_is_written_to(self):
        fifo = self.path('fifo')
        os.mkfifo(fifo)
        got = []
        reader = threading.Thread(target=lambda: got.append(self.read('fifo')), daemon=True)
        reader.start()
        self.dump(fifo)
        reader.join(60)
        self.assertEqual(got, [self.trace])
        self.assertEqual(self.new(), ['fifo'])

    def test_standard_output_by_its_name(self):
        # Through a link of our own: a program that replaces it must not harm the machine's.
        os.symlink('/proc/self/fd/1', self.path('stdout'))
        self.assertEqual(self.dump(self.path('stdout')).stdout, self.trace)
        with open(self.path('file'), 'wb') as file:
            file.write(b'before ')
            file.flush()
            self.dump(self.path('stdout'), stdout=file)
            file.seek(0, 2)
            file.write(b'after')
        self.assertEqual(self.read('file'), b'before ' + self.trace + b'after')

    def test_devices_are_written_to_and_stay(self):
        self.dump(self.device('null', 3))
        done = self.dump(self.device('full', 7), code=1)
        self.assertIn(b'full: No space left on device', done.stderr)
        self.assertEqual(done.stdout, b'')
        for name in ('null', 'full'):
            self.assertTrue(stat.S_ISCHR(os.stat(self.path(name)).st_mode))
        self.assertEqual(self.new(), ['full', 'null'])

    def test_folders_are_refused(self):
        os.mkdir(self.path('folder'))
        self.assertIn(b'folder: is a folder', self.dump(self.path('folder'), code=1).stderr)


class Dequantize(Output):
    def dequantize(self, out, *args, code=0):
        return self.run_cli('dequantize', self.model_path, out, *args, code=code)

    def test_a_symbolic_link_stays_one(self):
        self.write('target', 'old')
        os.symlink('target', self.path('link'))
        self.assertIn('--force', self.dequantize(self.path('link'), code=1).stderr)
        self.dequantize(self.path('link'), '--force')
        self.assertTrue(os.path.islink(self.path('link')))
        self.assertEqual(names(self.path('target')), {'a'})
        self.assertEqual(self.new(), ['link', 'target'])

    def test_what_is_no_regular_file_is_refused(self):
        os.mkfifo(self.path('fifo'))
        os.symlink('fifo', self.path('link'))
        os.mkdir(self.path('folder'))
        for name, kind in (('fifo', 'a FIFO'), ('link', 'a FIFO'), ('folder', 'a folder')):
            for force in ((), ('--force',)):
                done = self.dequantize(self.path(name), *force, code=1)
                self.assertIn(f'{self.path(name)}: is {kind}, expected a regular file', done.stderr)
        self.assertEqual(self.new(), ['fifo', 'folder', 'link'])
        self.assertFalse(os.path.isfile(self.path('fifo')))

    def test_devices_are_refused(self):
        null = self.device('null', 3)
        for force in ((), ('--force',)):
            self.assertIn(f'{null}: is a device, expected a regular file',
                          self.dequantize(null, *force, code=1).stderr)
        self.assertTrue(stat.S_ISCHR(os.stat(null).st_mode))

    def quantized(self, config):
        """A folder with a packed weight and a norm; its config.json, if there is to be one."""
        os.makedirs(self.path('quantized'), exist_ok=True)
        header = {'a.qweight': {'dtype': 'I32', 'shape': [1, 4], 'data_offsets': [0, 16]},
                  'norm.weight': {'dtype': 'F32', 'shape': [4], 'data_offsets': [16, 32]}}
        text = json.dumps(header).encode()
        with open(self.path('quantized/model.safetensors'), 'wb') as file:
            file.write(struct.pack('<Q', len(text)) + text + bytes(32))
        if config:
            self.write('quantized/config.json', json.dumps(config))
        return self.path('quantized')

    def test_quantizations_that_are_not_known(self):
        config = {'model_type': 'llama', 'quantization_config': {'quant_method': 'quip'}}
        for given, why in ((None, 'a.qweight: a packed quantized weight'),
                           (config, "quantization_config: quant_method 'quip', which this version "
                            'cannot read; it reads gptq, awq, compressed-tensors, fp8, mxfp4, '
                            'torchao')):
            folder = self.quantized(given)
            self.fails(1, why, 'dequantize', folder, self.path('out'))
            self.assertFalse(os.path.exists(self.path('out')))
            # Who names tensors gets them.
            self.run_cli('dequantize', folder, self.path('norm'), '--tensor', '^norm', '--force')
            self.assertEqual(names(self.path('norm')), {'norm.weight'})


class Interrupted(Output):
    """Nothing is left behind, whatever ends the process but SIGKILL."""

    def setUp(self):
        super().setUp()
        # Takes a second and more, and is broken off long before.
        gguf.write(self.path('big.gguf'), [(b'a', gguf.F32, [1 << 14, 1 << 14], None)])
        self.before.add('big.gguf')

    def start(self, *args):
        return subprocess.Popen(self.command('dequantize', self.path('big.gguf'),
                                             self.path('out'), *args),
                                env=self.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def end(self, number, *args):
        with self.start(*args) as process:
            deadline = time.monotonic() + 60
            while not glob.glob(self.path('out.*')) and process.poll() is None:
                self.assertLess(time.monotonic(), deadline)
                time.sleep(0.001)
            process.send_signal(number)
            process.communicate(timeout=60)
        return process.returncode

    def test_signals(self):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
            self.assertEqual(self.end(number), -number)
            self.assertEqual(self.new(), [])

    def test_the_old_file_stays(self):
        self.write('out', 'old')
        self.assertEqual(self.end(signal.SIGTERM, '--force'), -signal.SIGTERM)
        self.assertEqual((self.new(), self.read('out')), (['out'], b'old'))

    def test_a_limit_on_sizes_is_an_error_like_a_full_disk(self):
        def limit():
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
        done = self.run_cli('dequantize', self.path('big.gguf'), self.path('out'), code=1,
                            preexec_fn=limit)
        self.assertIn(self.path('out') + ': File too large', done.stderr)
        self.assertEqual(self.new(), [])


class Text(cli.Cli):
    """What a file says of itself does not reach the terminal as it is."""

    evil = 'a\x1b]0;owned\x07\x1b[2J\x7f\u009b31m\tb\nc\u00e9'
    shown = 'a\\x1b]0;owned\\x07\\x1b[2J\\x7f\\xc2\\x9b31m\\x09b\\x0ac\u00e9'

    def shows(self, *args, code=0):
        done = self.run_cli(*args, code=code)
        text = done.stdout + done.stderr
        self.assertNotRegex(text, r'[\x00-\x09\x0b-\x1f\x7f-\x9f]')
        self.assertIn(self.shown, text)
        return text

    def safetensors(self, header):
        text = json.dumps(header).encode()
        path = self.path('evil.safetensors')
        with open(path, 'wb') as file:
            file.write(struct.pack('<Q', len(text)) + text + bytes(128))
        return path

    def test_names_in_tables(self):
        names = (self.evil + '.0.weight', self.evil + '.1.weight')
        model = self.safetensors({n: {'dtype': 'F32', 'shape': [4, 4],
                                      'data_offsets': [64 * i, 64 * i + 64]}
                                  for i, n in enumerate(names)})
        for args in ((), ('--names',)):
            rows = self.shows('shapes', model, *args).splitlines()
            self.assertEqual(len(rows), 4 if args else 3)
        self.assertEqual(self.records('shapes', model, '--names')[0]['names'], list(names))
        # What is written keeps the names.
        self.run_cli('dequantize', model, self.path('out'))
        again, = self.records('shapes', self.path('out'), '--names')
        self.assertEqual(set(again['names']), set(names))

    def test_paths_that_are_no_text(self):
        """JSON holds bytes that are no UTF-8 as \\xff."""
        path = os.fsencode(self.folder) + b'/caf\xc3\xa9\xe9.db'
        self.env['TW_CACHE'] = os.fsdecode(path)
        shown = self.folder + '/caf\u00e9\\xe9.db'
        self.run_cli('tune', 'cpu', 'M=1,' + cli.SMALL, '--budget', '5s', '--threads', '1')
        for action in ('stats', 'verify'):
            self.assertEqual(self.records('cache', action)[-1]['path'], shown)
        values = [r['value'] for r in self.records('list', 'options') if r['option'] == 'TW_CACHE']
        self.assertEqual(values, [shown])
        self.assertTrue(any(shown in r['found'] for r in self.records('doctor')))
        out = os.fsdecode(os.fsencode(self.folder) + b'/\xff.ll')
        record, = self.records('dump', 'cpu', 'M=1,' + cli.SMALL, '--ir', '--out', out)
        self.assertEqual(record['out'], self.folder + '/\\xff.ll')
        self.assertTrue(os.path.exists(out))

    def test_architectures(self):
        model = gguf.write(self.path('m.gguf'), [(b'blk.0.attn_k.weight', gguf.F32, [4, 4], None)],
                           architecture=self.evil.encode())
        self.shows('shapes', model)

    def test_notes_and_errors(self):
        model = gguf.write(self.path('m.gguf'), [(self.evil.encode(), gguf.Q8_1, [4, 32], None)])
        self.shows('dequantize', model, self.path('out'), code=1)
        self.shows('shapes', self.path(self.evil), code=1)
        self.shows('plan', 'cpu', 'M=1,' + self.evil, code=2)
        self.shows(self.evil, code=2)
        self.shows('dequantize', self.safetensors({self.evil: 1}), self.path('out'), code=1)


if __name__ == '__main__':
    unittest.main()
