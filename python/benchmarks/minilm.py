#!/usr/bin/env python3
"""all-MiniLM-L6-v2 by torch, torchao and Tilewright, in one process, interleaved.

usage: minilm.py [--quick] [--rounds N] [--threads N] [--only RE] [--size RE] [--csv FILE]
                 [--no-tuning] [--cpu-time]

Prints the median time of each way, its spread, its speed beside the best of torch and torchao, and
the requirement; then the cosine similarity of its embeddings to float32's.
"""

import argparse
import copy
import csv
import os
import re
import statistics
import sys
import time
import warnings

import torch

import encoder
import sentences
import tilewright

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SIZES = {'1 x 16': (1, 16), '32 x 128': (32, 128)}
GROUP, HOPELESS = 32, 20
# Ours -> what its speed must be, as a multiple of the best of all others at the same size.
REQUIRED = {'int8 dynamic': 1.2, 'int4 g=32': 1.0, 'int4 g=32 a=i8z': 1.0}
# Ours -> torchao's of the same scheme, whose cosine similarity it must not fall short of.  torchao
# has x with a zero point beside 4-bit weights, which is a=i8z; our quicker way has none.
SAME_SCHEME = {'int8 dynamic': 'torchao int8 dynamic',
               'int4 g=32 a=i8z': 'torchao int4 g=32 dynamic'}


# ---- the ways: each takes the float model, which is a copy, and returns what to call ----

def bf16(model):
    return model.bfloat16()


def torchao_way(make_config):
    """torchao's quantize_ by a configuration."""
    def way(model):
        from torchao.quantization import quantize_
        quantize_(model, make_config())
        return model
    return way


def int8_dynamic():
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig
    return Int8DynamicActivationInt8WeightConfig()


def int8_weight_only():
    from torchao.quantization import Int8WeightOnlyConfig
    return Int8WeightOnlyConfig()


def int4_dynamic():
    from torchao.quantization import Int8DynamicActivationIntxWeightConfig, PerGroup
    return Int8DynamicActivationIntxWeightConfig(weight_dtype=torch.int4,
                                                 weight_granularity=PerGroup(GROUP))


def int4_opaque():
    from torchao.prototype.quantization.int4.inference_workflow import \
        PrototypeInt4WeightOnlyConfig
    return PrototypeInt4WeightOnlyConfig(group_size=GROUP)


def int4_da8w4():
    from torchao.prototype.quantization.int4.inference_workflow import \
        Int8DynamicActivationInt4WeightConfig
    return Int8DynamicActivationInt4WeightConfig(group_size=GROUP)


def quantize_dynamic(engine):
    """torch.ao's dynamic quantization by one of its engines."""
    def way(model):
        from torch.ao.quantization import quantize_dynamic as convert
        torch.backends.quantized.engine = engine
        return convert(model, {torch.nn.Linear}, dtype=torch.qint8)
    return way


def ours(config):
    def way(model):
        report = tilewright.quantize_(model, config)
        assert not report.kept, report
        return model
    return way


# name -> (way, whether to compile as well)
WAYS = {
    'torch f32': (lambda model: model, True),
    'torch bf16': (bf16, True),
    'torchao int8 dynamic': (torchao_way(int8_dynamic), True),
    'torchao int8 weight-only': (torchao_way(int8_weight_only), True),
    'torchao int4 g=32 dynamic': (torchao_way(int4_dynamic), True),
    'torchao int4 g=32 weight-only, opaque': (torchao_way(int4_opaque), True),
    'torchao int4 g=32 dynamic, opaque': (torchao_way(int4_da8w4), True),
    'torch quantize_dynamic x86': (quantize_dynamic('x86'), True),
    'torch quantize_dynamic onednn': (quantize_dynamic('onednn'), True),
    'ours int8 dynamic': (ours('int8_dynamic_activation_int8_weight'), True),
    'ours int4 g=32': (ours(f'int8_dynamic_activation_intx_weight,w=i4,g={GROUP},a=i8'), True),
    'ours int4 g=32 a=i8z': (ours(f'int8_dynamic_activation_intx_weight,w=i4,g={GROUP}'), True),
}
QUICK = re.compile(r'torch f32|torchao int8 dynamic|quantize_dynamic x86|ours')


def build(model, options):
    """{name: callable} and {name: why it cannot be had}."""
    calls, missing = {}, {}
    for name, (way, compiles) in WAYS.items():
        if (options.quick and not QUICK.search(name)) or not re.search(options.only, name):
            continue
        for mode in ('eager', 'compiled') if compiles else ('eager',):
            label = f'{name}, {mode}'
            try:
                made = way(copy.deepcopy(model))
                if mode == 'compiled':
                    made = torch.compile(made, fullgraph=True, dynamic=False)
                calls[label] = made
            except Exception as error:  # a way that this machine or release has not
                missing[label] = first_line(error)
    return calls, missing


def first_line(error):
    text = str(error).strip().split('\n')[0] or type(error).__name__
    return text[:90]


clock = time.perf_counter


def timed(call, ids, seconds):
    """Seconds of one call: the mean of as many as fit into `seconds`, one at least."""
    count, start = 0, clock()
    while True:
        call(ids)
        count += 1
        now = clock()
        if now - start >= seconds:
            return (now - start) / count


def warm(calls, missing, ids):
    """Runs each way, so that it has compiled, and then: {name: seconds, the least of three}.  Those
    that cannot run leave."""
    taken = {}
    for name in list(calls):
        start = time.perf_counter()
        try:
            calls[name](ids)
            ready = time.perf_counter()
            taken[name] = min(timed(calls[name], ids, 0.0) for _ in range(3))
        except Exception as error:  # as in build()
            missing[name] = first_line(error)
            del calls[name]
            continue
        say(f'{name}: ready in {ready - start:.1f} s, then {taken[name] * 1e3:.1f} ms')
    return taken


def measure(calls, ids, taken, rounds, seconds):
    """{name: times of a call}, the ways taking turns within each round; what took HOPELESS times as
    long as the quickest to warm up keeps that one time, as it would fill the rounds."""
    limit = HOPELESS * min(taken.values())
    times = {name: [taken[name]] if taken[name] > limit else [] for name in calls}
    racing = [name for name in calls if not times[name]]
    for i in range(rounds):
        # Every other round backwards, so that no way always follows the same one.
        for name in racing[::-1 if i % 2 else 1]:
            calls[name](ids)  # what another way's threads left behind is not this one's
            times[name].append(timed(calls[name], ids, seconds))
    return times


def rows_of(size, times):
    """A row of figures for each way, with its speed beside the best of torch and torchao."""
    medians = {name: statistics.median(taken) for name, taken in times.items()}
    others = [median for name, median in medians.items() if not name.startswith('ours')]
    best = min(others) if others else None
    for name, median in medians.items():
        quartiles = statistics.quantiles(times[name], n=4) if len(times[name]) > 1 else [median] * 3
        yield {'size': size, 'way': name, 'median_ms': median * 1e3,
               'min_ms': min(times[name]) * 1e3,
               'spread_percent': 100 * (quartiles[2] - quartiles[0]) / median,
               'times_best_other': best / median if best else float('nan')}


def verdicts(rows):
    """(sentence, met) for each requirement on speed."""
    for size in SIZES:
        for name, required in REQUIRED.items():
            found = [row['times_best_other'] for row in rows
                     if row['size'] == size and row['way'].startswith(f'ours {name},')]
            if found:
                yield (f'{size}: ours {name} is {max(found):.2f} times the best of torch and'
                       f' torchao, required {required:.2f}', max(found) >= required)


def similarity(calls, model, tokenizer):
    """{name: (mean, least) cosine similarity to float32 over the sentences}, of eager ways."""
    ids = [torch.tensor([tokenizer(text)]) for text in sentences.SENTENCES]
    wanted = [model(row) for row in ids]
    found = {}
    for name, call in calls.items():
        if name.endswith('eager'):
            cosines = [torch.nn.functional.cosine_similarity(call(row).float(), want).item()
                       for row, want in zip(ids, wanted)]
            found[name.rpartition(',')[0]] = statistics.mean(cosines), min(cosines)
    return found


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--quick', action='store_true', help='fewer ways and rounds')
    parser.add_argument('--rounds', type=int, default=0, help='0: 15, or 5 with --quick')
    parser.add_argument('--threads', type=int, default=0, help='0: as torch has it')
    parser.add_argument('--only', default='', help='ways whose name holds this regular expression')
    parser.add_argument('--size', default='', help='sizes that hold this regular expression')
    parser.add_argument('--csv', default=os.path.join(ROOT, 'build', 'pytorch.csv'))
    parser.add_argument('--no-tuning', action='store_true', help='untuned guesses for our kernels')
    parser.add_argument('--cpu-time', action='store_true',
                        help='by one thread and its CPU time, where the machine is busy')
    options = parser.parse_args()
    options.rounds = options.rounds or (5 if options.quick else 15)
    return options


def say(text):
    print(text, file=sys.stderr, flush=True)


def print_rows(rows, missing):
    for row in sorted(rows, key=lambda row: (row['size'], row['median_ms'])):
        print(f"{row['size']:9} {row['way']:48} {row['median_ms']:9.3f} ms  +-"
              f"{row['spread_percent']:3.0f} %  {row['times_best_other']:5.2f}x the best other")
    for name, why in missing.items():
        print(f'{"none":9} {name:48} {why}')


def print_similarity(found):
    """Cosine similarities; returns whether ours are no lower than torchao's of the same scheme."""
    met = True
    for name, (mean, least) in found.items():
        print(f'cosine similarity to f32: {name:40} mean {mean:.6f}  least {least:.6f}')
    for name, other in SAME_SCHEME.items():
        if f'ours {name}' in found and other in found:
            mine, theirs = found[f'ours {name}'][0], found[other][0]
            met = met and mine >= theirs
            print(f'ours {name}: mean {mine:.6f}, required {theirs:.6f} ({other}): '
                  f'{"met" if mine >= theirs else "NOT MET"}')
    return met


def main():
    global clock
    options = arguments()
    if options.cpu_time:
        clock, options.threads = time.process_time, 1
    warnings.filterwarnings('ignore')
    if options.threads:
        torch.set_num_threads(options.threads)
    if not options.no_tuning:
        tilewright.configure(mode='tune', tune_budget_s=5.0)
    folder = os.path.join(ROOT, 'models', 'all-MiniLM-L6-v2')
    tokenizer = sentences.Tokenizer(os.path.join(folder, 'vocab.txt'))
    model, rows, all_missing = encoder.load(folder), [], {}
    with torch.inference_mode():
        for size, (batch, length) in SIZES.items():
            if not re.search(options.size, size):
                continue
            ids = torch.tensor(tokenizer.filled(batch, length))
            torch._dynamo.reset()
            calls, missing = build(model, options)
            for call in calls.values():
                tilewright.prepare(call, [batch * length])
            taken = warm(calls, missing, ids)
            times = measure(calls, ids, taken, options.rounds, 0.3 if batch == 1 else 0.0)
            rows += rows_of(size, times)
            all_missing.update(missing)
        found = similarity(calls, model, tokenizer)
    print(f'torch {torch.__version__}, {torch.get_num_threads()} threads, '
          f'{options.rounds} rounds, medians and interquartile ranges'
          + (' of CPU time' if options.cpu_time else ''))
    print_rows(rows, all_missing)
    met = print_similarity(found)
    for text, fulfilled in verdicts(rows):
        print(f'{text}: {"met" if fulfilled else "NOT MET"}')
        met = met and fulfilled
    os.makedirs(os.path.dirname(options.csv), exist_ok=True)
    with open(options.csv, 'w', newline='', encoding='utf-8') as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    say(f'written: {options.csv}')
    return 0 if met else 1


if __name__ == '__main__':
    sys.exit(main())
