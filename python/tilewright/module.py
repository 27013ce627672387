"""QuantizedLinear: what takes the place of torch.nn.Linear."""

import torch

from . import _lib, ops, state

_is_compiling = torch.compiler.is_compiling
_is_autocast, _autocast_dtype = torch.is_autocast_enabled, torch.get_autocast_dtype
_grad_enabled, _plain = torch.is_grad_enabled, ops.is_plain
_transforms = ops._transforms


class QuantizedLinear(torch.nn.Module):
    """y = act(x w^T + bias) with quantized weights, of x in float32, float16 or bfloat16.

    The weights lie packed in the library; state_dict() unpacks them into canonical tensors, and
    load_state_dict() packs them again.  There are no parameters: a gradient goes to x alone.
    torch.compile fuses an activation that follows into the layer (fusion.py).
    """

    def __init__(self, layer):
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self._layer, self._slot = layer, ops.Slot(layer)
        self._handle = self._slot.handle

    def forward(self, x):
        if _is_autocast('cpu'):
            x = x.to(_autocast_dtype('cpu'))
        # What a compiler or a transform sees is an operator; everything else is a plain call.
        # A tensor of an outer transform need not show what an inner one wants of it.
        if x.requires_grad and _grad_enabled() or _transforms() or ops.forward_mode():
            return ops.linear(x, self._handle, self.out_features)
        if _is_compiling() or not _plain(x):
            return ops.linear_forward(x, self._handle, self.out_features)
        return self._layer.forward(x)

    @property
    def scheme(self):
        """The scheme as a text, as `tilewright list schemes` has them."""
        return state.scheme_text(self._layer)

    def prepare(self, rows, dtype=torch.float32, concurrent=1):
        """Makes everything ready for these numbers of rows; tunes in the tuning modes.  An
        activation that torch.compile fuses later is made ready on its first call."""
        self._layer.context = ops.torch_context()
        self._layer.prepare(rows, ops.TORCH_DTYPES[dtype], concurrent)

    def plan(self, rows, dtype=torch.float32):
        """What runs for so many rows: a dict of kernel, config, origin."""
        return self._layer.in_use(ops.TORCH_DTYPES[dtype])[0].plan(rows)

    def dequantize(self):
        """The weights [N,K] in float32."""
        return self._layer.dequantized()

    def extra_repr(self):
        act = '' if self._layer.act == 'none' else f', act={self._layer.act}'
        empty = '' if self._layer.natives else ', no weights yet'
        return (f'in_features={self.in_features}, out_features={self.out_features}, '
                f'bias={self._layer.bias is not None}, {self.scheme}{act}{empty}')

    # ---- copies and files ----

    def __deepcopy__(self, memo):
        """A module of its own.  The packed weights, which nothing changes, are shared."""
        twin = QuantizedLinear(self._layer.twin())
        memo[id(self)] = twin
        twin.training = self.training
        return twin

    def __copy__(self):
        return self.__deepcopy__({})

    def __reduce_ex__(self, protocol):
        raise _lib.UnsupportedError(
            'a QuantizedLinear is not pickled, as its weights lie packed for this machine: save '
            'model.state_dict() with safetensors, and load it into tilewright.skeleton_(model, '
            'state_dict)')

    def _save_to_state_dict(self, destination, prefix, keep_vars):
        if self._layer.natives:
            for name, tensor in state.tensors(self._layer).items():
                destination[prefix + name] = tensor

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, strict, missing_keys,
                              unexpected_keys, error_msgs):
        given = {key[len(prefix):]: value for key, value in state_dict.items()
                 if key.startswith(prefix)}
        names = state.expected(self._layer)
        missing_keys += [prefix + name for name in names if name not in given]
        if strict:
            unexpected_keys += [prefix + name for name in given if name not in names]
        if not all(name in given for name in names):
            return
        try:
            state.load(self._layer, given)
        except _lib.TilewrightError as error:
            error_msgs.append(f'{prefix[:-1]}: {error}')
