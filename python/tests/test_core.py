"""The layer without torch: DLPack in and out without a copy, and importing nothing else."""

import ctypes
import gc
import os
import subprocess
import sys
import weakref

import numpy
import pytest
import torch

import tilewright
from tilewright import _dlpack, _lib

SOURCES = os.path.dirname(os.path.dirname(os.path.abspath(tilewright.__file__)))


def numbers(*shape):
    return numpy.random.default_rng(3).standard_normal(shape, dtype=numpy.float32)


def test_numpy_in_numpy_out():
    w, x, bias = numbers(48, 64), numbers(2, 5, 64), numbers(48)
    layer = tilewright.Linear.from_float(w, 'w=f32', bias=bias)
    y = numpy.from_dlpack(layer(x))
    assert numpy.allclose(y, x @ w.T + bias, atol=1e-5)


def test_out_is_written_in_place():
    w, x = numbers(48, 64), numbers(5, 64)
    layer, out = tilewright.Linear.from_float(w, 'w=f32'), numpy.zeros((5, 48), numpy.float32)
    assert layer(x, out=out) is out
    assert numpy.allclose(out, x @ w.T, atol=1e-5)
    with pytest.raises(tilewright.InvalidError, match=r'out: f32 \[5, 47\], expected'):
        layer(x, out=numpy.zeros((5, 47), numpy.float32))


def test_in_and_out_are_the_same_memory():
    array = numbers(4, 6)
    assert _dlpack.Borrowed('x', array).data == array.ctypes.data
    tensor = torch.randn(4, 6)[1:, 2:]
    borrowed = _dlpack.Borrowed('x', tensor)
    assert (borrowed.data, borrowed.shape, borrowed.strides) == (tensor.data_ptr(), (3, 4), (6, 1))
    ours = tilewright.Array((4, 6), 'f32')
    assert torch.from_dlpack(ours).data_ptr() == ours.data
    assert numpy.from_dlpack(ours).ctypes.data == ours.data


def test_memory_lives_as_long_as_anybody_sees_it():
    ours = tilewright.Array((1000,), 'f32')
    ctypes.memset(ours.data, 0, ours.nbytes)
    gc.collect()
    before = len(_dlpack._exported)
    seen, unused = torch.from_dlpack(ours), ours.__dlpack__()
    assert len(_dlpack._exported) == before + 2
    del ours, unused
    gc.collect()
    assert len(_dlpack._exported) == before + 1 and seen.sum() == 0
    del seen
    gc.collect()
    assert len(_dlpack._exported) == before


def test_a_borrowed_capsule_is_given_back():
    array = numbers(4)
    references = sys.getrefcount(array)
    borrowed = _dlpack.Borrowed('x', array)
    assert sys.getrefcount(array) > references
    del borrowed
    assert sys.getrefcount(array) == references


class Elsewhere:
    """An array that says that it lies on a GPU."""

    def __dlpack_device__(self):
        return 2, 0

    def __dlpack__(self):
        raise AssertionError('nobody may ask')


def test_refused_arrays():
    layer = tilewright.Linear.from_float(numbers(48, 64), 'w=i8')
    for array, sentence in ((Elsewhere(), 'type 2, expected memory of the CPU'),
                            ([1.0], 'a list, expected an array that speaks DLPack'),
                            (numpy.zeros(64, numpy.int64), 'code 0 of 64 bits'),
                            (numpy.zeros(64, numpy.int8), 'x: i8, expected f32, f16 or bf16'),
                            (numbers(2, 63), r'x: shape \[2, 63\], expected \[...,64\]'),
                            (numbers(2, 2, 128)[..., ::2], 'expected a contiguous array')):
        with pytest.raises(tilewright.InvalidError, match=sentence):
            layer(array)


def test_weights_by_canonical_tensors():
    layer = tilewright.Linear.from_float(numbers(48, 64), 'w=u4,g=32,s=f16,z=value')
    parts = layer.weights()
    again = tilewright.Linear(48, 64, layer.scheme)
    arrays = [parts[name][0] for name in ('weight', 'scales', 'zeros')]
    floats = [torch.from_dlpack(array).view(torch.float16) for array in arrays[1:]]
    again.set_weights(arrays[0], *floats)
    assert {k: v[0].tobytes() for k, v in again.weights().items()} == \
        {k: v[0].tobytes() for k, v in parts.items()}
    with pytest.raises(tilewright.InvalidError, match='weight: f32'):
        again.set_weights(numbers(48, 64), *floats)


class Temporary:
    """A producer whose capsules hold a copy of the numbers; notes when such a copy goes."""

    def __init__(self, array, events):
        self.array, self.events = array, events

    def __dlpack_device__(self):
        return 1, 0

    def __dlpack__(self, **options):
        class Copy(numpy.ndarray):
            """Of a type that can be referred to weakly."""
        copy = self.array.copy().view(Copy)
        weakref.finalize(copy, self.events.append, 'gone')
        return copy.__dlpack__(**options)


@pytest.mark.parametrize('config, function', [
    ('w=f32', 'tw_linear_create_from_float'), ('int8_weight_only', 'tw_linear_create_from_recipe'),
    (None, 'tw_linear_create')])
def test_borrowed_memory_outlives_the_call(monkeypatch, config, function):
    """Of a producer that exports temporaries: their memory goes with the capsule."""
    events, create = [], getattr(_lib.lib, function)

    def noted(*arguments):
        events.append('call')
        status = create(*arguments)
        events.append('called')
        return status
    monkeypatch.setattr(_lib.lib, function, noted)
    w, bias, x = numbers(48, 64), numbers(48), numbers(5, 64)
    weight, bias_too = Temporary(w, events), Temporary(bias, events)
    if config:
        layer = tilewright.Linear.from_float(weight, config, bias=bias_too)
    else:
        layer = tilewright.Linear(48, 64, tilewright.Config('w=f32').scheme(), bias=bias_too)
        layer.set_weights(weight)
    gc.collect()
    during = events[events.index('call'):events.index('called')]
    assert during == ['call'] and events[:2] == ['call', 'called'], events
    assert events.count('gone') == 2
    assert numpy.allclose(numpy.from_dlpack(layer(x)), x @ w.T + bias, atol=0.5)


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


def test_read_only_arrays_go_in_and_none_comes_out():
    w, x, bias = map(read_only, (numbers(48, 64), numbers(5, 64), numbers(48)))
    layer = tilewright.Linear.from_float(w, 'w=f32', bias=bias)
    assert numpy.allclose(numpy.from_dlpack(layer(x)), x @ w.T + bias, atol=1e-5)
    again = tilewright.Linear(48, 64, layer.scheme)
    again.set_weights(w)
    out = read_only(numpy.zeros((5, 48), numpy.float32))
    with pytest.raises(tilewright.InvalidError, match='out: read-only memory, expected'):
        layer(x, out=out)
    assert not out.any()


class Producer:
    """A producer whose __dlpack__ takes what it says."""

    def __init__(self, export):
        self.export = export

    def __dlpack_device__(self):
        return 1, 0

    def __dlpack__(self, **options):
        return self.export(**options)


def test_producers_of_both_kinds_of_capsule():
    x = numbers(5, 64)
    old = Producer(lambda stream=None: x.__dlpack__())
    new = Producer(lambda max_version: x.__dlpack__(max_version=max_version))
    for producer in (old, new):
        borrowed = _dlpack.Borrowed('x', producer)
        assert (borrowed.data, borrowed.shape) == (x.ctypes.data, (5, 64))

    def broken(max_version=None):
        raise TypeError('of its own')
    with pytest.raises(TypeError, match='of its own'):
        _dlpack.Borrowed('x', Producer(broken))
    with pytest.raises(tilewright.InvalidError, match='x: .*no capsule that is called "dltensor"'):
        _dlpack.Borrowed('x', Producer(lambda **options: 5))


def capsule_of(array, **changes):
    """A versioned capsule of an array, with other values in some of its members."""
    capsule = array.__dlpack__(max_version=(1, 0))
    made = _dlpack.Versioned.from_address(
        _dlpack._api.PyCapsule_GetPointer(capsule, b'dltensor_versioned'))
    for name, value in changes.items():
        setattr(made, name, value)
    return Producer(lambda max_version: capsule)


def test_versioned_capsules_are_read_as_they_say():
    layer, x = tilewright.Linear.from_float(numbers(48, 64), 'w=f32'), numbers(5, 64)
    out = numpy.zeros((5, 48), numpy.float32)
    with pytest.raises(tilewright.InvalidError, match='x: DLPack 2.3, expected 1'):
        layer(capsule_of(x, major=2, minor=3))
    with pytest.raises(tilewright.InvalidError, match='out: a copy, expected memory'):
        layer(x, out=capsule_of(out, flags=2))
    layer(capsule_of(x, minor=7, flags=3), out=capsule_of(out))
    assert numpy.array_equal(out, numpy.from_dlpack(layer(x)))


def run(code, **env):
    return subprocess.run([sys.executable, '-c', code], text=True, capture_output=True,
                          env={**os.environ, 'PYTHONPATH': SOURCES, **env})


def test_importing_needs_neither_torch_nor_numpy():
    done = run('import sys, tilewright; tilewright.Linear; '
               'print(sorted({"torch", "numpy"} & set(sys.modules)))')
    assert done.stdout == '[]\n', done.stderr


def test_a_library_that_is_none(tmp_path):
    missing = run('import tilewright', TILEWRIGHT_LIBRARY=str(tmp_path / 'no.so'))
    assert 'libtilewright.so cannot be loaded' in missing.stderr
    other = run('import tilewright', TILEWRIGHT_LIBRARY='libc.so.6')
    assert 'libc.so.6 is not libtilewright' in other.stderr


def test_structs_are_as_large_as_the_librarys(tmp_path):
    """What the header says, by a C compiler."""
    names = {'tw_tensor': _lib.Tensor, 'tw_scheme': _lib.Scheme, 'tw_options': _lib.Options,
             'tw_linear_desc': _lib.LinearDesc, 'tw_plan_info': _lib.PlanInfo,
             'tw_device_info': _lib.DeviceInfo, 'tw_parallel': _lib.Parallel}
    source = tmp_path / 'sizes.c'
    lines = ''.join(f'printf("%zu\\n", sizeof({name}));' for name in names)
    source.write_text('#include <stdio.h>\n#include <tilewright/tilewright.h>\n'
                      f'int main(void) {{ {lines} }}')
    include = os.path.join(os.path.dirname(SOURCES), 'include')
    subprocess.run(['cc', str(source), '-I', include, '-o', str(tmp_path / 'sizes')], check=True)
    out = subprocess.run([str(tmp_path / 'sizes')], text=True, capture_output=True, check=True)
    assert [int(n) for n in out.stdout.split()] == [ctypes.sizeof(k) for k in names.values()]
