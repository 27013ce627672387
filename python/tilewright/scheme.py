"""Schemes and recipes as texts: what "w=i4,g=32,s=f16,a=i8" says, and a scheme as such a text."""

import ctypes
from dataclasses import dataclass

from . import _lib


@dataclass(frozen=True)
class Config:
    """How to quantize a layer.

    text: a scheme ("w=i4,g=32,s=f16,a=i8": min-max by the library's own rule), or a recipe of
    `tilewright list recipes` ("int8_weight_only", "int4_weight_only,g=32": torchao's arithmetic).
    act_scale: the one scale of x where the scheme's activations are static (a=i8s, e4m3s, nvfp4s).
    act: what the layer does to its result: none, relu, gelu, gelu_tanh, silu.
    """

    text: str
    act_scale: float = 0.0
    act: str = 'none'

    @property
    def is_scheme(self):
        """Whether the text is a scheme's fields, not a recipe's name."""
        return '=' in self.text.split(',', 1)[0]

    def scheme(self, dtype='f32'):
        """The tw_scheme of a layer of float weights of this dtype; raises where text is bad."""
        return parse(self.text) if self.is_scheme else recipe_scheme(self.text, dtype)


def parse(text):
    """The tw_scheme of a text."""
    scheme = _lib.Scheme()
    _lib.check(_lib.lib.tw_scheme_parse(text.encode(), ctypes.byref(scheme)))
    return scheme


def recipe_scheme(text, dtype):
    """The tw_scheme that a recipe gives float weights of this dtype."""
    scheme = _lib.Scheme()
    _lib.check(_lib.lib.tw_recipe_scheme(text.encode(), _lib.DTYPES[dtype], ctypes.byref(scheme)))
    return scheme


def _granularity(scheme):
    extents = scheme.group_n, scheme.group_k
    if extents in ((1, 0), (0, 0)):
        return 'channel' if extents[0] else 'tensor'
    return str(extents[1]) if extents[0] == 1 else f'{extents[0]}x{extents[1]}'


def text_of(scheme):
    """A scheme as the text that parses to it."""
    act = _lib.ACT_QUANTS[scheme.act_quant] + (f'g{scheme.act_group}' if scheme.act_group else '')
    weight = _lib.DTYPE_NAMES[scheme.weight]
    fpmath = f',fpmath={_lib.FPMATHS[scheme.fpmath]}' if scheme.fpmath else ''
    if not scheme.scale:
        return f'w={weight}{fpmath}'
    return (f'w={weight},g={_granularity(scheme)},s={_lib.DTYPE_NAMES[scheme.scale]},'
            f'z={_lib.ZERO_MODES[scheme.zero_mode]},a={act}{fpmath}')


def short_last_group(scheme, columns):
    """A sentence about the last group of a row, or '' where all groups are whole."""
    group = scheme.group_k
    left = columns % group if group else 0
    return f'the last group has {left} of {group} columns' if left else ''
