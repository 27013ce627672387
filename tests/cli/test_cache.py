#!/usr/bin/env python3
"""tilewright cache: stats, list, verify, prune, and what they say of files that are no cache."""

import os
import sqlite3
import unittest

import cli


class Cache(cli.Cli):
    def fill(self):
        self.run_cli('tune', 'cpu', 'M=1,' + cli.SMALL, '--budget', '20s', '--threads', '1')

    def execute(self, statement):
        with sqlite3.connect(self.env['TW_CACHE']) as db:
            db.execute(statement)
        db.close()

    def test_nothing_is_created_by_looking(self):
        for action in ('stats', 'list', 'verify'):
            self.fails(1, 'cache.db', 'cache', action)
        self.assertFalse(os.path.exists(self.env['TW_CACHE']))

    def test_stats_and_list(self):
        self.fill()
        stats, = self.records('cache', 'stats')
        self.assertEqual((stats['choices'], stats['undecided'], stats['path']),
                         (1, 0, self.env['TW_CACHE']))
        choice, = self.records('cache', 'list')
        self.assertEqual((choice['kind'], choice['kernel']), ('choice', 'cpu.int_gemm'))
        self.assertIn('M<=1,N=96,K=96', choice['key'])
        trials = self.records('cache', 'list', '--trials')
        self.assertEqual(len(trials), stats['trials'])
        binaries = self.records('cache', 'list', '--binaries')
        self.assertEqual(sum(r['bytes'] for r in binaries), stats['binary_bytes'])
        both = self.records('cache', 'list', '--devices', '--binaries')
        self.assertEqual(len(both), stats['devices'] + stats['binaries'])
        self.assertIn(choice['config'], self.run_cli('cache', 'list').stdout)

    def test_options_of_another_action(self):
        self.fill()
        self.fails(2, 'cache stats: takes no option of cache prune', 'cache', 'stats', '--max-mb',
                   '1')
        self.fails(2, 'cache prune: takes no option of cache list', 'cache', 'prune', '--trials')

    def test_an_empty_file(self):
        self.write('cache.db', '')
        self.fails(1, 'is empty: nothing was stored yet', 'cache', 'stats')

    def test_stats_name_the_system_file(self):
        self.fill()
        system = self.env['TW_CACHE']
        self.assertEqual(self.records('cache', 'stats')[0]['system'], '')
        self.env.update(TW_CACHE=self.path('other.db'), TW_CACHE_SYSTEM=system)
        # A choice that only the system file has is one: nothing is tuned, nothing is stored.
        before = os.stat(system)
        plan = self.run_cli('plan', 'cpu', 'M=1,' + cli.SMALL, '--threads', '1')
        self.assertRegex(plan.stdout, 'origin +cache')
        stats, = self.records('cache', 'stats')
        self.assertEqual((stats['choices'], stats['system']), (0, system))
        self.assertIn('below it ' + system, self.run_cli('cache', 'stats').stdout)
        after = os.stat(system)
        self.assertEqual((before.st_mtime_ns, before.st_size), (after.st_mtime_ns, after.st_size))

    def test_verify_finds_a_damaged_blob(self):
        self.fill()
        self.assertEqual(self.records('cache', 'verify')[-1]['defects'], 0)
        self.execute("update binary set blob = zeroblob(length(blob))")
        found = self.records('cache', 'verify', code=1)
        self.assertGreater(found[-1]['defects'], 0)
        self.assertEqual(len(found) - 1, found[-1]['defects'])
        # A damaged blob is a miss: the layer runs, with a warning.
        done = self.run_bench('cpu', 'M=1,' + cli.SMALL)
        warnings = [x for x in done.stderr.splitlines() if cli.WRONG not in x]
        self.assertEqual(len(warnings), 1, done.stderr)

    def test_prune(self):
        self.fill()
        pruned, = self.records('cache', 'prune')
        self.assertEqual((pruned['choices'], pruned['trials']), (0, 0))
        # What a host's own implementation won stays: whether that still exists is not known.
        self.execute("insert into choice select null, 'd', 'k', device, 'registered', 1, 'mine', "
                     "median_ns, spread_ns, error, created, used, library from choice")
        self.assertEqual(self.records('cache', 'prune')[0]['choices'], 0)
        self.execute("delete from choice where kernel = 'registered'")
        self.execute("update choice set kernel_version = kernel_version + 1")
        self.execute("update trial set kernel_version = kernel_version + 1")
        pruned, = self.records('cache', 'prune')
        self.assertEqual(pruned['choices'], 1)
        self.assertEqual(self.records('cache', 'stats')[0]['choices'], 0)

    def test_no_cache_of_ours(self):
        self.env['TW_CACHE'] = self.write('notes.db', 'not a database at all\n' * 50)
        for action in ('stats', 'list', 'verify', 'prune'):
            self.fails(1, 'notes.db', 'cache', action)
        with open(self.env['TW_CACHE'], encoding='utf-8') as file:
            self.assertEqual(file.read(), 'not a database at all\n' * 50)


if __name__ == '__main__':
    unittest.main()
