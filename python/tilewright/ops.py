"""The operators of tilewright::, and their layers.

linear has gradients in both modes; linear_forward is for where none is wanted.  The weights are
fixed, so the rest are two products with them, each of which is the other's gradient:
linear_input_gradient, dx = dy w, and linear_tangent, dy = dx w^T.

linear_act is linear_forward and an activation in one: fusion.py puts it into compiled graphs.

An operator names its layer by a tensor of one number, a place in a table of this process.  It is a
tensor for the compiler's sake, which takes an integer for a constant: blocks that differ by their
layers alone share one compiled graph, and a layer may get new weights, be moved to another thread
count or serve another dtype of x without a recompilation.  Numbers begin at random in each process,
so that a graph that outlives its layer, or is loaded elsewhere, gets a sentence and no other layer.

The kernels are registered on dispatch keys directly: of torch's ways this has the least to do for a
call.  A kernel in Python on AutogradCPU takes some microseconds even where no gradient is wanted.
"""

import copy
import os
import secrets
from functools import partial

import torch
from torch._functorch.utils import enable_single_level_autograd_function
from torch.autograd import forward_ad
from torch.autograd.function import _SingleLevelFunction

from . import _lib, context as contexts
from .linear import Linear, native_name

TORCH_DTYPES = {torch.float32: 'f32', torch.float16: 'f16', torch.bfloat16: 'bf16'}
# What linear_act takes, and the same in torch.
ACTS = {'relu': torch.relu, 'gelu': torch.nn.functional.gelu, 'silu': torch.nn.functional.silu,
        'gelu_tanh': partial(torch.nn.functional.gelu, approximate='tanh')}
_NOTHING = None, None, 0
_get_num_threads, _empty, _Tensor = torch.get_num_threads, torch.empty, torch.Tensor
_grad_enabled = torch.is_grad_enabled
_modes = torch._C._len_torch_dispatch_stack
_transforms = torch._C._are_functorch_transforms_active

_layers = {}  # number -> layer
_at = {}  # address of a handle -> layer: reading the number out of a tensor takes a microsecond
_next = secrets.randbelow(1 << 61)
_openmp = None


def torch_context():
    """The context for torch's current thread count, on torch's own OpenMP threads."""
    global _openmp
    if _openmp is None:
        path = os.path.join(os.path.dirname(torch.__file__), 'lib', 'libtorch_cpu.so')
        _openmp = contexts.gomp_parallel(path) or contexts.gomp_parallel() or 0
    return contexts.shared(_get_num_threads(), _openmp or None)


class TorchLinear(Linear):
    """A Linear on torch tensors, which follows torch.set_num_threads and the dtype of x."""

    def __init__(self, *args, **options):
        super().__init__(*args, context=torch_context(), **options)
        self._prepared = {}  # dtype of x -> numbers of rows, concurrent
        self.forget()

    def forget(self):
        """Lets the next call look up its native again."""
        self._latest = {}  # act -> native, dtype of x, threads: set and read as one

    def twin(self):
        """A layer of its own.  The packed weights, which nothing changes, are shared."""
        twin = copy.copy(self)
        twin.natives, twin._prepared = dict(self.natives), dict(self._prepared)
        twin.forget()
        return twin

    def fused(self, dtype, act):
        """The native for x of this dtype with an activation.

        The library has no way to share packed weights: this one packs the codes anew, on the first
        call with `act`.  The first of a dtype takes the place of the plain one, so that memory does
        not grow where every call is fused.  A plain call after that makes its native again; that
        one stays, and the layer then holds both.
        """
        name = native_name(dtype, act)
        new = name not in self.natives
        first = not any(each.startswith(f'{dtype}+') for each in list(self.natives))
        native = self.native(dtype, act)
        if new and dtype in self._prepared:
            native.prepare(*self._prepared[dtype])
        if first:
            self.natives.pop(dtype, None)
            self.forget()
        return native

    def in_use(self, dtype):
        """The natives for x of this dtype: those there are, else the plain one."""
        names = [name.partition('+') for name in list(self.natives)]
        acts = [act or None for given, _, act in names if given == dtype]
        return [self.native(dtype, act) for act in acts or [None]]

    def prepare(self, rows, x='f32', concurrent=1):
        """Makes everything ready for these numbers of rows; tunes in the tuning modes.  An
        activation that is fused later is made ready for them when it first runs."""
        for native in self.in_use(x):
            native.prepare(rows, concurrent)
        known, most = self._prepared.get(x, ((), 1))
        self._prepared[x] = sorted({*known, *rows}), max(most, concurrent)

    def _switch(self, x, act):
        if x.dtype not in TORCH_DTYPES:
            raise _lib.InvalidError(f'x: {x.dtype}, expected float32, float16 or bfloat16')
        self.context = torch_context()
        dtype = TORCH_DTYPES[x.dtype]
        native = self.fused(dtype, act) if act else self.native(dtype)
        self._latest[act] = native, x.dtype, _get_num_threads()
        return native

    def forward(self, x, act=None):
        """y of a plain tensor on the CPU, with one of ACTS in place of the layer's activation if it
        is given; nothing is recorded for a gradient."""
        native, dtype, threads = self._latest.get(act, _NOTHING)
        if x.dtype is not dtype or _get_num_threads() != threads:
            native = self._switch(x, act)
        shape, K = x.shape, native.K
        if not shape or shape[-1] != K:
            raise _lib.InvalidError(f'x: shape {list(shape)}, expected [...,{K}]')
        if not x.is_cpu:
            raise _lib.InvalidError(f'x: on {x.device}, expected a tensor on the CPU')
        if x.is_neg():  # a pending negation, which only torch's own operators heed
            x = x.resolve_neg()
        stride = K
        if not x.is_contiguous():
            if len(shape) == 2 and x.stride(1) == 1 and x.stride(0) >= K:
                stride = x.stride(0)
            else:
                x = x.contiguous()
        y = _empty(shape[:-1] + (native.N,), dtype=x.dtype)
        M = shape[0] if len(shape) == 2 else x.numel() // K
        if M:
            native.run(x.data_ptr(), M, stride, y.data_ptr())
        return y

    def dequantized(self):
        """The weights [N,K] as a tensor of f32."""
        return torch.from_dlpack(self.dequantize())


class Slot:
    """A layer's place in the table, for as long as this lives."""

    def __init__(self, layer):
        global _next
        _next += 1
        self.handle = torch.tensor(_next, device='cpu')
        self._keys = (_layers, _next), (_at, self.handle.data_ptr())
        for table, key in self._keys:
            table[key] = layer

    def __del__(self):
        for table, key in self._keys:
            table.pop(key, None)


def layer_at(handle):
    """The layer in a place; raises where there is none any more."""
    index = handle.item()
    layer = _layers.get(index)
    if layer is None:
        raise _lib.InvalidError(f'layer: {index}, no such layer in this process: its module is '
                                'gone, or the graph was made by another process')
    return layer


def is_plain(x):
    """Whether x is data of this process that no tracer, mode or transform looks at."""
    return type(x) is _Tensor and not _modes() and not torch._C._functorch.maybe_get_level(x) > 0


def _linear_cpu(x, layer, out_features):
    found = _at.get(layer.data_ptr())  # None for a copy of a handle
    return (found or layer_at(layer)).forward(x)


def _linear_act_cpu(x, layer, out_features, act):
    found = _at.get(layer.data_ptr()) or layer_at(layer)
    check_act(act)
    # A graph does not know its layers: one with an activation of its own keeps it.
    return found.forward(x, act) if found.act == 'none' else ACTS[act](found.forward(x))


def check_act(act):
    """Raises where linear_act does not take an activation."""
    if act not in ACTS:
        raise _lib.InvalidError(f'act: "{act}", expected one of {", ".join(ACTS)}')


def _linear_fake(x, layer, out_features):
    if x.dtype not in TORCH_DTYPES:
        raise _lib.InvalidError(f'x: {x.dtype}, expected float32, float16 or bfloat16')
    return x.new_empty((*x.shape[:-1], out_features))


def _linear_forward_fake(x, layer, out_features):
    # A compiler traces this before inductor begins.  Nobody else needs inductor, whose import takes
    # a second, and its settings may be of this thread alone.
    try:
        from . import fusion
    except ImportError:  # a torch without inductor, or with another one
        pass
    else:
        fusion.install()
    return _linear_fake(x, layer, out_features)


def _linear_act_fake(x, layer, out_features, act):
    check_act(act)
    return _linear_fake(x, layer, out_features)


def forward_mode():
    """Whether tensors may have tangents, which requires_grad says nothing about."""
    return forward_ad._current_level >= 0


def _weight_of(layer):
    """The weights, for gradients as if x had not been rounded (a straight-through estimator)."""
    found = layer_at(layer)
    if found.act != 'none':
        raise _lib.UnsupportedError(f'act={found.act}: no gradient goes through a fused '
                                    'activation; make the layer with act=none and apply it after')
    return found.dequantized()


def _gradient_cpu(dy, layer, in_features):
    return (dy.float() @ _weight_of(layer)).to(dy.dtype)


def _tangent_cpu(dx, layer, out_features):
    return (dx.float() @ _weight_of(layer).t()).to(dx.dtype)


def _product_fake(v, layer, features):
    return v.new_empty((*v.shape[:-1], features))


def _differentiable(operator):
    """The kernel on AutogradCPU of an operator of _ADJOINTS; its first argument has a gradient."""
    def below(v, layer, features):
        found = linear_forward if operator is linear and not _transforms() else operator
        with torch._C._AutoDispatchBelowAutograd():
            return found(v, layer, features)

    # Of one level: each level of torch.func's transforms comes here by itself.
    class Product(_SingleLevelFunction):
        """operator(v, layer, features), below autograd."""

        @staticmethod
        def forward(v, layer, features):
            if not _transforms():
                return below(v, layer, features)
            # The next level of torch.func's transforms wants its gradient too.
            with torch.enable_grad(), forward_ad._set_fwd_grad_enabled(True):
                return below(v, layer, features)

        @staticmethod
        def setup_context(ctx, inputs, output):
            v, ctx.layer, ctx.features = inputs
            ctx.given = v.shape[-1]

        @staticmethod
        def backward(ctx, gradient):
            return _ADJOINTS[operator](gradient, ctx.layer, ctx.given), None, None

        @staticmethod
        def jvp(ctx, tangent, layer, features):
            along = linear_tangent if operator is linear else operator
            return along(tangent, ctx.layer, ctx.features)

    def kernel(v, layer, features):
        # A compiler that runs this does not tell forward_ad of its levels: a transform may be jvp.
        if v.requires_grad and _grad_enabled() or forward_mode() or _transforms():
            if not _transforms():
                return Product.apply(v, layer, features)
            with enable_single_level_autograd_function():
                return Product.apply(v, layer, features)
        return below(v, layer, features)
    return kernel


_library = torch.library.Library('tilewright', 'DEF')
_library.define('linear(Tensor x, Tensor layer, SymInt out_features) -> Tensor')
_library.define('linear_forward(Tensor x, Tensor layer, SymInt out_features) -> Tensor')
_library.define('linear_act(Tensor x, Tensor layer, SymInt out_features, str act) -> Tensor')
_library.define('linear_input_gradient(Tensor dy, Tensor layer, SymInt in_features) -> Tensor')
_library.define('linear_tangent(Tensor dx, Tensor layer, SymInt out_features) -> Tensor')
_library.impl('linear', _linear_cpu, 'CPU')
_library.impl('linear_forward', _linear_cpu, 'CPU')
_library.impl('linear_act', _linear_act_cpu, 'CPU')
_library.impl('linear_input_gradient', _gradient_cpu, 'CPU')
_library.impl('linear_tangent', _tangent_cpu, 'CPU')
torch.library.register_fake('tilewright::linear', _linear_fake, lib=_library)
torch.library.register_fake('tilewright::linear_forward', _linear_forward_fake, lib=_library)
torch.library.register_fake('tilewright::linear_act', _linear_act_fake, lib=_library)
torch.library.register_fake('tilewright::linear_input_gradient', _product_fake, lib=_library)
torch.library.register_fake('tilewright::linear_tangent', _product_fake, lib=_library)
linear = torch.ops.tilewright.linear.default
linear_forward = torch.ops.tilewright.linear_forward.default
linear_act = torch.ops.tilewright.linear_act.default
linear_input_gradient = torch.ops.tilewright.linear_input_gradient.default
linear_tangent = torch.ops.tilewright.linear_tangent.default

# What takes a gradient of an operator's result to one of its argument.
_ADJOINTS = {linear: linear_input_gradient, linear_tangent: linear_input_gradient,
             linear_input_gradient: linear_tangent}
for _operator in _ADJOINTS:
    _library.impl(_operator.name(), _differentiable(_operator), 'AutogradCPU')


def _vmapped(operator):
    """One call for all of a batch: rows are rows."""
    def rule(info, in_dims, x, *others):
        return operator(x.movedim(in_dims[0], 0), *others), 0
    return rule


for _operator in (linear_forward, linear_act, *_ADJOINTS):
    torch.library.register_vmap(_operator.name(), _vmapped(_operator), lib=_library)


def _forget_threads():
    """After a fork: the contexts are new, so every layer is made again on its first use."""
    for layer in list(_layers.values()):
        layer.forget()


os.register_at_fork(after_in_child=_forget_threads)
