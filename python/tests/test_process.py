"""Layers where a process forks, and where it ends: without torch, each in a process of its own."""

import json

import pytest

from test_core import run

FORK = '''
import os, signal, numpy, tilewright
from tilewright import Context, Linear, configure, context

w, x = (numpy.random.default_rng(3).standard_normal((1024, 1024), numpy.float32) for _ in 'wx')

def in_child(work):
    """What work() says in a child, which a hanging one does not."""
    reads, writes = os.pipe()
    child = os.fork()
    if not child:
        signal.alarm(30)
        try:
            said = work()
        except Exception as error:
            said = f'{type(error).__name__}: {error}'
        os.write(writes, str(said).encode())
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    os.close(writes)
    print(os.read(reads, 1000).decode() if not status else f'child: status {status}', flush=True)

make = lambda context=None: Linear.from_float(w, 'w=i8,g=32,s=f16', context=context)
of = lambda layer: numpy.array(numpy.from_dlpack(layer(x)))
'''


def forked(code):
    done = run(FORK + code, TW_THREADS='2')
    assert not done.returncode, done.stderr
    return done.stdout.splitlines()


def test_a_plain_layer_after_a_fork():
    """Its pool has no threads in the child: it moves to a context of the child's own."""
    assert forked('''
layer, other, wide = make(), make(), make()
want = of(layer)
wide.native('f16')
def work():
    same = bool((of(layer) == want).all()) and bool((of(other) == want).all())
    assert layer.context is other.context and layer.context.process == os.getpid()
    layer.prepare([7], 'f16')
    wide.native('f32'), wide.native('f16')
    return same
in_child(work)
print((of(layer) == want).all())
''') == ['True', 'True']


def test_a_fork_before_other_work():
    """What needs no forward: new weights, canonical ones, dequantization, a child of a child."""
    assert forked('''
layer = make()
want = of(layer)
def work():
    found = layer.weights()['weight'][0].tobytes() == make().weights()['weight'][0].tobytes()
    layer.dequantize()
    in_child(lambda: bool((of(layer) == want).all()))
    layer.quantize(w, tilewright.Config('w=i8,g=32,s=f16'))
    return found and bool((of(layer) == want).all())
in_child(work)
''') == ['True'] * 2


def test_settings_survive_a_fork():
    assert forked('''
configure(mode='reference')
layer = make()
plan = layer.native('f32').plan(8)
configure()
in_child(lambda: layer.native('f32').plan(8) == plan and make().context is not layer.context)
''') == ['True']


def test_a_callers_own_context_after_a_fork():
    lines = forked('''
own = Context(threads=2)
layer = make(own)
of(layer)
for work in (lambda: of(layer), lambda: make(own), lambda: layer.prepare([3])):
    in_child(work)
in_child(lambda: (Linear.from_float(w, 'w=i8', context=Context(threads=2))(x), 'a new one')[1])
''')
    for line in lines[:3]:
        assert line.startswith('InvalidError: context: made by process '), line
        assert 'none of its threads' in line
    assert lines[3:] == ['a new one']


def traced(code, tmp_path):
    """The events that a process leaves in its trace, and what it said on stderr."""
    path = tmp_path / 'trace.json'
    done = run(FORK + code, TW_THREADS='2', TW_TRACE=str(path))
    assert not done.returncode, done.stderr
    lines = path.read_text().splitlines()[1:]
    return [json.loads(line.rstrip(','))['name'] for line in lines], done.stderr


@pytest.mark.parametrize('end', ['', 'raise SystemExit', 'del layer',
                                 'import atexit; atexit.register(lambda: of(layer))',
                                 'in_child(lambda: of(layer))'])
def test_a_trace_is_whole_at_the_end_of_the_process(tmp_path, end):
    names, said = traced('layer = make()\nfor i in range(20): of(layer)\n' + end, tmp_path)
    assert names.count('forward') >= 20 and names.count('pack') == 1, names
    assert not said


def test_a_trace_of_a_callers_own_context(tmp_path):
    names, said = traced('own = Context(threads=1)\nlayer = make(own)\nof(layer)\n'
                         'sys = __import__("sys"); sys.kept = own, layer', tmp_path)
    assert 'forward' in names and not said


def test_a_trace_while_a_daemon_runs_a_layer(tmp_path):
    """A layer that is in a call is not taken from under it."""
    names, _ = traced('''
import threading, time
layer = make()
x = numpy.zeros((2048, 1024), 'f4')
def work():
    while True:
        of(layer)
threading.Thread(target=work, daemon=True).start()
time.sleep(0.5)
''', tmp_path)
    assert 'pack' in names
