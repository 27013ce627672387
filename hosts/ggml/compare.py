"""Runs stock llama.cpp with our backend and without it, in turns, and prints medians beside what
is required, and how many tokens a second the memory's rate allows, which no kernel can exceed.
Both are the same binaries; GGML_BACKEND_PATH is the difference.

usage: compare.py [--rounds 3] [--threads 2] [--only NAME,...] [--quick] [--no-text]

Writes build-llama/llama.csv: a row for each model, test and side, with all samples.
"""

import argparse
import csv
import json
import os
import re
import statistics
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
BUILT = os.path.join(ROOT, 'build-llama')
MODELS = os.path.join(ROOT, 'models', 'llama')
BACKEND = os.path.join(BUILT, 'libggml-tilewright.so')

# Model, least ratio of pp512 and of tg64; most difference of perplexity (None: not asked).
REQUIRED = {
    'smollm2.Q4_1': (4.0, 1.3, 0.01),
    'smollm2.Q4_K_M': (2.0, 1.3, 0.01),
    'smollm2.Q6_K': (2.0, 1.3, 0.01),
    'llama1b.Q4_K': (2.0, 1.3, None),
    'llama1b.Q6_K': (2.0, 1.3, None),
    'smollm2.Q8_0': (1.8, 1.3, 0.003),
    'smollm2.Q4_0': (1.4, 1.3, 0.01),
    'smollm2.F16': (1.2, 1.1, 0.003),
}
LOAD = 1.3  # times stock's, kernels in the cache


def run(program, arguments, ours):
    environment = dict(os.environ)
    environment.pop('GGML_BACKEND_PATH', None)
    if ours:
        environment['GGML_BACKEND_PATH'] = BACKEND
    result = subprocess.run([os.path.join(BUILT, 'bin', program), *arguments], env=environment,
                            capture_output=True, text=True)
    if result.returncode:
        sys.exit(f'compare.py: {program} {" ".join(arguments)} failed'
                 f'{" with our backend" if ours else ""}:\n{result.stderr[-2000:]}')
    return result.stdout, result.stderr


def path_of(model):
    return os.path.join(MODELS, model + '.gguf')


def speeds(model, threads, ours):
    """Tokens per second of pp512 and tg64."""
    out, _ = run('llama-bench', ['-m', path_of(model), '-t', str(threads), '-p', '512', '-n', '64',
                                 '-r', '2', '-o', 'jsonl'], ours)
    rows = [json.loads(line) for line in out.splitlines() if line.startswith('{')]
    name = 'Tilewright' if ours else 'CPU'
    if any((name in row['backends']) != True for row in rows):
        sys.exit(f'compare.py: {model} ran on {rows[0]["backends"]}, expected {name}')
    return {f'{"pp" if row["n_prompt"] else "tg"}': row['samples_ts'] for row in rows}


def memory_rate(threads):
    """Bytes per second that so many threads read from memory now: of several loops the best."""
    result = subprocess.run([os.path.join(ROOT, 'build', 'tilewright'), 'bench', 'cpu',
                             'M=1,N=8192,K=8192,w=i8,a=i8', '--weights', 'cold', '--repeat', '1',
                             '--threads', str(threads), '--json'],
                            capture_output=True, text=True, check=True)
    return json.loads(result.stdout)['limit_gbps'] * 1e9


def load_ms(model, threads, ours):
    """Milliseconds from the start to a model that computes, which is llama.cpp's load time and has
    a first token in it, and to the end of the next one, which our layers must be there for: the
    least of each, files in the page cache."""
    found = []
    for _ in range(5):
        out, err = run('llama-bench', ['-m', path_of(model), '-t', str(threads), '-p', '0', '-n',
                                       '1', '-r', '1', '-v', '-o', 'jsonl'], ours)
        row = json.loads(next(line for line in out.splitlines() if line.startswith('{')))
        load = float(re.search(r'load time = +([0-9.]+) ms', err).group(1))
        found.append((load, load + row['avg_ns'] / 1e6))
    return [min(times) for times in zip(*found)]


def perplexity(model, threads, ours, context=512, chunks=32):
    """Of the beginning of the text that fetch.sh got."""
    out, err = run('llama-perplexity', ['-m', path_of(model), '-f', os.path.join(BUILT, 'text.txt'),
                                        '-t', str(threads), '-c', str(context), '-b', '512',
                                        '--chunks', str(chunks),
                                        '--device', 'Tilewright' if ours else 'none'], ours)
    return float(re.search(r'Final estimate: PPL = ([0-9.]+)', out + err).group(1))


def spread(samples):
    return (max(samples) - min(samples)) / statistics.median(samples) / 2 * 100


def verdict(value, required, at_least=True):
    return 'ok' if (value >= required if at_least else value <= required) else 'BELOW'


def compare_speed(model, options, writer):
    required = REQUIRED[model]
    samples, rates = {}, []
    for _ in range(options.rounds):
        for ours in (False, True):
            for test, values in speeds(model, options.threads, ours).items():
                samples.setdefault((test, ours), []).extend(values)
            rates.append(memory_rate(options.threads))
    missed = 0
    # A token reads all of the weights: so many a second are what the memory has.
    most = statistics.median(rates) / os.path.getsize(path_of(model))
    for test, least in (('pp', required[0]), ('tg', required[1])):
        stock, ours = samples[test, False], samples[test, True]
        ratio = statistics.median(ours) / statistics.median(stock)
        missed += ratio < least
        print(f'{model:16} {test + ("512" if test == "pp" else "64"):6}'
              f' {statistics.median(stock):8.1f} ±{spread(stock):3.0f} %'
              f' {statistics.median(ours):8.1f} ±{spread(ours):3.0f} %'
              f' {ratio:6.2f}x  {least:4.1f}x  {verdict(ratio, least):5}'
              + (f' {most:8.1f} ±{spread(rates):3.0f} %' if test == 'tg' else ''), flush=True)
        for side, values in (('stock', stock), ('tilewright', ours)):
            writer.writerow([model, test, side, options.threads, statistics.median(values),
                             ' '.join(f'{v:.2f}' for v in values), least])
    writer.writerow([model, 'tg', 'memory', options.threads, most,
                     ' '.join(f'{rate / 1e9:.1f} GB/s' for rate in rates), ''])
    return missed


def compare_rest(model, options, writer):
    """Loading, and what the model says."""
    (stock_ms, stock_next), (ms, next_ms) = (load_ms(model, options.threads, ours)
                                             for ours in (False, True))
    missed = ms > LOAD * stock_ms
    print(f'{model:16} load       {stock_ms:9.0f} {ms:9.0f} ms  {ms / stock_ms:6.2f}x'
          f'  at most {LOAD}x  {verdict(ms / stock_ms, LOAD, False)}', flush=True)
    print(f'{model:16} next token {stock_next:9.0f} {next_ms:9.0f} ms'
          f'  {next_ms / stock_next:6.2f}x', flush=True)
    rows = [('load ms', 'stock', stock_ms, LOAD), ('load ms', 'tilewright', ms, LOAD),
            ('next token ms', 'stock', stock_next, ''),
            ('next token ms', 'tilewright', next_ms, '')]
    most = REQUIRED[model][2]
    if most is not None:
        stock, ours = (perplexity(model, options.threads, ours) for ours in (False, True))
        difference = abs(ours / stock - 1)
        missed += difference > most
        print(f'{model:16} perplexity {stock:9.4f} {ours:9.4f}  {difference * 100:6.3f} %'
              f'  at most {most * 100:.1f} %  {verdict(difference, most, False)}', flush=True)
        rows += [('perplexity', 'stock', stock, most), ('perplexity', 'tilewright', ours, most)]
    for test, side, value, required in rows:
        writer.writerow([model, test, side, options.threads, value, '', required])
    return missed


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n\n')[0])
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--threads', type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument('--only', default=','.join(REQUIRED))
    parser.add_argument('--quick', action='store_true', help='one round of one model')
    parser.add_argument('--no-text', action='store_true', help='speed only, no perplexity')
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.only = 1, 'smollm2.Q4_1'
    missed = 0
    path = os.path.join(BUILT, 'llama.csv')
    with open(path, 'w', newline='') as file:
        writer = csv.writer(file)
        writer.writerow(['model', 'test', 'side', 'threads', 'median', 'samples', 'required'])
        print(f'{"model":16} {"test":6} {"stock t/s":>15} {"tilewright t/s":>15}'
              f' {"ratio":>7}  required     {"memory t/s":>15}')
        for model in options.only.split(','):
            missed += compare_speed(model, options, writer)
        for model in options.only.split(',') if not options.no_text else ():
            missed += compare_rest(model, options, writer)
    print(f'{missed} below what is required; all samples are in {os.path.relpath(path, ROOT)}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
