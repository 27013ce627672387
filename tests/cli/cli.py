"""Runs build/tilewright as a user does.  $TW_CLI names the program; each test has its own cache."""

import json
import os
import subprocess
import tempfile
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
MODELS = os.path.join(ROOT, 'models')
COMMANDS = ('devices', 'list', 'shapes', 'plan', 'dump', 'tune', 'bench', 'verify', 'quantize',
            'dequantize', 'cache', 'doctor', 'demo')
SCHEME = 'w=u4,g=32,s=f16,z=value,a=i8g32'
SMALL = 'N=96,K=96,' + SCHEME
# How bench says that a share above 1 was measured.
WRONG = 'this bench is wrong'
# What decides about generated code or where it is kept must not leak in from outside.
CLEARED = ('TW_DEBUG', 'TW_DUMP', 'TW_TRACE', 'TW_CACHE', 'TW_CACHE_SYSTEM', 'TW_THREADS',
           'TW_TUNE', 'XDG_CACHE_HOME')


class Cli(unittest.TestCase):
    """A temporary folder, an environment with its own cache, and ways to run the program."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.env = {k: v for k, v in os.environ.items() if k not in CLEARED}
        self.env['TW_CACHE'] = self.path('cache.db')
        self.env['HOME'] = self.folder

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, name, text):
        path = self.path(name)
        with open(path, 'w', encoding='utf-8') as file:
            file.write(text)
        return path

    def command(self, *args):
        return [os.environ['TW_CLI'], *args]

    def run_cli(self, *args, code=0, **options):
        """Runs it to the end; the exit code must be `code`.  Output is bytes where text=False."""
        options.setdefault('text', True)
        done = subprocess.run(self.command(*args), env=self.env, stdin=subprocess.DEVNULL,
                              stdout=options.pop('stdout', subprocess.PIPE), stderr=subprocess.PIPE,
                              check=False, timeout=300, **options)
        self.assertEqual(done.returncode, code, f'{args}\n{done.stdout}\n{done.stderr}')
        return done

    def records(self, *args, code=0):
        """The objects of --json: every line is one."""
        done = self.run_cli(*args, '--json', code=code)
        found = [json.loads(line) for line in done.stdout.splitlines()]
        for record in found:
            self.assertIsInstance(record, dict)
        return found

    def run_bench(self, *args, rounds=1):
        """bench by one thread.  On a busy machine a limit may come out too low, which it says."""
        command = self.command('bench', *args, '--threads', '1', '--repeat', str(rounds))
        done = subprocess.run(command, env=self.env, text=True, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, check=False, timeout=300)
        good = done.returncode == 0 or (done.returncode == 1 and WRONG in done.stderr)
        self.assertTrue(good, f'{command}\n{done.stdout}\n{done.stderr}')
        return done

    def bench(self, *args, rounds=1):
        done = self.run_bench(*args, '--json', rounds=rounds)
        return [json.loads(line) for line in done.stdout.splitlines()]

    def fails(self, code, sentence, *args):
        """It exits with `code` and one sentence that holds `sentence`; stdout stays empty."""
        done = self.run_cli(*args, code=code)
        self.assertIn(sentence, done.stderr)
        self.assertTrue(done.stderr.startswith('tilewright: '), done.stderr)
        self.assertEqual(done.stdout, '')

    def model(self, name):
        """The path of a fetched model; skips without it, unless TW_REQUIRE_MODELS=1."""
        path = os.path.join(MODELS, name)
        if not os.path.exists(path):
            if os.environ.get('TW_REQUIRE_MODELS') == '1':
                self.fail(f'{path} is missing and TW_REQUIRE_MODELS=1: run tools/fetch_models.sh')
            self.skipTest(f'{path} is missing: run tools/fetch_models.sh')
        return path
