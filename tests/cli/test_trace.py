#!/usr/bin/env python3
"""TW_TRACE of a command: a Chrome trace, which several runs may share."""

import json
import re
import unittest

import cli

PROBLEM = 'M=1,N=96,K=96,x=f32,w=u4,g=32,s=f16,z=value,a=i8g32,y=f32,bias=none,act=none'


class Trace(cli.Cli):
    def events(self):
        """The events so far; viewers close the array as this does."""
        with open(self.env['TW_TRACE'], encoding='utf-8') as file:
            text = file.read()
        self.assertTrue(text.startswith('[\n') and text.endswith('},\n'), text[-100:])
        return json.loads(text[:-2] + ']')

    def test_tune(self):
        self.env['TW_TRACE'] = self.path('trace.json')
        self.run_cli('tune', 'cpu', PROBLEM, '--budget', '20s', '--threads', '1')
        events = self.events()
        tune, = [e for e in events if e['name'] == 'tune']
        compiles = [e for e in events if e['name'] == 'compile']
        self.assertGreater(len(compiles), 2)
        for event in events:
            self.assertEqual(event['ph'], 'X')
            self.assertEqual(event['args']['problem'], PROBLEM)
            self.assertGreaterEqual(event['ts'], tune['ts'])
        # What was chosen is one of those that were compiled, but for its blocks, which are the
        # launch's: configs that differ in them alone share their code.
        code = [(e['args']['kernel'], re.sub(r' b[mn]\d+', '', e['args']['config']))
                for e in [tune, *compiles]]
        self.assertIn(code[0], code[1:])
        # Decided already: the second run adds no tuning.
        self.run_cli('tune', 'cpu', PROBLEM, '--threads', '1')
        self.assertEqual(sum(e['name'] == 'tune' for e in self.events()), 1)

    def test_a_file_that_cannot_be_written_is_a_warning(self):
        self.env['TW_TRACE'] = self.folder
        done = self.run_cli('plan', 'cpu', PROBLEM)
        self.assertRegex(done.stderr, r'warning: TW_TRACE: .*; nothing is traced')

    def test_it_is_an_option(self):
        self.assertIn('TW_TRACE', self.run_cli('list', 'options').stdout)


if __name__ == '__main__':
    unittest.main()
