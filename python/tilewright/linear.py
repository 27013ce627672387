"""A quantized linear layer without any framework: its canonical tensors in, arrays through DLPack.

    layer = Linear.from_float(weight, 'w=i4,g=32,s=f16,a=i8', bias=bias)
    y = layer(x)                # an Array; numpy.from_dlpack(y), torch.from_dlpack(y)
    layer(x, out=y)             # into an array of the caller's, without a copy
"""

import ctypes
from contextlib import contextmanager

from . import _lib, context as contexts, scheme as schemes
from ._dlpack import Array, Borrowed


class Native:
    """One tw_linear, for one dtype of x and one context.  Several threads may run it at once."""

    __slots__ = ('handle', 'context', 'dtype', 'out_dtype', 'N', 'K', '_pairs', '_made',
                 '__weakref__')

    def __init__(self, context, dtype, out_dtype, N, K, handle):
        self.handle, self.context, self.dtype, self.N, self.K = handle, context, dtype, N, K
        self.out_dtype = out_dtype
        # x and y: one for each thread there has been.  Those that no call is using, and all.
        self._pairs, self._made = [], []
        context.add(self)

    def __del__(self, destroy=_lib.lib.tw_linear_destroy):
        destroy(self.handle)

    def _pair(self):
        x = _lib.tensor(0, self.dtype, 0, self.K, strides=(self.K, 1))
        y = _lib.tensor(0, self.out_dtype, 0, self.N, strides=(self.N, 1))
        pair = x, y, ctypes.byref(x), ctypes.byref(y)
        self._made.append(pair)
        return pair

    @contextmanager
    def _used(self):
        """The handle, which close() leaves alone meanwhile."""
        try:
            pair = self._pairs.pop()
        except IndexError:
            pair = self._pair()
        try:
            yield self.handle
        finally:
            self._pairs.append(pair)

    def close(self):
        """Destroys the linear, unless a call of some thread is using it."""
        # In this order, as run() takes a pair before it looks at the handle.
        handle, self.handle = self.handle, ctypes.c_void_p()
        if len(self._pairs) == len(self._made):
            _lib.lib.tw_linear_destroy(handle)
        else:
            self.handle = handle

    def run(self, x_data, M, x_stride, y_data, forward=_lib.forward):
        """y = act(x w^T + bias) on addresses; x_stride from row to row, in elements."""
        pairs = self._pairs
        try:
            pair = pairs.pop()
        except IndexError:
            pair = self._pair()
        x, y, x_reference, y_reference = pair
        x.data, x.shape0, x.stride0 = x_data, M, x_stride
        y.data, y.shape0 = y_data, M
        status = forward(self.handle, x_reference, y_reference)
        pairs.append(pair)
        if status:
            _lib.fail(status)

    def canonical(self):
        """[(bytes, dtype, shape)] of weight, scales and zeros; None for what there is not."""
        with self._used() as handle:
            return self._canonical(handle)

    @staticmethod
    def _canonical(handle):
        views = [_lib.Tensor() for _ in range(3)]
        references = [ctypes.byref(view) for view in views]
        _lib.check(_lib.lib.tw_linear_weights(handle, *references))
        found = []
        for view in views:
            if not view.dtype:
                found.append(None)
                continue
            dtype, shape = _lib.DTYPE_NAMES[view.dtype], _lib.shape_of(view)
            memory = Array((shape[0], _lib.row_bytes(shape[1], dtype)), 'u8')
            view.data = memory.data
            found.append((memory, dtype, shape))
        _lib.check(_lib.lib.tw_linear_weights(handle, *references))
        return found

    def lut(self):
        """The 16 values of a table's codes, or None."""
        table = _lib.lib.tw_linear_lut(self.handle)
        return tuple(table[:16]) if table else None

    def prepare(self, rows, concurrent=1):
        """Makes the kernels for these M ready, and tunes them in the tuning modes."""
        counts = (ctypes.c_int64 * len(rows))(*rows)
        with self._used() as handle:
            _lib.check(_lib.lib.tw_linear_prepare(handle, counts, len(rows), concurrent))

    def plan(self, rows):
        """What runs for so many rows: a dict of kernel, config, origin."""
        info = _lib.describe_struct(_lib.PlanInfo)
        with self._used() as handle:
            _lib.check(_lib.lib.tw_linear_plan(handle, rows, ctypes.byref(info)))
        return {name: getattr(info, name).decode() for name in ('kernel', 'config', 'origin')}


def _borrowed(name, array):
    return array if isinstance(array, Borrowed) else Borrowed(name, array)


def _reference(view):
    return ctypes.byref(view) if view is not None else None


class Linear:
    """A layer: the canonical weights in the library's packed form, one for each dtype of x in use.

    The first is made when the weights are known, others when x of their dtype comes; each holds a
    packed copy of the weights.  A native with another activation than the layer's, native(dtype,
    act), has a copy of its own too, under the name "dtype+act".
    """

    def __init__(self, out_features, in_features, scheme, act='none', act_scale=0.0, bias=None,
                 context=None):
        if act not in _lib.ACTS:
            raise _lib.InvalidError(f'act: "{act}", expected one of {", ".join(_lib.ACTS)}')
        self.out_features, self.in_features = out_features, in_features
        self.scheme, self.act, self.act_scale = scheme, act, act_scale
        self.bias = bias
        self.context = context or contexts.shared()
        self.natives = {}

    # ---- making ----

    def _desc(self, dtype, act=None):
        desc = _lib.describe_struct(_lib.LinearDesc)
        desc.N, desc.K, desc.x = self.out_features, self.in_features, _lib.DTYPES[dtype]
        desc.act, desc.act_scale = _lib.ACTS.index(act or self.act), self.act_scale
        return desc

    def _here(self):
        """The context, which a fork may have left without threads: one of this process."""
        self.context = self.context.here()
        return self.context

    def _bias(self):
        return Borrowed('bias', self.bias) if self.bias is not None else None

    def _adopt(self, dtype, handle, act=None):
        native = Native(self.context, dtype, dtype, self.out_features, self.in_features, handle)
        self.natives[native_name(dtype, act)] = native
        return native

    @classmethod
    def from_float(cls, weight, config, bias=None, x='f32', context=None):
        """Quantizes weights [N,K] of f32, f16 or bf16 by a Config or its text."""
        config = config if isinstance(config, schemes.Config) else schemes.Config(config)
        source = Borrowed('weight', weight)
        if len(source.shape) != 2:
            raise _lib.InvalidError(f'weight: {len(source.shape)} dimensions, expected [N,K]')
        layer = cls(*source.shape, config.scheme(source.dtype), config.act, config.act_scale, bias,
                    context)
        layer.quantize(source, config, x)
        return layer

    def quantize(self, weight, config, x='f32'):
        """Takes float weights [N,K] by the Config that the layer's scheme comes from."""
        # In locals until the call is over: a producer's memory may live with its capsule alone.
        source, bias = _borrowed('weight', weight), self._bias()
        view, bias_view = source.tensor(), bias and bias.tensor()
        desc, handle = self._desc(x), ctypes.c_void_p()
        arguments = self._here().handle, ctypes.byref(desc)
        tensors = ctypes.byref(view), _reference(bias_view), ctypes.byref(handle)
        if config.is_scheme:
            desc.scheme = self.scheme
            _lib.check(_lib.lib.tw_linear_create_from_float(*arguments, *tensors))
        else:
            recipe = config.text.encode()
            _lib.check(_lib.lib.tw_linear_create_from_recipe(*arguments, recipe, *tensors))
        self._adopt(x, handle)

    def set_weights(self, weight, scales=None, zeros=None, lut=None, x='f32'):
        """Takes canonical tensors: arrays of their dtype, or of the bytes of their rows as u8."""
        N, K, scheme = self.out_features, self.in_features, self.scheme
        zero = _lib.DTYPES['u8'] if scheme.zero_mode == 1 else scheme.scale
        groups = (-(-N // (scheme.group_n or N)), -(-K // (scheme.group_k or K)))
        views = [None, None, None]
        keep = []
        for i, (name, array, dtype, shape) in enumerate((
                ('weight', weight, scheme.weight, (N, K)),
                ('scales', scales, scheme.scale, groups), ('zeros', zeros, zero, groups))):
            if array is None:
                continue
            borrowed = _borrowed(name, array)
            keep.append(borrowed)
            views[i] = _canonical_view(name, borrowed, _lib.DTYPE_NAMES[dtype], shape)
        self._create(x, views, lut)

    def _create(self, dtype, views, lut, act=None):
        desc, handle = self._desc(dtype, act), ctypes.c_void_p()
        desc.scheme = self.scheme
        table = (ctypes.c_float * 16)(*lut) if lut is not None else None
        if table is not None:
            desc.lut = table
        bias = self._bias()  # a local until the call is over; whoever made `views` keeps theirs
        _lib.check(_lib.lib.tw_linear_create(self._here().handle, ctypes.byref(desc),
                                             *map(_reference, views),
                                             _reference(bias and bias.tensor()),
                                             ctypes.byref(handle)))
        return self._adopt(dtype, handle, act)

    # ---- using ----

    def any_native(self):
        """Some native, of whatever dtype; raises while the layer has no weights."""
        for native in self.natives.values():
            return native
        raise _lib.InvalidError('this layer has no weights yet: load_state_dict() gives it some')

    def native(self, dtype, act=None):
        """The native for x of this dtype, with `act` in place of the layer's activation if it is
        given; made from another one's canonical tensors if need be."""
        found = self.natives.get(native_name(dtype, act))
        if found is not None and found.context is self._here():
            return found
        source = found or self.any_native()
        tensors = source.canonical()
        views = [t and _lib.tensor(t[0].data, t[1], *t[2]) for t in tensors]
        return self._create(dtype, views, source.lut(), act)

    def weights(self):
        """{'weight', 'scales', 'zeros': (Array of the rows' bytes, dtype, shape)}, as they were
        given, bit for bit; without what the scheme has not."""
        tensors = self.any_native().canonical()
        return {name: tensor for name, tensor in zip(('weight', 'scales', 'zeros'), tensors)
                if tensor}

    def dequantize(self):
        """The weights [N,K] as an Array of f32."""
        tensors = self.any_native().canonical()
        lut = self.any_native().lut()
        table = (ctypes.c_float * 16)(*lut) if lut else None
        out = Array((self.out_features, self.in_features), 'f32')
        _lib.check(_lib.lib.tw_dequantize_weight(
            ctypes.byref(self.scheme), self.out_features, self.in_features,
            *[t and t[0].data for t in tensors], table, out.data))
        return out

    def prepare(self, rows, x='f32', concurrent=1):
        """Makes everything ready for these numbers of rows; tunes in the tuning modes."""
        self.native(x).prepare(rows, concurrent)

    def __call__(self, x, out=None):
        """x [...,K] of f32, f16 or bf16 -> [...,N] of the same dtype: an Array, or `out`."""
        source = Borrowed('x', x)
        N, K = self.out_features, self.in_features
        if not source.shape or source.shape[-1] != K:
            raise _lib.InvalidError(f'x: shape {list(source.shape)}, expected [...,{K}]')
        if source.dtype not in ('f32', 'f16', 'bf16'):
            raise _lib.InvalidError(f'x: {source.dtype}, expected f32, f16 or bf16')
        if not source.contiguous and not (len(source.shape) == 2 and source.strides[1] == 1):
            raise _lib.InvalidError(f'x: strides {list(source.strides)}, expected a contiguous '
                                    'array, or rows of contiguous elements')
        rows = 1
        for extent in source.shape[:-1]:
            rows *= extent
        stride = source.strides[0] if len(source.shape) == 2 and rows > 1 else K
        result = out if out is not None else Array((*source.shape[:-1], N), source.dtype)
        target = Borrowed('out', result, written=True)
        if target.shape != (*source.shape[:-1], N) or target.dtype != source.dtype or \
                not target.contiguous:
            raise _lib.InvalidError(f'out: {target.dtype} {list(target.shape)}, expected a '
                                    f'contiguous {source.dtype} {[*source.shape[:-1], N]}')
        self.native(source.dtype).run(source.data, rows, stride, target.data)
        return result


def native_name(dtype, act=None):
    """The place of a native in Linear.natives."""
    return f'{dtype}+{act}' if act else dtype


def _canonical_view(name, array, dtype, shape):
    """An array as a canonical tensor: of the dtype itself, or of its bytes."""
    if array.dtype == dtype:
        return array.tensor()
    expected = (shape[0], _lib.row_bytes(shape[1], dtype))
    if array.dtype not in ('u8', 'i8') or array.shape != expected or not array.contiguous:
        raise _lib.InvalidError(f'{name}: {array.dtype} {list(array.shape)}, expected {dtype} '
                                f'{list(shape)}, or its rows as contiguous u8 {list(expected)}')
    return _lib.tensor(array.data, dtype, *shape)
