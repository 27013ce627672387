#!/usr/bin/env python3
"""What every command line has in common: help, options, exit codes, sentences, failing output."""

import json
import os
import re
import unittest

import cli
import gguf

ARGUMENTS = {
    'devices': [], 'list': ['kernels'], 'shapes': ['config.json'],
    'plan': ['cpu', 'M=1,' + cli.SMALL], 'dump': ['cpu', 'M=1,' + cli.SMALL, '--trace'],
    'tune': ['cpu', 'M=1,' + cli.SMALL], 'bench': ['cpu', 'M=1,' + cli.SMALL],
    'verify': ['cpu', 'M=1,' + cli.SMALL], 'dequantize': ['model.gguf', 'out.safetensors'],
    'quantize': ['model.gguf', 'out.safetensors', '--config', 'int8_weight_only'],
    'cache': ['stats'], 'doctor': [], 'demo': ['M=1,' + cli.SMALL],
}


class Help(cli.Cli):
    def test_overview_lists_every_command(self):
        text = self.run_cli('--help').stdout
        for command in cli.COMMANDS:
            self.assertRegex(text, rf'(?m)^  {command} ')
        self.assertEqual(set(ARGUMENTS), set(cli.COMMANDS))
        self.assertEqual(self.run_cli('help').stdout, text)

    def test_version(self):
        with open(cli.ROOT + '/meson.build', encoding='utf-8') as file:
            version = re.search(r"version: '([\d.]+)'", file.read())[1]
        self.assertEqual(self.run_cli('--version').stdout, f'tilewright {version}\n')

    def test_every_command_has_examples_that_are_its_own(self):
        """Options in the examples are options of the table above them."""
        for command in cli.COMMANDS:
            text = self.run_cli(command, '--help').stdout
            self.assertEqual(self.run_cli(command, '-h').stdout, text)
            self.assertTrue(text.startswith(f'usage: tilewright {command}'))
            options, examples = text.split('\noptions:\n')[1].split('\nexamples:\n')
            known = set(re.findall(r'(?m)^  (--[a-z-]+)', options))
            self.assertIn('--help', known)
            self.assertGreaterEqual(examples.count(f'tilewright {command}'), 2)
            self.assertLessEqual(set(re.findall(r'--[a-z-]+', examples)), known)
            self.assertIn('--json', known)


class Usage(cli.Cli):
    def test_commands(self):
        self.fails(2, 'a command is missing')
        self.fails(2, 'unknown command "tunes"', 'tunes')
        self.fails(2, 'unknown command "--verbose"', '--verbose')

    def test_unknown_options_are_named(self):
        for command, arguments in ARGUMENTS.items():
            self.fails(2, f'{command}: unknown option "--no"', command, *arguments, '--no')
            self.fails(2, f'{command}: unknown option "-x"', command, '-x', *arguments)
            self.fails(2, f'{command}: unexpected argument "extra"', command, *arguments, 'extra')
            if arguments and command != 'demo':
                self.fails(2, ' is missing', command)

    def test_missing_arguments_are_named(self):
        self.fails(2, 'plan: DEV is missing', 'plan')
        self.fails(2, 'plan: PROBLEM is missing', 'plan', 'cpu')
        self.fails(2, 'tune: MODEL|PROBLEM|@FILE is missing', 'tune', 'cpu')
        self.fails(2, 'dequantize: OUT.safetensors is missing', 'dequantize', 'model.gguf')

    def test_values(self):
        problem = ('cpu', cli.SMALL)
        for option, value, rule in (
                ('--m', '0', 'positive integers'), ('--m', '1,,2', 'positive integers'),
                ('--m', '1,x', 'positive integers'), ('--threads', '0', 'a positive integer'),
                ('--threads', '-1', 'a positive integer'),
                ('--repeat', '2.5', 'a positive integer'),
                ('--weights', 'warm', 'cold|hot')):
            self.fails(2, f'{option}: "{value}", expected ', 'bench', *problem, option, value)
            done = self.run_cli('bench', *problem, f'{option}={value}', code=2)
            self.assertIn(rule, done.stderr)
        for value in ('', '0', '-3s', '5 parsecs', 's', '0x10s', '1e3s', '1e99s', '1.s', '.5s',
                      '3 s', 'inf', '1001h', '9' * 400):
            self.fails(2, f'--budget: "{value}", expected a time', 'tune', *problem, '--budget',
                       value)
        self.fails(2, '--m needs', 'bench', *problem, '--m')
        self.fails(2, '--json takes no value', 'bench', *problem, '--json=yes')
        self.fails(2, '--repeat: 5000, at most', 'bench', *problem, '--repeat', '5000')

    def test_more_threads_than_cpus(self):
        """More threads than CPUs take turns, and every figure measured on them is wrong."""
        cpus = len(os.sched_getaffinity(0))
        for value in (cpus + 1, 4097, 1000000, 2**31 - 1):
            for command, *arguments in (['tune', 'cpu', cli.SMALL], ['bench', 'cpu', cli.SMALL],
                                        ['verify', 'cpu', cli.SMALL], ['demo'], ['demo', '--warm']):
                self.fails(2, f'--threads: {value}, expected at most the {cpus} CPU', command,
                           *arguments, '--threads', str(value))
        self.fails(2, 'a positive integer below 2^31', 'devices', '--threads', str(2**31))

    def test_more_threads_by_the_environment(self):
        cpus = len(os.sched_getaffinity(0))
        self.env['TW_THREADS'] = str(cpus + 1)
        for command, *arguments in (['tune', 'cpu', cli.SMALL], ['bench', 'cpu', cli.SMALL]):
            self.fails(2, f'TW_THREADS: {cpus + 1}, expected at most the {cpus} CPU', command,
                       *arguments)
        self.run_cli('plan', 'cpu', 'M=1,' + cli.SMALL)
        self.run_cli('verify', 'cpu', 'M=1,' + cli.SMALL, '--threads', '1')

    def test_help_of_a_command(self):
        text = self.run_cli('plan', '--help').stdout
        self.assertEqual(self.run_cli('help', 'plan').stdout, text)
        self.assertIn('threads to plan for', text)

    def test_threads_of_another_machine(self):
        """Nothing runs, so plans and code may be for any number."""
        many = 4096
        self.assertEqual(self.records('devices', '--threads', str(many))[0]['threads'], many)
        for command, *arguments in (['devices'], ['plan', 'cpu', 'M=1,' + cli.SMALL],
                                    ['dump', 'cpu', 'M=1,' + cli.SMALL, '--trace']):
            self.run_cli(command, *arguments, '--threads', str(many))
            self.fails(2, '--threads: 4097, expected at most 4096', command, *arguments,
                       '--threads', '4097')

    def test_the_cpus_are_those_of_the_process(self):
        one = min(os.sched_getaffinity(0))
        done = self.run_cli('bench', 'cpu', 'M=1,' + cli.SMALL, '--threads', '2', code=2,
                            preexec_fn=lambda: os.sched_setaffinity(0, {one}))
        self.assertIn('--threads: 2, expected at most the 1 CPU of this process', done.stderr)

    def test_double_dash_ends_options(self):
        self.fails(1, '--json: ', 'shapes', '--', '--json')

    def test_environment(self):
        for name, value, most in (('TW_THREADS', 'abc', 4096), ('TW_THREADS', '-3', 4096),
                                  ('TW_THREADS', '5000', 4096), ('TW_DEBUG', 'all', 5)):
            self.env[name] = value
            why = f'variable {name}: {value}, must be a whole number from 0 to {most}'
            for command in ('devices', 'plan', 'doctor'):
                self.fails(2, why, command, *ARGUMENTS[command])
            self.run_cli(command, '--help')
            del self.env[name]

    def test_devices(self):
        for dev in ('gpu', 'cuda:0', 'cpu:', 'cpu:avx1024', 'CPU', ''):
            self.fails(2, 'DEV: ', 'plan', dev, 'M=1,' + cli.SMALL)

    def test_problems_point_at_the_field(self):
        for text, field in (('M=1,N=0,K=8,w=u4', 'N: "0"'), ('M=1,N=8,K=8,w=u9', 'w: "u9"'),
                            ('M=1,N=8,K=8,w=u4,q=3', '"q": unknown field'),
                            ('M=1,N=8,w=u4', 'K: missing'), ('N=8,K=8,w=u4', 'M: missing'),
                            ('M=1,N=8,K=8,w=u4,a=i8g32,g=64', 'a: group 32')):
            self.fails(2, field, 'plan', 'cpu', text)
        self.fails(2, '--scheme: N: "3", not a field', 'bench', 'cpu', cli.SMALL, '--scheme', 'N=3')
        self.fails(2, 'list: "kernel", expected kernels|', 'list', 'kernel')
        self.fails(2, 'cache: "empty", expected stats|', 'cache', 'empty')

    def test_kernels_and_configs(self):
        problem = 'M=4,' + cli.SMALL
        self.fails(2, '--kernel: "cpu.magic", expected one of ', 'bench', 'cpu', problem,
                   '--kernel', 'cpu.magic')
        self.fails(2, 'needs --kernel', 'bench', 'cpu', problem, '--config', 'mm4')
        self.fails(2, '--config: ', 'bench', 'cpu', problem, '--kernel', 'cpu.int_gemm', '--config',
                   'zz4')
        # A tunable that the target, the kernel or its own range has no place for.
        for device, a, kernel, config, why in (
                ('avx2', 'i8', 'int', 'gf1', "bit_matrix needs the target's GFNI"),
                ('avx512gfni', 'i8', 'int', 'gf2', 'bit_matrix must be 0 or 1'),
                ('avx512gfni', 'none', 'dq', 'gf1', 'bit_matrix unpacks codes for integer'),
                ('avx2', 'none', 'dq', 'ua32', 'ahead unpacks codes for integer'),
                ('avx2', 'i8', 'int', 'ua48', 'ahead must be a multiple of the group'),
                ('avx2', 'i8', 'int', 'ua96', 'ahead exceeds the columns of K'),
                ('avx2', 'i8', 'int', 'bm4 ua32', 'ahead needs several tiles in block_m'),
                ('avx2', 'i8', 'int', 'bm1184 ua32', 'block_m times micro_n totals, its codes, s'),
                ('avx2', 'i8', 'int', 'mn64 ua32', "the tile's accumulators must fit"),
                ('avx2', 'i8', 'int', 'gp2 ua32', 'group_pairs must be 0 or 1'),
                ('avx2', 'i8', 'int', 'gp1', 'group_pairs is of codes that are unpacked ahead'),
                ('avx2', 'i8', 'int', 'gp1 ua32', 'group_pairs is of sums of vpdpbusd'),
                ('avx512vnni', 'i8', 'int', 'gp1 ua32', 'group_pairs is of sums of vpdpbusd'),
                ('avx2', 'none', 'dq', 'gp1', 'group_pairs scales sums of integer')):
            config = config if 'bm' in config else 'bm8 ' + config
            config = config if 'mn' in config else 'mn16 ' + config
            self.fails(1, why, 'dump', f'cpu:{device}', f'M=8,N=64,K=64,w=u4,g=32,s=f16,a={a}',
                       '--kernel', f'cpu.{kernel}_gemm', '--config', f'mm4 bn64 {config}',
                       '--asm')
        self.fails(1, 'micro_n must be a multiple', 'dump', 'cpu:avx2', 'M=8,' + cli.SMALL,
                   '--kernel', 'cpu.int_gemm', '--config', 'mm4 bm8 bn64 ua32', '--asm')
        for m, scheme, config, why in (
                (1, 'w=u4,g=32,s=f16', 'mm1 mn64 bm1 pf8 io2', 'in_order must be 0 or 1'),
                (1, 'w=u4,g=32,s=f16', 'mm1 mn64 bm1 io1', 'in_order is of weights that are prefe'),
                (1, 'w=u4,g=32,s=f16', 'mm1 mn64 bm1 st2 pf8 io1', 'in_order is of one stream'),
                (1, 'w=u4,g=32,s=f16', 'mm1 mn32 bm1 pf8 io1', 'in_order is of whole panels'),
                (1, 'w=bf16', 'mm1 mn64 bm1 pf8 io1', 'in_order is of codes and scales'),
                (9, 'w=u4,g=32,s=f16', 'mm1 mn64 bm1 pf8 io1', 'in_order is for at most 8 rows'),
                (8, 'w=u4,g=32,s=f16,a=i8', 'mm1 mn64 bm8 ua32 pf8 io1', 'ahead reads codes bef')):
            kernel = 'cpu.int_gemm' if 'a=i8' in scheme else 'cpu.dq_gemm'
            self.fails(1, why, 'dump', 'cpu:avx512', f'M={m},N=1024,K=64,{scheme}', '--kernel',
                       kernel, '--config', f'bn512 {config}', '--asm')
        for scheme, config, why in (
                ('w=i4,g=32,s=f16,a=i8', 'mm8 mn16 bm8 ua64', 'micro_m must be 16 or 32'),
                ('w=i4,g=32,s=f16,a=i8', 'mm16 mn64 bm16 ua64', 'micro_n must be 16 or 32'),
                ('w=i4,g=32,s=f16,a=i8', 'mm16 mn16 bm16 ua48', 'ahead must be a multiple'),
                ('w=i4,g=32,s=f16,a=i8', 'mm16 mn16 bm16', 'ahead must be a multiple'),
                ('w=i4,g=32,s=f16,a=i8', 'mm16 mn16 bm16 ua544', 'ahead exceeds the columns'),
                ('w=i8,s=f32,a=i8', 'mm16 mn16 bm16 ua32', 'ahead must be a multiple'),
                ('w=i4,g=32,s=f16i8,a=i8g256', 'mm16 mn16 bm16 ua512', 'ahead must be the 256'),
                ('w=i4,g=32,s=f16,a=i8', 'mm32 mn32 bm288 ua64', 'at most 8192 totals'),
                ('w=i4,g=32,s=f16,a=i8', 'mm16 mn16 bm16 ua64 st2', 'reads one stream'),
                ('w=i8,s=f32,a=i8', 'mm16 mn16 bm16 ua64 gf1', 'those of 8 bits are not packed'),
                ('w=i4,g=96,s=f16,a=i8', 'mm16 mn16 bm16 ua96', 'amx_gemm takes groups of 32'),
                ('w=i4,g=32,s=f16', 'mm16 mn16 bm16 ua64', 'amx_gemm takes quantized')):
            self.fails(1, why, 'dump', 'cpu:avx512amx', f'M=512,N=64,K=512,{scheme}', '--kernel',
                       'cpu.amx_gemm', '--config', config + ' bn64', '--asm')
        self.fails(1, "amx_gemm needs the target's AMX", 'dump', 'cpu:avx512gfni',
                   'M=512,N=64,K=512,w=i8,s=f32,a=i8', '--kernel', 'cpu.amx_gemm', '--config',
                   'mm16 mn16 bm16 bn64 ua64', '--asm')
        self.fails(1, 'at most 32768 bytes', 'dump', 'cpu:avx512amx',
                   'M=512,N=64,K=4096,w=i8,s=f32,a=i8', '--kernel', 'cpu.amx_gemm', '--config',
                   'mm16 mn32 bm16 bn64 ua2048', '--asm')
        for shape, config, why in (
                ('N=256', 'mm1 mn64 bm1 bn512 st3', 'streams must be 2 or 4'),
                ('N=256', 'mm1 mn32 bm1 bn512 st2', 'micro_n must be 64'),
                ('N=192', 'mm1 mn64 bm1 bn512 st2', 'streams must divide the panels of N'),
                ('N=256', 'mm1 mn64 bm1 bn256 st2', 'block_n must be at least 512'),
                ('N=256', 'mm1 mn64 bm1 bn1024 st2', 'block_n exceeds the columns'),
                ('N=256', 'mm4 mn64 bm4 bn512 st2', 'more than three quarters of the registers'),
                ('N=256', 'mm1 mn64 bm1 bn1024', 'block_n above 512 is for streams')):
            self.fails(1, why, 'dump', 'cpu:avx512vnni', f'M=4,{shape},K=64,w=u4,g=32,s=f16,a=i8',
                       '--kernel', 'cpu.int_gemm', '--config', config, '--asm')
        self.fails(2, 'expected one of --source', 'dump', 'cpu', problem)
        self.fails(2, 'expected one of --source', 'dump', 'cpu', problem, '--ir', '--asm')


class EmptyNames(cli.Cli):
    def test_arguments(self):
        for command, word in (('shapes', 'MODEL'), ('tune', 'DEV'), ('plan', 'DEV'),
                              ('list', 'kernels|'), ('cache', 'stats|'),
                              ('demo', 'MODEL|PROBLEM|@FILE:'), ('verify', 'DEV:'),
                              ('dequantize', 'MODEL')):
            self.fails(2, f'{command}: {word}', command, '')
            self.assertIn('must not be empty', self.run_cli(command, '', code=2).stderr)
        self.fails(2, 'OUT.safetensors: "", must not be empty', 'dequantize', 'model.gguf', '')
        self.fails(2, 'PROBLEM: "", must not be empty', 'plan', 'cpu', '')

    def test_files_of_problems(self):
        for command in (['tune', 'cpu'], ['bench', 'cpu'], ['verify', 'cpu'], ['demo']):
            self.fails(2, '"@", expected the name of a file after the @', *command, '@')

    def test_options(self):
        for command, option in ((['dump', 'cpu', 'M=1,' + cli.SMALL, '--trace'], '--out'),
                                (['verify'], '--fixtures')):
            self.fails(2, f'{option}: "", expected a name', *command, option, '')
            self.fails(2, f'{option}: "", expected a name', *command, option + '=')


class Files(cli.Cli):
    def test_models_that_are_none(self):
        self.fails(1, 'missing.gguf', 'shapes', self.path('missing.gguf'))
        self.fails(1, 'missing.txt', 'verify', 'cpu', '@' + self.path('missing.txt'))
        for command in (['shapes'], ['verify', 'cpu']):
            self.fails(1, 'junk.gguf', *command, self.write('junk.gguf', 'GGUF\0\0\0\0 no more'))
        text = self.write('problems.txt', '# two\nN=8,K=8,w=u4\nN=8,K=oops,w=u4\n')
        self.fails(1, 'problems.txt:3: K: "oops"', 'verify', 'cpu', '@' + text)

    def test_models_without_tensors(self):
        config = self.write('config.json', json.dumps({
            'model_type': 'llama', 'hidden_size': 64, 'intermediate_size': 64, 'vocab_size': 64,
            'num_hidden_layers': 1, 'num_attention_heads': 4}))
        empty = gguf.write(self.path('empty.gguf'), [])
        for model in (config, empty, self.write('p.txt', 'N=8,K=8,w=u4')):
            self.fails(1, f'{model}: holds no tensors', 'dequantize', model, self.path('out'))
        one = gguf.write(self.path('one.gguf'), [(b'a', gguf.F32, [2], None)])
        self.fails(1, 'no tensor of 1 has a name that --tensor "^b" matches', 'dequantize',
                   one, self.path('out'), '--tensor', '^b')

    def test_a_layer_that_is_too_large(self):
        config = {'model_type': 'bert', 'architectures': ['BertModel'], 'num_attention_heads': 16,
                  'hidden_size': 1 << 30, 'intermediate_size': 1536, 'num_hidden_layers': 6,
                  'vocab_size': 30522, 'max_position_embeddings': 512, 'type_vocab_size': 2}
        path = self.write('config.json', json.dumps(config))
        for command in ('tune', 'bench', 'verify'):
            self.fails(1, path + ': encoder.layer.0.attention.self.query.weight: N: 1073741824, ',
                       command, 'cpu', path)

    def test_output_that_cannot_be_written(self):
        with open('/dev/full', 'w', encoding='utf-8') as full:
            done = self.run_cli('list', 'dtypes', code=1, stdout=full)
        self.assertIn('standard output: No space left', done.stderr)


if __name__ == '__main__':
    unittest.main()
