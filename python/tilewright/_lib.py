"""The C library: where it is found, its structs and functions by ctypes, its errors as exceptions.

Everything that mirrors tilewright.h and quant.h stands here and nowhere else.
"""

import ctypes
import os
from ctypes import POINTER, c_char, c_char_p, c_double, c_float, c_int, c_int32, c_int64, c_size_t
from ctypes import c_uint32, c_void_p

VERSION = (0, 1)  # major and minor of the headers that this file mirrors
STATUSES = ('OK', 'INVALID', 'UNSUPPORTED', 'MEMORY', 'DEVICE', 'COMPILE', 'VERIFY', 'CACHE',
            'MISS', 'IO', 'FORMAT', 'BUSY', 'INTERNAL', 'CANCELLED')
DTYPES = {'none': 0, 'f32': 1, 'f16': 2, 'bf16': 3, 'e4m3': 4, 'e5m2': 5, 'e3m2': 6, 'e2m3': 7,
          'e2m1': 8, 'e8m0': 9, 'lut4': 10, 'f16i8': 11, **{f'i{b}': 16 + b for b in range(1, 9)},
          **{f'u{b}': 32 + b for b in range(1, 9)}}
DTYPE_NAMES = {value: name for name, value in DTYPES.items()}
ACTS = ('none', 'relu', 'gelu', 'gelu_tanh', 'silu')
ZERO_MODES = ('none', 'code', 'value')
FPMATHS = ('strict', 'bf16')
# tw_act_quant, in the words of a problem's text
ACT_QUANTS = ('none', 'i8', 'i8z', 'i8full', 'i8s', 'e4m3', 'e4m3s', 'mxfp8', 'mxfp8floor',
              'mxfp8ceil', 'mxfp8even', 'mxfp4', 'mxfp4floor', 'mxfp4ceil', 'mxfp4even', 'nvfp4',
              'nvfp4t', 'nvfp4s')
MODES = ('default', 'reference', 'tune', 'max_autotune', 'cached_only')


class TilewrightError(RuntimeError):
    """What the library refused, in its own sentence; `status` is the name of its tw_status."""

    status = 'INTERNAL'


class InvalidError(TilewrightError, ValueError):
    """An argument breaks its documented contract."""


class UnsupportedError(TilewrightError, NotImplementedError):
    """Valid, but nothing here can do it."""


class OutOfMemoryError(TilewrightError, MemoryError):
    """An allocation failed."""


ERRORS = {'INVALID': InvalidError, 'UNSUPPORTED': UnsupportedError, 'MEMORY': OutOfMemoryError}


class Tensor(ctypes.Structure):
    """tw_tensor.  Shape and stride as single fields, which are quicker to set than arrays."""

    _fields_ = [('data', c_void_p), ('dtype', c_int), ('ndim', c_int32),
                *[(f'shape{i}', c_int64) for i in range(4)],
                *[(f'stride{i}', c_int64) for i in range(4)]]


class Scheme(ctypes.Structure):
    """tw_scheme."""

    _fields_ = [('weight', c_int), ('scale', c_int), ('zero_mode', c_int), ('group_n', c_int32),
                ('group_k', c_int32), ('act_quant', c_int), ('act_group', c_int32),
                ('fpmath', c_int)]


class LinearDesc(ctypes.Structure):
    """tw_linear_desc."""

    _fields_ = [('struct_size', c_size_t), ('N', c_int64), ('K', c_int64), ('x', c_int),
                ('y', c_int), ('scheme', Scheme), ('act', c_int), ('lut', POINTER(c_float)),
                ('order', POINTER(c_int32)), ('act_scale', c_float)]


class Parallel(ctypes.Structure):
    """tw_parallel."""

    _fields_ = [('run', c_void_p), ('user', c_void_p), ('threads', c_int32)]


class Options(ctypes.Structure):
    """tw_options; the hooks for log and allocator stay zero."""

    _fields_ = [('struct_size', c_size_t), ('cache_path', c_char_p), ('device', c_char_p),
                ('mode', c_int), ('tune_budget_s', c_double), ('threads', c_int32),
                ('parallel', Parallel), ('log', c_void_p * 2), ('allocator', c_void_p * 3),
                ('cache_system_path', c_char_p)]


class PlanInfo(ctypes.Structure):
    """tw_plan_info."""

    _fields_ = [('struct_size', c_size_t), ('kernel', c_char * 64), ('config', c_char * 128),
                ('origin', c_char * 16), ('median_ns', c_double)]


class DeviceInfo(ctypes.Structure):
    """tw_device_info."""

    _fields_ = [('struct_size', c_size_t), ('name', c_char * 64), ('target', c_char * 32),
                ('threads', c_int32), ('l1_bytes', c_int64), ('l2_bytes', c_int64),
                ('l3_bytes', c_int64)]


_TENSOR, _HANDLE = POINTER(Tensor), POINTER(c_void_p)
# name -> argument types; all of these return a tw_status
_FALLIBLE = {
    'tw_scheme_parse': [c_char_p, POINTER(Scheme)],
    'tw_recipe_scheme': [c_char_p, c_int, POINTER(Scheme)],
    'tw_parallel_openmp': [c_void_p, c_int32, POINTER(Parallel)],
    'tw_context_create': [POINTER(Options), _HANDLE],
    'tw_context_device': [c_void_p, POINTER(DeviceInfo)],
    'tw_linear_create': [c_void_p, POINTER(LinearDesc), *[_TENSOR] * 4, _HANDLE],
    'tw_linear_create_from_float': [c_void_p, POINTER(LinearDesc), _TENSOR, _TENSOR, _HANDLE],
    'tw_linear_create_from_recipe': [c_void_p, POINTER(LinearDesc), c_char_p, _TENSOR, _TENSOR,
                                     _HANDLE],
    'tw_linear_prepare': [c_void_p, POINTER(c_int64), c_int32, c_int32],
    'tw_linear_weights': [c_void_p, _TENSOR, _TENSOR, _TENSOR],
    'tw_linear_plan': [c_void_p, c_int64, POINTER(PlanInfo)],
    'tw_dequantize_weight': [POINTER(Scheme), c_int64, c_int64, *[c_void_p] * 5],
}


def _candidates():
    """(path, is that the user's own choice) in the order of preference."""
    named = os.environ.get('TILEWRIGHT_LIBRARY')
    if named:
        yield named
        return
    beside = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'libtilewright.so')
    if os.path.exists(beside):
        yield beside
    yield f'libtilewright.so.{VERSION[0]}'
    yield 'libtilewright.so'


def _open():
    tried = []
    for path in _candidates():
        try:
            return ctypes.CDLL(path), path
        except OSError as error:
            tried.append(str(error))
    raise ImportError('libtilewright.so cannot be loaded: install the library, or name the file in '
                      'TILEWRIGHT_LIBRARY (' + '; '.join(tried) + ')')


def _load():
    lib, path = _open()
    try:
        lib.tw_version.restype = c_uint32
    except AttributeError:
        raise ImportError(f'{path} is not libtilewright: it has no tw_version') from None
    found = lib.tw_version()
    if (found >> 16, found >> 8 & 255) != VERSION:
        raise ImportError(f'{path} is version {found >> 16}.{found >> 8 & 255}.{found & 255}, this '
                          f'package speaks to {VERSION[0]}.{VERSION[1]}: install both of one')
    for name, arguments in _FALLIBLE.items():
        function = getattr(lib, name)
        function.argtypes, function.restype = arguments, c_int
    lib.tw_error_message.restype = c_char_p
    lib.tw_linear_lut.argtypes, lib.tw_linear_lut.restype = [c_void_p], POINTER(c_float)
    for name in ('tw_linear_destroy', 'tw_context_destroy'):
        getattr(lib, name).argtypes, getattr(lib, name).restype = [c_void_p], None
    return lib


lib = _load()
# Without argument types, which cost a tenth of a microsecond each: whoever calls it passes a
# c_void_p and two byref() of Tensor.
forward = ctypes.CFUNCTYPE(c_int)(ctypes.cast(lib.tw_linear_forward, c_void_p).value)


def fail(status):
    """Raises the library's sentence; for a status that is not OK."""
    name = STATUSES[status] if 0 <= status < len(STATUSES) else 'INTERNAL'
    error = ERRORS.get(name, TilewrightError)(lib.tw_error_message().decode(errors='replace'))
    error.status = name
    raise error


def check(status):
    """Raises unless the status is OK."""
    if status:
        fail(status)


def describe_struct(kind):
    """A zeroed struct with its struct_size set."""
    return kind(struct_size=ctypes.sizeof(kind))


def tensor(data, dtype, *shape, strides=()):
    """A tw_tensor of an address; all strides 0 where none are given."""
    made = Tensor(data=data, dtype=DTYPES[dtype], ndim=len(shape))
    for i, extent in enumerate(shape):
        setattr(made, f'shape{i}', extent)
    for i, stride in enumerate(strides):
        setattr(made, f'stride{i}', stride)
    return made


def shape_of(view):
    """The shape of a tw_tensor as a tuple."""
    return tuple(getattr(view, f'shape{i}') for i in range(view.ndim))


def dtype_bits(name):
    """Bits of an element of a dtype, by its name."""
    return lib.tw_dtype_bits(DTYPES[name])


def row_bytes(columns, dtype):
    """Bytes of a row of canonical codes: rows start at a byte."""
    return (columns * dtype_bits(dtype) + 7) // 8
