#!/usr/bin/env python3
"""Commands that measure: tune, bench, demo.  Nothing here depends on how long anything took."""

import json
import os
import pty
import re
import resource
import signal
import sqlite3
import subprocess
import time
import unittest

import cli

PROBLEMS = 'N=96,K=96,w=u4,g=32,s=f16,z=value,a=i8g32\nN=64,K=96,w=f32\n'
BENCH_FIELDS = {'problem', 'device', 'kernel', 'config', 'origin', 'median_ns', 'min_ns', 'p90_ns',
                'gops', 'weight_gbps', 'nmse', 'limit_gops', 'limit_gbps', 'fraction_of_limit'}


class Tune(cli.Cli):
    def test_decides_stores_and_knows_it_again(self):
        args = ('cpu', '@' + self.write('p.txt', PROBLEMS), '--m', '1,5', '--budget', '20s',
                '--threads', '1')
        first = self.records('tune', *args)
        problems = {r['problem'] for r in self.records('tune', *args)}
        self.assertEqual({p.split(',')[0] for p in problems}, {'M=1', 'M=8'})
        self.assertEqual(len(problems), 4)
        for record in first:
            self.assertEqual((record['origin'], record['decided']), ('tuned', True))
            self.assertGreater(record['measured'], 0)
            for name in ('median_ns', 'gops', 'guess_ns', 'reference_ns', 'limit_gops',
                         'limit_gbps'):
                self.assertGreater(record[name], 0, name)
        second = self.records('tune', *args)
        self.assertEqual([r['origin'] for r in second], ['cache'] * 4)
        by_problem = {r['problem']: r for r in first}
        for new in second:
            old = by_problem[new['problem']]
            self.assertEqual(old['config'], new['config'])
            self.assertAlmostEqual(old['median_ns'], new['median_ns'], delta=1)
            self.assertGreater(new['guess_ns'], 0)
        # Another M of the same bucket is the same decision, and so it is what a plan runs.
        plan, = self.records('plan', 'cpu', 'M=7,' + cli.SMALL, '--threads', '1')
        same = by_problem[plan['problem'].replace('M=7', 'M=8')]
        self.assertEqual((plan['origin'], plan['config']), ('cache', same['config']))

    def test_text(self):
        args = ('cpu', self.write('p.txt', PROBLEMS), '--m', '1', '--budget', '20s',
                '--threads', '1')
        done = self.run_cli('tune', *args)
        self.assertRegex(done.stderr, r'\[[12]/2\] M=1,N=64,K=96,x=f32,w=f32')
        self.assertNotIn('\r', done.stderr)
        self.assertIn('2 of 2 problems decided in', done.stdout)
        self.assertIn('0 of them known before', done.stdout)
        self.assertIn('of limit  of guess  of reference', done.stdout)
        self.assertRegex(done.stdout, r'M=1,N=64,K=96,w=f32 +cpu\.\w+ mm\d')
        again = self.run_cli('tune', *args)
        self.assertIn('2 of 2 problems are known from earlier runs', again.stderr)

    def test_a_terminal_gets_a_bar(self):
        try:
            ours, theirs = pty.openpty()
        except OSError as error:  # a chroot without /dev/pts
            self.skipTest(f'no terminal to be had: {error}')
        args = ('tune', 'cpu', self.write('p.txt', PROBLEMS), '--m', '1,64', '--budget', '20s',
                '--threads', '1')
        process = subprocess.Popen(self.command(*args), env=self.env, stdout=subprocess.PIPE,
                                   stderr=theirs)
        os.close(theirs)
        shown = b''
        try:
            while part := os.read(ours, 4096):
                shown += part
        except OSError:  # how a terminal whose other end is closed says so
            pass
        os.close(ours)
        process.communicate(timeout=60)
        self.assertEqual(process.returncode, 0)
        bars = re.findall(r'\r\x1b\[K\[#*\.*\] +\d+%, \d+ s left  M=', shown.decode())
        self.assertGreater(len(bars), 3)
        self.assertTrue(all(len(line) < 80 for line in bars))

    def test_again_takes_measurements_over(self):
        args = ('cpu', 'M=1,' + cli.SMALL, '--threads', '1', '--budget', '20s')
        first, = self.records('tune', *args)
        again, = self.records('tune', *args, '--again')
        self.assertEqual(again['origin'], 'tuned')
        self.assertGreaterEqual(again['known'], first['measured'])

    def test_what_no_kernel_takes_is_passed_over(self):
        text = self.write('p.txt', 'M=1,N=8,K=8,w=u4,g=3\nM=1,N=64,K=64,w=f32\n')
        done = self.run_cli('tune', 'cpu', text, '--threads', '1', '--budget', '20s', '--json',
                            code=1)
        self.assertIn('M=1,N=8,K=8,x=f32,w=u4,g=3', done.stderr)
        self.assertEqual(len(done.stdout.splitlines()), 1)

    def test_a_cache_that_cannot_be_used(self):
        self.env['TW_CACHE'] = self.folder
        self.fails(1, self.folder, 'tune', 'cpu', 'M=1,' + cli.SMALL)
        self.env['TW_CACHE'] = self.write('junk.db', 'this is no database, nor was it\n' * 99)
        self.fails(1, 'junk.db', 'tune', 'cpu', 'M=1,' + cli.SMALL)
        with open(self.env['TW_CACHE'], encoding='utf-8') as file:
            self.assertTrue(file.read().startswith('this is no database'))


class ShortBudget(cli.Cli):
    def choices(self):
        return [r['key'] for r in self.records('cache', 'list')]

    def test_too_short_for_any_decision(self):
        args = ('tune', 'cpu', 'M=1,' + cli.SMALL, '--threads', '1')
        done = self.run_cli(*args, '--budget', '1ms', code=1)
        self.assertEqual(done.stdout, '')
        self.assertRegex(done.stderr, '^tilewright: 1 of 1 problems left: a budget of 1.00 ms is '
                                      'too short for M=1,N=96,.*: at least about [0-9.]+ m?s\n$')
        self.assertEqual(self.choices(), [])
        plan, = self.records('plan', 'cpu', 'M=1,' + cli.SMALL, '--threads', '1')
        self.assertEqual(plan['origin'], 'guess')
        record, = self.records(*args, '--budget', '20s')
        self.assertEqual((record['origin'], record['decided']), ('tuned', True))
        self.assertGreaterEqual(record['measured'] + record['known'], 4)
        self.assertEqual(len(self.choices()), 1)

    def test_each_run_gets_further_or_says_that_it_cannot(self):
        args = ('tune', 'cpu', '@' + self.write('p.txt', PROBLEMS), '--m', '1,16,512', '--threads',
                '1')
        milliseconds, decided, trials = 40, 0, 0
        for _ in range(100):
            done = subprocess.run(self.command(*args, '--budget', f'{milliseconds}ms'),
                                  env=self.env, capture_output=True, text=True, check=False)
            before = (decided, trials)
            decided, trials = len(self.choices()), self.records('cache', 'stats')[0]['trials']
            self.assertEqual(done.returncode, decided < 6, done.stderr)
            if decided == 6:
                break
            if 'too short' in done.stderr:
                milliseconds *= 2
            else:
                self.assertIn('the same command goes on from here', done.stderr)
                self.assertGreater((decided, trials), before, done.stderr)
        self.assertEqual(decided, 6)

    def test_large_weights_are_no_excuse(self):
        """What cannot be in time is broken off: this takes many seconds to set up."""
        start = time.monotonic()
        done = self.run_cli('tune', 'cpu', 'M=1,N=100000,K=32768,w=u4,g=32,s=f16,z=value,a=i8g32',
                            '--threads', '1', '--budget', '500ms', code=1)
        self.assertIn('a budget of 500 ms is too short for M=1,N=100000,K=32768', done.stderr)
        # Not a matter of seconds more on any machine that runs tests; it was half a minute.
        self.assertLess(time.monotonic() - start, 10)


class FailingCache(cli.Cli):
    """The cache fails in the middle of the run: no config is to blame, and nothing says so."""

    ARGS = ('tune', 'cpu', 'M=4,' + cli.SMALL, '--threads', '1', '--budget', '20s')

    def failures(self):
        return [t for t in self.records('cache', 'list', '--trials') if t['outcome'] != 'ok']

    def run_on_a_full_disk(self, command, room, code):
        """No file may grow beyond `room` bytes; the signal that comes with that is ignored."""
        done = subprocess.run(command, env=self.env, text=True, capture_output=True, check=False,
                              restore_signals=False, timeout=300, preexec_fn=lambda:
                              resource.setrlimit(resource.RLIMIT_FSIZE, (room, room)))
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        return done.stderr.splitlines()

    def test_a_full_disk_ends_the_run(self):
        for room in (60 << 10, 250 << 10):
            self.env['TW_CACHE'] = self.path(f'{room}.db')
            said = self.run_on_a_full_disk(self.command(*self.ARGS), room, code=1)
            self.assertEqual(len(said), 1, said)
            self.assertRegex(said[0], self.env['TW_CACHE'] + ': a .* could not be stored: ')
            self.assertEqual(self.failures(), [])
            # With room again the same command decides.
            self.run_cli(*self.ARGS)

    def test_a_full_disk_costs_a_layer_one_warning(self):
        self.records('plan', 'cpu', 'M=1,' + cli.SMALL)
        said = self.run_on_a_full_disk(self.command('verify', 'cpu', 'M=1,' + cli.SMALL), 4 << 10,
                                       code=0)
        self.assertEqual(len(said), 1, said)

    def damage(self, index):
        with sqlite3.connect(self.env['TW_CACHE']) as db:
            page, = db.execute('select rootpage from sqlite_schema where name = ?',
                               (index,)).fetchone()
        db.close()
        with open(self.env['TW_CACHE'], 'r+b') as file:
            file.seek((page - 1) * 4096)
            file.write(bytes(4096))

    def test_damage_ends_the_run(self):
        for index in ('sqlite_autoindex_choice_1', 'trial_choice', 'sqlite_autoindex_binary_1'):
            self.env['TW_CACHE'] = self.path(index + '.db')
            self.run_cli('tune', 'cpu', 'M=1,' + cli.SMALL, '--threads', '1', '--budget', '20s')
            self.damage(index)
            done = self.run_cli(*self.ARGS, code=1)
            said = done.stderr.splitlines()
            self.assertNotIn('does not build', done.stderr)
            self.assertNotIn('without', done.stderr)
            self.assertLessEqual(len(said), 2, said)
            self.assertIn(self.env['TW_CACHE'], said[-1])
            self.assertRegex(said[-1], '(nothing can|could not) be stored')
            # A layer runs all the same, with a warning where it reads what is damaged.
            bench = self.run_bench('cpu', 'M=4,' + cli.SMALL)
            said = [x for x in bench.stderr.splitlines() if cli.WRONG not in x]
            self.assertEqual(len(said), index != 'trial_choice', said)


class BrokenOff(cli.Cli):
    """A long run, ended from outside once it has stored something; then the same command again."""

    def start(self, number, **options):
        self.args = ('tune', 'cpu', 'M=64,N=256,K=256,w=i8,a=i8', '--exhaustive',
                     '--threads', '1')
        process = subprocess.Popen(self.command(*self.args, '--budget', '300s'), env=self.env,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                   **options)
        self.addCleanup(process.kill)
        for _ in range(600):
            done = subprocess.run(self.command('cache', 'stats', '--json'), env=self.env,
                                  capture_output=True, text=True, check=False)
            if done.returncode == 0 and json.loads(done.stdout)['trials'] >= 8:
                break
            self.assertIsNone(process.poll(), 'it ended by itself')
            time.sleep(0.05)
        process.send_signal(number)
        if options:
            time.sleep(0.2)
            self.assertIsNone(process.poll(), 'it ended all the same')
            process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=120)
        return process.returncode, out, err

    def goes_on(self):
        stats, = self.records('cache', 'stats')
        self.assertEqual((stats['choices'], stats['undecided']), (0, 1))
        self.assertEqual(self.records('cache', 'verify')[-1]['defects'], 0)
        record, = self.records(*self.args, '--threads', '1', '--budget', '3s')
        self.assertGreaterEqual(record['known'], 8)
        self.assertTrue(record['decided'])
        self.assertEqual(self.records('cache', 'stats')[0]['choices'], 1)

    def test_kill(self):
        code, _, _ = self.start(signal.SIGKILL)
        self.assertEqual(code, -signal.SIGKILL)
        self.goes_on()

    def test_interrupt(self):
        code, out, err = self.start(signal.SIGINT)
        self.assertEqual(code, 1, out + err)
        self.assertIn('stopped with 1 of 1 problems left', err)
        self.assertIn('the same command goes on from here', err)
        self.goes_on()


    def test_an_interrupt_that_the_parent_ignores(self):
        """As of a script's `tune &`: SIGINT is not for it, SIGTERM is."""
        code, out, err = self.start(signal.SIGINT, preexec_fn=lambda: signal.signal(
            signal.SIGINT, signal.SIG_IGN))
        self.assertEqual(code, 1, out + err)
        self.assertIn('stopped with 1 of 1 problems left', err)


class Bench(cli.Cli):
    def test_record(self):
        record, = self.bench('cpu', 'M=16,N=256,K=256,w=u4,g=128,s=f16,z=code,a=i8', rounds=3)
        self.assertLessEqual(BENCH_FIELDS, set(record))
        self.assertEqual((record['origin'], record['threads']), ('guess', 1))
        self.assertLessEqual(record['min_ns'], record['median_ns'])
        self.assertLessEqual(record['median_ns'], record['p90_ns'])
        self.assertAlmostEqual(record['gops'] * record['median_ns'], 2 * 16 * 256 * 256, delta=1)
        floor = max(2 * 16 * 256 * 256 / record['limit_gops'],
                    record['weight_gbps'] * record['median_ns'] / record['limit_gbps'])
        self.assertAlmostEqual(record['fraction_of_limit'], floor / record['median_ns'], places=5)
        self.assertLess(record['nmse'], 1e-12)

    def test_weights(self):
        for state in ('cold', 'hot'):
            for m in ('1', '128'):
                record, = self.bench('cpu', f'M={m},N=128,K=128,w=i8,a=i8', '--weights', state)
                self.assertEqual(record['weights'], state)

    def test_forced_kernel_and_config(self):
        problem = 'M=8,' + cli.SMALL
        guess, = self.records('plan', 'cpu', problem, '--threads', '1')
        record, = self.bench('cpu', problem, '--kernel', guess['kernel'], '--config',
                             guess['config'])
        self.assertEqual((record['origin'], record['config']), ('forced', guess['config']))
        self.fails(1, 'cpu.dq_gemm', 'bench', 'cpu', problem, '--kernel', 'cpu.dq_gemm', '--json')

    def test_text_is_one_table(self):
        done = self.run_bench('cpu', cli.SMALL, '--m', '1,4')
        lines = done.stdout.splitlines()
        self.assertEqual(len(lines), 3)
        self.assertEqual(len({len(line) for line in lines}), 1)
        self.assertTrue(all(line.endswith((' %', 'of limit')) for line in lines))

    def test_a_cache_that_cannot_be_used_costs_one_warning(self):
        self.env['TW_CACHE'] = self.folder
        done = self.run_bench('cpu', 'M=1,' + cli.SMALL)
        warnings = [x for x in done.stderr.splitlines() if cli.WRONG not in x]
        self.assertEqual(len(warnings), 1, done.stderr)
        self.assertIn(self.folder, warnings[0])

    def test_dump_folder(self):
        self.env['TW_DUMP'] = self.path('dump')
        self.run_bench('cpu', 'M=1,' + cli.SMALL)
        kernel, = os.listdir(self.path('dump'))
        self.assertTrue(kernel.startswith('cpu.int_gemm-'))
        self.assertEqual(set(os.listdir(self.path('dump/' + kernel))),
                         {'key.txt', 'kernel.ll', 'kernel.s', 'kernel.o'})


class Demo(cli.Cli):
    def test_an_empty_cache_is_not_warm(self):
        self.fails(1, 'the cache has no kernel for ', 'demo', '--warm')


if __name__ == '__main__':
    unittest.main()
