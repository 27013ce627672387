"""A layer as tensors that safetensors can hold, and back: canonical, so they fit every machine.

    weight   the codes: a tensor of their dtype, or uint8 [N, bytes of a row] where several share a
             byte (lowest bits first, rows start at a byte)
    scales, zeros, bias, lut     where the layer has them
    scheme   the text that describes the layer, as uint8
"""

import torch

from . import _lib, scheme as schemes
from .ops import TorchLinear

# Dtypes that torch has; all others pass as the bytes that they are.
TORCH = {'f32': torch.float32, 'f16': torch.float16, 'bf16': torch.bfloat16, 'i8': torch.int8,
         'u8': torch.uint8, 'e4m3': torch.float8_e4m3fn, 'e5m2': torch.float8_e5m2}
PASSED = {torch.float8_e4m3fn, torch.float8_e5m2}  # as bytes, which DLPack's producers can say


def scheme_text(layer):
    """The layer's scheme as a text."""
    return schemes.text_of(layer.scheme)


def description(layer):
    """All that a layer is beside its tensors, as a text."""
    scale = f',act_scale={layer.act_scale!r}' if layer.act_scale else ''
    bias = 'none' if layer.bias is None else 'given'
    return (f'N={layer.out_features},K={layer.in_features},{scheme_text(layer)},bias={bias},'
            f'act={layer.act}{scale}')


def _as_torch(memory, dtype, shape):
    tensor = torch.from_dlpack(memory)
    return tensor.view(TORCH[dtype]).view(shape) if dtype in TORCH else tensor


def tensors(layer):
    """{name: tensor} of a layer that has weights."""
    found = {name: _as_torch(*tensor) for name, tensor in layer.weights().items()}
    lut = layer.any_native().lut()
    if lut is not None:
        found['lut'] = torch.tensor(lut)
    if layer.bias is not None:
        found['bias'] = layer.bias.clone()
    found['scheme'] = torch.tensor(list(description(layer).encode()), dtype=torch.uint8)
    return found


def expected(layer):
    """The names of the tensors that a layer has."""
    names = ['weight', 'scheme']
    if layer.scheme.scale:
        names.append('scales')
    if layer.scheme.zero_mode:
        names.append('zeros')
    if layer.scheme.weight == _lib.DTYPES['lut4']:
        names.append('lut')
    if layer.bias is not None:
        names.append('bias')
    return names


def as_canonical(tensor):
    """A tensor as something that the library reads: contiguous, on the CPU, of a dtype or bytes."""
    tensor = tensor.detach().cpu().contiguous()
    return tensor.view(torch.uint8) if tensor.dtype in PASSED else tensor


def text_of(tensor):
    """The description that a state's `scheme` tensor holds."""
    if tensor.dtype != torch.uint8 or tensor.dim() != 1:
        raise _lib.InvalidError(f'scheme: {tensor.dtype} {list(tensor.shape)}, expected uint8 '
                                '[length]')
    return bytes(tensor.tolist()).decode(errors='replace')


def load(layer, given):
    """Gives a layer the weights of a state; raises where it is of another kind."""
    text = text_of(given['scheme'])
    if text != description(layer):
        raise _lib.InvalidError(f'scheme: the state is of a layer {text}, this one is '
                                f'{description(layer)}')
    loaded = empty_layer(text)
    if 'bias' in given:
        loaded.bias = as_canonical(given['bias'])
    lut = given['lut'].tolist() if 'lut' in given else None
    parts = [as_canonical(given[name]) if name in given else None
             for name in ('weight', 'scales', 'zeros')]
    loaded.set_weights(*parts, lut=lut)
    # Only now: a state that is refused leaves the layer as it was.
    layer.natives, layer.bias, layer.context = loaded.natives, loaded.bias, loaded.context
    layer.forget()


def empty_layer(text):
    """A layer without weights from a description."""
    try:
        fields = dict(part.split('=', 1) for part in text.split(','))
        N, K = int(fields.pop('N')), int(fields.pop('K'))
        bias, act = fields.pop('bias'), fields.pop('act')
        act_scale = float(fields.pop('act_scale', 0))
        if min(N, K) < 1:
            raise ValueError(f'N={N},K={K}')
    except (KeyError, ValueError) as error:
        raise _lib.InvalidError(f'scheme: "{text}" describes no layer ({error})') from None
    scheme = schemes.parse(','.join(f'{name}={value}' for name, value in fields.items()))
    placeholder = torch.zeros(N) if bias != 'none' else None
    return TorchLinear(N, K, scheme, act, act_scale, placeholder)
