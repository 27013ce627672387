"""DLPack in and out without a copy: any producer's array as a tw_tensor, our memory as an array.

Structs and names of capsules as dlpack.h of DLPack 1.0 has them.
"""

import ctypes
from ctypes import POINTER, c_int32, c_int64, c_uint8, c_uint16, c_uint32, c_uint64, c_void_p

from . import _lib

CPU, CUDA_HOST = 1, 3
READ_ONLY, IS_COPIED = 1, 2  # flags of a versioned tensor
VERSION = 1, 0
INT, UINT, FLOAT, BFLOAT = 0, 1, 2, 4
# (DLPack's code, bits) -> dtype; 8-bit floats pass as the bytes that they are
DTYPES = {(FLOAT, 32): 'f32', (FLOAT, 16): 'f16', (BFLOAT, 16): 'bf16', (INT, 8): 'i8',
          (UINT, 8): 'u8'}
CODES = {name: key for key, name in DTYPES.items()}


class DLTensor(ctypes.Structure):
    """DLTensor, its DLDevice and DLDataType as single fields."""

    _fields_ = [('data', c_void_p), ('device_type', c_int32), ('device_id', c_int32),
                ('ndim', c_int32), ('code', c_uint8), ('bits', c_uint8), ('lanes', c_uint16),
                ('shape', POINTER(c_int64)), ('strides', POINTER(c_int64)),
                ('byte_offset', c_uint64)]


_DELETER = ctypes.CFUNCTYPE(None, c_void_p)


class Managed(ctypes.Structure):
    """DLManagedTensor."""

    _fields_ = [('tensor', DLTensor), ('manager_ctx', c_void_p), ('deleter', _DELETER)]


class Versioned(ctypes.Structure):
    """DLManagedTensorVersioned."""

    _fields_ = [('major', c_uint32), ('minor', c_uint32), ('manager_ctx', c_void_p),
                ('deleter', c_void_p), ('flags', c_uint64), ('tensor', DLTensor)]


_api = ctypes.pythonapi
_DESTRUCTOR = ctypes.CFUNCTYPE(None, c_void_p)
_api.PyCapsule_New.argtypes = [c_void_p, ctypes.c_char_p, _DESTRUCTOR]
_api.PyCapsule_New.restype = ctypes.py_object
_api.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
_api.PyCapsule_GetPointer.restype = c_void_p
_api.PyCapsule_IsValid.argtypes = [ctypes.py_object, ctypes.c_char_p]
# The destructor gets an object that is being destroyed, which must not be touched as one.
_raw_pointer = ctypes.PYFUNCTYPE(c_void_p, c_void_p, ctypes.c_char_p)(
    ('PyCapsule_GetPointer', _api))
_raw_is_valid = ctypes.PYFUNCTYPE(ctypes.c_int, c_void_p, ctypes.c_char_p)(
    ('PyCapsule_IsValid', _api))


class Borrowed:
    """An array's memory, seen through a capsule that is kept and never consumed."""

    def __init__(self, name, array, written=False):
        if not hasattr(array, '__dlpack__'):
            raise _lib.InvalidError(f'{name}: a {type(array).__name__}, expected an array that '
                                    'speaks DLPack')
        device = array.__dlpack_device__()
        if device[0] not in (CPU, CUDA_HOST):
            raise _lib.InvalidError(f'{name}: on a device of DLPack\'s type {int(device[0])}, '
                                    'expected memory of the CPU (type 1)')
        # torch exports a view whose negation is pending as if it were not.
        if getattr(array, 'is_neg', bool)():
            if written:
                raise _lib.InvalidError(f'{name}: a negative view, expected memory that the result '
                                        'can be written to')
            array = array.resolve_neg()
        self.capsule = _capsule_of(array)
        view, flags = _tensor_of(name, self.capsule)
        if written and flags & (READ_ONLY | IS_COPIED):
            what = 'read-only memory' if flags & READ_ONLY else 'a copy'
            raise _lib.InvalidError(f'{name}: {what}, expected memory that the result can be '
                                    'written to')
        self.dtype = DTYPES.get((view.code, view.bits)) if view.lanes == 1 else None
        if self.dtype is None:
            raise _lib.InvalidError(f'{name}: DLPack\'s dtype code {view.code} of {view.bits} bits,'
                                    f' expected one of {", ".join(DTYPES.values())}')
        self.data = (view.data or 0) + view.byte_offset
        self.shape = tuple(view.shape[i] for i in range(view.ndim))
        self.strides = (tuple(view.strides[i] for i in range(view.ndim)) if view.strides
                        else contiguous_strides(self.shape))

    @property
    def contiguous(self):
        """Whether the elements lie one after another."""
        return 0 in self.shape or all(extent == 1 or have == want for extent, have, want in
                   zip(self.shape, self.strides, contiguous_strides(self.shape)))

    def tensor(self, dtype=None):
        """The whole as a tw_tensor of at most 4 dimensions, of a dtype that is as wide."""
        return _lib.tensor(self.data, dtype or self.dtype, *self.shape, strides=self.strides)


def _capsule_of(array):
    # Versioned where the producer can: only there can it say that memory is read-only, and
    # without that numpy exports no such memory.
    try:
        return array.__dlpack__(max_version=VERSION)
    except TypeError:  # from before DLPack 1.0, or an error of its own, which it then says again
        return array.__dlpack__()


def _tensor_of(name, capsule):
    """The DLTensor in a capsule, and its flags."""
    if _api.PyCapsule_IsValid(capsule, b'dltensor'):
        pointer = _api.PyCapsule_GetPointer(capsule, b'dltensor')
        return Managed.from_address(pointer).tensor, 0
    if not _api.PyCapsule_IsValid(capsule, b'dltensor_versioned'):
        raise _lib.InvalidError(f'{name}: its __dlpack__() gave no capsule that is called '
                                '"dltensor" or "dltensor_versioned"')
    pointer = _api.PyCapsule_GetPointer(capsule, b'dltensor_versioned')
    made = Versioned.from_address(pointer)
    if made.major != VERSION[0]:
        raise _lib.InvalidError(f'{name}: DLPack {made.major}.{made.minor}, expected '
                                f'{VERSION[0]}')
    return made.tensor, made.flags


def contiguous_strides(shape):
    """Strides in elements of a row major array."""
    strides, step = [], 1
    for extent in reversed(shape):
        strides.append(step)
        step *= max(extent, 1)
    return tuple(reversed(strides))


_exported = {}  # address of a Managed -> what it needs, until its deleter runs


@_DELETER
def _delete(managed):
    _exported.pop(managed, None)


@_DESTRUCTOR
def _destroy(capsule):
    # A consumer has renamed the capsule, and calls the deleter itself.
    if _raw_is_valid(capsule, b'dltensor'):
        _delete(_raw_pointer(capsule, b'dltensor'))


class Array:
    """Memory of our own, contiguous and aligned to 64 bytes, for whoever speaks DLPack."""

    def __init__(self, shape, dtype):
        self.shape, self.dtype = tuple(shape), dtype
        count = 1
        for extent in self.shape:
            count *= extent
        self.nbytes = count * _lib.dtype_bits(dtype) // 8
        self._memory = ctypes.create_string_buffer(self.nbytes + 64)
        self.data = ctypes.addressof(self._memory) + -ctypes.addressof(self._memory) % 64

    def __dlpack_device__(self):
        return CPU, 0

    def __dlpack__(self, *, stream=None, max_version=None, dl_device=None, copy=None):
        if copy:
            raise BufferError('copy: this export never copies')
        if dl_device not in (None, (CPU, 0)):
            raise BufferError(f'dl_device: {dl_device}, this array is on the CPU')
        ndim = len(self.shape)
        managed = Managed()
        shape = (c_int64 * max(ndim, 1))(*self.shape)
        strides = (c_int64 * max(ndim, 1))(*contiguous_strides(self.shape))
        code, bits = CODES[self.dtype]
        managed.tensor = DLTensor(self.data, CPU, 0, ndim, code, bits, 1, shape, strides, 0)
        managed.deleter = _delete
        address = ctypes.addressof(managed)
        _exported[address] = managed, shape, strides, self._memory
        return _api.PyCapsule_New(address, b'dltensor', _destroy)

    def tobytes(self):
        """A copy of the memory."""
        return ctypes.string_at(self.data, self.nbytes)
