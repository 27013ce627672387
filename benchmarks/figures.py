#!/usr/bin/env python3
"""Measures the project's figures with the CLI and prints each beside what it must at least be.

Shares are of limits that the same run of `tilewright bench` measures, on the target in force.
Every problem is tuned first, in a cache of its own that is thrown away.

usage: figures.py [--only WORD] [--budget SECONDS] [--full] [--list]

  --only WORD       the figures whose name holds WORD
  --budget SECONDS  of tuning for each problem (6)
  --full            also the tuner against the exhaustive best, which takes ten minutes more
  --list            names and requirements alone
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
CLI = os.path.join(ROOT, 'build', 'tilewright')
MODEL = os.path.join(ROOT, 'models', 'SmolLM2-135M-Instruct.Q4_1.gguf')
SQUARE = 'N=4096,K=4096,'
# Memory is what a neighbour disturbs most: more rounds.
COLD = ('--weights', 'cold', '--repeat', '15')
SMALL = ('N=576,K=576,', 'N=1536,K=576,', 'N=576,K=1536,')


class Missing(Exception):
    """This machine cannot measure the figure; says why."""


class Bench:
    """Runs the CLI with a temporary cache; tunes what it is about to measure."""

    def __init__(self, folder, budget):
        self.env = {**os.environ, 'TW_CACHE': os.path.join(folder, 'cache.db')}
        self.budget = budget
        self.tuned = set()

    def records(self, *args):
        done = subprocess.run([CLI, *map(str, args), '--json'], env=self.env, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
        if done.returncode not in (0, 1) or not done.stdout:
            raise Missing(done.stderr.strip().split('\n')[0])
        if 'of the limit' in done.stderr:
            print('  ' + done.stderr.strip().split('\n')[0], file=sys.stderr)
        return [json.loads(line) for line in done.stdout.splitlines()]

    def measure(self, problem, dev='cpu', threads=1, *extra):
        """One bench record of the tuned choice."""
        if (problem, dev, threads) not in self.tuned:
            self.records('tune', dev, problem, '--threads', threads, '--budget', f'{self.budget}s')
            self.tuned.add((problem, dev, threads))
        rounds = () if '--repeat' in extra else ('--repeat', 5)
        return self.records('bench', dev, problem, '--threads', threads, *rounds, *extra)[0]


def shares(problems, dev='cpu', *extra):
    """The least share of the limit over the problems, with each of them."""
    def run(bench):
        found = [100 * bench.measure(p, dev, 1, *extra)['fraction_of_limit'] for p in problems]
        return min(found), ' '.join(f'{x:.0f}' for x in found)
    return run


def forced(target, problem):
    """A lower target's kernels against that target's own limit."""
    def run(bench):
        runs = {r['target']: r['runs_here'] for r in bench.records('list', 'targets')}
        if not runs[target]:
            raise Missing(f'this CPU has no {target}')
        return shares([problem], 'cpu:' + target)(bench)
    return run


def scaling(problem, rate, limit, *extra):
    """Two threads over one, over how the limit itself scales."""
    def run(bench):
        if len(os.sched_getaffinity(0)) < 2:
            raise Missing('one CPU only')
        one, two = (bench.measure(problem, 'cpu', n, *extra) for n in (1, 2))
        # A share above 1 is a limit that was disturbed.
        first, second = (min(1, r['fraction_of_limit']) for r in (one, two))
        value = 100 * second / first
        return value, f'{two[rate] / one[rate]:.2f}x of {two[limit] / one[limit]:.2f}x'
    return run


def need_model():
    if not os.path.exists(MODEL):
        raise Missing('no model: tools/fetch_models.sh')


def guesses(bench):
    """The untuned guess against the tuned choice, median over the model's problems."""
    need_model()
    found = bench.records('tune', 'cpu', MODEL, '--budget', '60s')
    values = [100 * r['median_ns'] / r['guess_ns'] for r in found if r['guess_ns']]
    return statistics.median(values), f'{len(values)} problems, least {min(values):.0f}'


def tune_model(bench):
    """Wall time to decide all of the model's problems at M = 1, 16, 512."""
    need_model()
    with tempfile.TemporaryDirectory() as folder:
        fresh = Bench(folder, 0)
        start = time.monotonic()
        found = fresh.records('tune', 'cpu', MODEL, '--budget', '55s')
        seconds = time.monotonic() - start
        if not all(r['decided'] for r in found):
            raise Missing('not every problem was decided')
        return seconds, f'{len(found)} problems'


def exhaustive(bench):
    """The tuned choice against the best of the whole space, median over 20 sampled problems."""
    schemes = ('w=i4,g=128,s=f16,a=i8', 'w=u4,g=32,s=f16,z=value,a=i8g32', 'w=i8,a=i8',
               'w=u4,g=128,s=f16,z=code', 'w=f32')
    problems = [f'M={m},N={n},K={k},{s}' for i, s in enumerate(schemes)
                for m, n, k in ((1, 576, 1536), (16, 1536, 576), (64, 1024, 1024 + 64 * i),
                                (256, 576, 576))]
    values = []
    with tempfile.TemporaryDirectory() as folder:
        best = Bench(folder, 0)
        for problem in problems:
            mine = bench.measure(problem)
            whole, = best.records('tune', 'cpu', problem, '--threads', 1, '--exhaustive',
                                  '--budget', '30s')
            rival = bench.records('bench', 'cpu', problem, '--threads', 1, '--repeat', 5,
                                  '--kernel', whole['kernel'], '--config', whole['config'])[0]
            values.append(100 * min(1, rival['median_ns'] / mine['median_ns']))
    return statistics.median(values), f'least {min(values):.0f}'


def first_call(field):
    """Of 11 runs of the program, the median, in ms."""
    def run(_):
        program = os.path.join(ROOT, 'build', 'benchmarks', 'first_call')
        values = []
        for _ in range(11):
            start = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
            done = subprocess.run([program, str(start)], stdout=subprocess.PIPE, check=True)
            values.append(json.loads(done.stdout)[field] / 1e6)
        return statistics.median(values), f'least {min(values):.1f}'
    return run


def warm(bench):
    """All of the model's linears ready from the cache, median of 11 processes."""
    need_model()
    bench.records('tune', 'cpu', MODEL, '--budget', '60s')
    found = [bench.records('demo', MODEL, '--warm')[0] for _ in range(11)]
    return (statistics.median(r['ready_ns'] for r in found) / 1e6,
            f'{found[0]["kernels"]} plans, {found[0]["compiles"]} compiled')


def overhead(_):
    """forward() over the generated functions themselves."""
    program = os.path.join(ROOT, 'build', 'tests', 'capi', 'overhead')
    env = {**os.environ, 'TW_MODULE': os.path.join(ROOT, 'build', 'libtilewright-llvm.so')}
    done = subprocess.run([program], env=env, stdout=subprocess.PIPE, check=True, text=True)
    values = [float(x) for x in re.findall(r'overhead +(-?[\d.]+) ns', done.stdout)]
    return max(values), f'{len(values)} schemes'


def run_quantize(recipe, threads):
    program = os.path.join(ROOT, 'build', 'benchmarks', 'quantize')
    done = subprocess.run([program, recipe, str(threads)], stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def quantizing(recipe):
    """Bytes read and written over what as many threads read: bench's limit, just before."""
    def run(bench):
        threads = len(os.sched_getaffinity(0))
        limit = bench.measure(f'M=1,{SQUARE}w=u4,s=f16,z=code,a=i8,g=128', 'cpu', threads, *COLD)
        found = run_quantize(recipe, threads)
        rate = found['bytes'] / found['median_ns']
        return (100 * rate / limit['limit_gbps'],
                f'{rate:.1f} of {limit["limit_gbps"]:.1f} GB/s, {threads} threads, '
                f'{found["median_ns"] / 1e6:.1f} ms')
    return run


def hqq(_):
    """Seconds of all threads."""
    found = run_quantize('hqq,w=u4,g=128', len(os.sched_getaffinity(0)))
    return found['median_ns'] / 1e9, f'least {found["least_ns"] / 1e9:.1f}'


def both(scheme):
    return [f'M={m},{SQUARE}{scheme}' for m in (64, 512)]


def figures():
    """name, least (or most, where the unit is a time), unit, how"""
    i4, code = 'w=i4,s=f16,z=none,a=i8,', 'w=u4,s=f16,z=code,a=i8,'
    value = 'w=u4,g=32,s=f16,z=value,a=i8g32'
    plain = f'M=512,{SQUARE}w=u4,g=128,s=f16,z=code,a=none'
    model = [f'M=512,{shape}{scheme}' for shape in SMALL
             for scheme in (i4 + 'g=128', i4 + 'g=32', code + 'g=128', code + 'g=32', value)]
    cold = [f'M=1,{SQUARE}{code}g={g}' for g in (128, 32)]
    large = f'M=512,{SQUARE}{code}g=128'
    return [
        ('i4 g=128, M=64 and 512', 80, '%', shares(both(i4 + 'g=128'))),
        ('i4 g=32, M=64 and 512', 70, '%', shares(both(i4 + 'g=32'))),
        ('u4 code g=128, M=64 and 512', 75, '%', shares(both(code + 'g=128'))),
        ('u4 code g=32, M=64 and 512', 62, '%', shares(both(code + 'g=32'))),
        ('u4 value g=32 a=i8g32 (Q4_1), M=64 and 512', 55, '%', shares(both(value))),
        ('i8 channel, M=512', 80, '%', shares([f'M=512,{SQUARE}w=i8,g=channel,s=f32,a=i8'])),
        ('the first five at SmolLM2\'s shapes, M=512', 50, '%', shares(model)),
        ('u4 code, M=1 from memory, of bandwidth', 90, '%', shares(cold, 'cpu', *COLD)),
        ('u4 weights, x=f32, M=512', 75, '%', shares([plain])),
        ('u4 weights, x=bf16, M=512', 75, '%', shares([plain + ',x=bf16'])),
        ('avx2 forced, u4 code g=128, M=512', 60, '%', forced('avx2', large)),
        ('avxvnni forced, u4 code g=128, M=512', 70, '%', forced('avxvnni', large)),
        ('two threads, M=512, of the limits\' scaling', 90, '%',
         scaling(large, 'gops', 'limit_gops')),
        ('two threads, M=1 cold, of the limits\' scaling', 90, '%',
         scaling(cold[0], 'weight_gbps', 'limit_gbps', *COLD)),
        ('guess of tuned, SmolLM2, median', 80, '%', guesses),
        ('tuned of exhaustive, 20 problems, median', 95, '%', exhaustive),
        ('first call of a new kernel, compiler open', 5, 'ms', first_call('compiler_open_ns')),
        ('first call of a new kernel, from process start', 15, 'ms', first_call('from_start_ns')),
        ('SmolLM2 ready in a warm process', 5, 'ms', warm),
        ('forward over the bare kernel, N=K=64, M=1', 300, 'ns', overhead),
        ('tune all of SmolLM2, M = 1, 16, 512', 60, 's', tune_model),
        ('quantize 4096 x 4096 f32 to u4 g=128, of bandwidth', 50, '%',
         quantizing('uintx_weight_only,w=u4,g=128')),
        ('HQQ of the same', 20, 's', hqq),
    ]


def main():
    parser = argparse.ArgumentParser(usage=__doc__.split('usage: ')[1], add_help=True)
    parser.add_argument('--only', default='')
    parser.add_argument('--budget', type=float, default=6)
    parser.add_argument('--full', action='store_true')
    parser.add_argument('--list', action='store_true')
    args = parser.parse_args()
    missed = 0
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(folder, args.budget)
        device = bench.records('devices')[0]
        print(f'{device["name"]}, target {device["target"]}, {device["threads"]} CPUs\n')
        print('| what | measured | required | |\n|---|---|---|---|')
        for name, bound, unit, run in figures():
            if args.only not in name or (run is exhaustive and not args.full):
                continue
            required = f'{"at least" if unit == "%" else "at most"} {bound} {unit}'
            if args.list:
                print(f'| {name} | | {required} | |')
                continue
            try:
                value, note = run(bench)
            except Missing as why:
                print(f'| {name} | - | {required} | {why} |', flush=True)
                continue
            good = value >= bound if unit == '%' else value <= bound
            missed += not good
            note = note if good else 'MISSED: ' + note
            print(f'| {name} | {value:.3g} {unit} | {required} | {note} |', flush=True)
    return 1 if missed else 0


if __name__ == '__main__':
    sys.exit(main())
