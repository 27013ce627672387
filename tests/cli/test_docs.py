#!/usr/bin/env python3
"""README.md and docs/: programs compile and run as they stand there, commands are real."""

import os
import re
import shutil
import subprocess
import unittest

import cli

PAGES = ('README.md', 'docs/adding.md', 'docs/problem.md')


def read(path):
    with open(os.path.join(cli.ROOT, path), encoding='utf-8') as file:
        return file.read()


class Readme(cli.Cli):
    def test_the_program_is_the_example_and_runs(self):
        program = re.search(r'```c\n(.*?)```', read('README.md'), re.DOTALL)[1]
        self.assertEqual(program, read('examples/hello.c'))
        # Compiled with the very command that stands there, in a folder that looks like the clone.
        build = os.path.dirname(os.environ['TW_CLI'])
        for name in ('examples', 'include'):
            shutil.copytree(os.path.join(cli.ROOT, name), self.path(name))
        os.symlink(build, self.path('build'))
        command = re.search(r'\$ (cc examples/hello\.c .*)', read('README.md'))[1]
        subprocess.run(command.replace('$PWD', self.folder), shell=True, check=True,
                       cwd=self.folder)
        done = subprocess.run(['./hello'], cwd=self.folder, env=self.env, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
        self.assertEqual((done.returncode, done.stderr), (0, ''))
        said = re.search(r'\$ \./hello\n +(y\[0,0\] = \S+) by cpu\.', read('README.md'))[1]
        self.assertTrue(done.stdout.startswith(said + ' by cpu.'), done.stdout)

    def test_kernels_are_shown_at_their_version(self):
        """Sample output of plan and dump is that of this build's kernels."""
        versions = {r['kernel']: r['version'] for r in self.records('list', 'kernels')}
        shown = [(page, kernel, int(version)) for page in PAGES for kernel, version in
                 re.findall(r'\bkernel +(cpu\.\w+) version (\d+)', read(page))]
        self.assertGreaterEqual(len(shown), 2)
        for page, kernel, version in shown:
            self.assertEqual(version, versions[kernel], f'{page}: {kernel}')

    def test_files_that_are_linked_exist(self):
        for page in PAGES:
            for link in re.findall(r'\]\(([^)#:]+)\)', read(page)):
                folder = os.path.dirname(os.path.join(cli.ROOT, page))
                self.assertTrue(os.path.exists(os.path.join(folder, link)), f'{page}: {link}')


class Commands(cli.Cli):
    def test_every_command_and_option_exists(self):
        """Whatever a page calls `tilewright COMMAND --option` is in that command's help."""
        known = {c: set(re.findall(r'(?m)^  (--[a-z-]+)', self.run_cli(c, '--help').stdout))
                 for c in cli.COMMANDS}
        added = {'version'}  # docs/adding.md shows how
        found = 0
        for page in PAGES:
            for command, rest in re.findall(r'\btilewright ([a-z]+)\b([^\n`]*)', read(page)):
                if command in added:
                    continue
                self.assertIn(command, known, page)
                self.assertLessEqual(set(re.findall(r'--[a-z-]+', rest)), known[command], page)
                found += 1
        self.assertGreater(found, 15)

    def test_what_does_not_depend_on_the_machine_is_printed_as_shown(self):
        for page in PAGES:
            for block in re.findall(r'```sh\n(.*?)```', read(page), re.DOTALL):
                for command, output in re.findall(r'\$ tilewright (.*)\n((?:[^$].*\n)*)', block):
                    done = subprocess.run(os.environ['TW_CLI'] + ' ' + command, shell=True,
                                          text=True, env=self.env, stdout=subprocess.PIPE,
                                          stderr=subprocess.STDOUT, check=False)
                    self.assertEqual(done.stdout, output, command)


class Problems(cli.Cli):
    def test_every_value_of_the_table_is_one(self):
        """docs/problem.md: each value in backticks is accepted for its field."""
        rows = re.findall(r'(?m)^\| (x|w|g|s|z|a|y|bias|act) \| (.*?) \|', read('docs/problem.md'))
        self.assertEqual(len(rows), 9)
        for field, text in rows:
            for value in re.findall(r'`([a-z][a-z0-9_]*)`', text):
                value = value.replace('i8gG', 'i8g64')
                problem = f'M=1,N=8,K=128,{field}={value}'
                if field in 'gsza':
                    problem += ',w=u4' + (',g=32' if field == 'a' else '')
                elif field != 'w':
                    problem += ',w=f32'
                plan, = self.records('plan', 'cpu', problem)
                self.assertIn(f'{field}={value}', plan['problem'])

    def test_the_file_of_problems_is_one(self):
        block = re.search(r'```\n(# attention.*?)```', read('docs/problem.md'), re.DOTALL)[1]
        found = self.records('shapes', self.write('p.txt', block))
        self.assertEqual([(r['M'], r['N']) for r in found], [(None, 576), (1, 49152)])

    def test_defaults(self):
        plan, = self.records('plan', 'cpu', 'M=1,N=8,K=8,w=i4')
        self.assertEqual(plan['problem'], 'M=1,N=8,K=8,x=f32,w=i4,g=channel,s=f32,z=none,a=none,'
                                          'y=f32,bias=none,act=none')


if __name__ == '__main__':
    unittest.main()
