"""convert_: layers that torchao has quantized become ours with the same codes, scales and zeros.

What each of torchao's tensors holds, in release 0.18.0, stands in docs/numerics.md, "Quantized
checkpoints"; the classes are told by name, so that torchao need not be importable here.
"""

import torch

from . import _lib, scheme as schemes
from .ops import TorchLinear
from .quantize import over_linears

FLOATS = {torch.float32: 'f32', torch.float16: 'f16', torch.bfloat16: 'bf16'}


def pack_bits(codes, bits):
    """Whole codes [N,K] (their low bits count) -> uint8 [N, ceil(K * bits / 8)], lowest first."""
    if bits == 8:
        return codes.contiguous().view(torch.uint8)
    N, K = codes.shape
    stream = (codes.to(torch.int32).unsqueeze(-1) >> torch.arange(bits)) & 1
    stream = torch.nn.functional.pad(stream.reshape(N, K * bits), (0, -K * bits % 8))
    weights = 1 << torch.arange(8, dtype=torch.int32)
    return (stream.view(N, -1, 8) * weights).sum(-1).to(torch.uint8)


def _group_text(block, N, K):
    """Granularity of blocks [n,k] of an [N,K] matrix."""
    n, k = block
    if n == 1:
        return 'channel' if k == K else str(k)
    return 'tensor' if (n, k) == (N, K) else f'{n}x{k}'


def _unsupported(text):
    raise _lib.UnsupportedError(text)


def _integers(codes, zero_point, bits):
    """(dtype, codes, zeros or None): signed where every zero is 0, else unsigned with u8 zeros, as
    many bits wider as a zero needs."""
    if zero_point is None or not zero_point.any():
        return f'i{bits}', pack_bits(codes, bits), None
    if zero_point.is_floating_point() and (zero_point != zero_point.round()).any():
        _unsupported('zero_point: expected whole numbers')
    middle = 1 << (bits - 1)
    zeros = zero_point.to(torch.int32) + middle
    if zeros.min() < 0 or zeros.max() > 255:
        _unsupported('zero_point: expected whole numbers of 8 bits')
    unsigned = codes.to(torch.int32) + middle
    return f'u{bits}', pack_bits(unsigned.to(torch.uint8), bits), zeros.to(torch.uint8)


def _of_int8(weight):
    """(w, g, a, codes, scales, zeros, act_scale) of an Int8Tensor."""
    act, act_scale = 'none', 0.0
    if weight.act_quant_scale is not None:
        if weight.act_quant_scale.numel() != 1 or (weight.act_quant_zero_point is not None
                                                   and weight.act_quant_zero_point.any()):
            _unsupported('act_quant_scale: expected one, without a zero point')
        act, act_scale = 'i8s', weight.act_quant_scale.item()
    elif weight.act_quant_kwargs is not None:
        kwargs = weight.act_quant_kwargs
        if type(kwargs.granularity).__name__ != 'PerRow' or getattr(kwargs, 'reduce_range', False):
            _unsupported('act_quant_kwargs: expected all codes, and a scale a token')
        act = 'i8full' if kwargs.mapping_type.name == 'SYMMETRIC' else 'i8z'
    dtype, codes, zeros = _integers(weight.qdata, weight.zero_point, 8)
    return dtype, act, codes, weight.scale, zeros, act_scale


def _of_intx(weight):
    """The same of an IntxUnpackedToInt8Tensor, a code a byte."""
    bits = int(str(weight.target_dtype).rsplit('int', 1)[-1])
    act = weight.activation_quantization
    if act not in (None, 'int8_asym_per_token'):
        _unsupported(f'activation_quantization: {act}, expected int8_asym_per_token')
    dtype, codes, zeros = _integers(weight.qdata, weight.zero_point, bits)
    return dtype, 'i8z' if act else 'none', codes, weight.scale, zeros, 0.0


def _of_int4(weight):
    """The same of an Int4Tensor: two codes a byte, scales and zeros [K / g, N]."""
    if getattr(weight, 'activation_dtype', torch.bfloat16) != torch.bfloat16:
        _unsupported(f'activation_dtype: {weight.activation_dtype}, expected bfloat16')
    zeros = weight.zero_point.t().contiguous() if weight.zero_point.any() else None
    return 'i4', 'none', weight.qdata.view(torch.uint8), weight.scale.t(), zeros, 0.0


def _of_float8(weight):
    """The same of a Float8Tensor."""
    dtypes = {torch.float8_e4m3fn: 'e4m3', torch.float8_e5m2: 'e5m2'}
    act = 'none'
    if weight.act_quant_kwargs is not None:
        if type(weight.act_quant_kwargs.granularity).__name__ != 'PerRow':
            _unsupported('act_quant_kwargs: expected a scale a token')
        act = 'e4m3'
    return dtypes[weight.qdata.dtype], act, weight.qdata.view(torch.uint8), weight.scale, None, 0.0


READERS = {'Int8Tensor': _of_int8, 'IntxUnpackedToInt8Tensor': _of_intx, 'Int4Tensor': _of_int4,
           'Float8Tensor': _of_float8}


def _converted(module):
    """A layer with torchao's own codes, or a sentence that says why not."""
    weight = module.weight.data
    kind = type(weight).__name__
    if kind not in READERS:
        return f'its weight is a {kind}, expected torchao\'s {", ".join(READERS)}'
    pre = getattr(weight, 'act_pre_scale', None)
    if pre is not None and (pre != 1).any():
        return 'act_pre_scale: expected none, or 1'
    N, K = weight.shape
    dtype, act, codes, scales, zeros, act_scale = READERS[kind](weight)
    block = getattr(weight, 'block_size', None) or (N // scales.shape[0], K // scales.shape[1])
    mode = 'none' if zeros is None else 'code' if zeros.dtype == torch.uint8 else 'value'
    scheme = schemes.parse(f'w={dtype},g={_group_text(tuple(block), N, K)},'
                           f's={FLOATS[scales.dtype]},z={mode},a={act}')
    groups = -(-N // (scheme.group_n or N)), -(-K // (scheme.group_k or K))
    bias = module.bias.detach().clone() if module.bias is not None else None
    layer = TorchLinear(N, K, scheme, act_scale=act_scale, bias=bias)
    # i8 and u8 by their own names: where a row's bytes are its codes, the dtype must be the
    # scheme's.
    codes = codes.view(torch.int8) if dtype == 'i8' else codes
    layer.set_weights(codes, scales.reshape(groups).contiguous(),
                      zeros.reshape(groups) if zeros is not None else None,
                      x=FLOATS.get(weight.dtype, 'f32'))
    return layer


def convert_(model, filter_fn=None):
    """Replaces the model's torch.nn.Linear layers whose weights torchao has quantized, in place,
    without quantizing anew; returns a Report.  All others are kept, with a reason."""
    return over_linears(model, filter_fn, _converted)
