"""Tilewright for Python: quantized linear layers, generated and tuned for the machine they run on.

Importing this needs neither torch nor numpy; what works on torch modules loads torch when it is
first named.
"""

from ._dlpack import Array
from ._lib import InvalidError, OutOfMemoryError, TilewrightError, UnsupportedError
from .context import Context, configure
from .linear import Linear
from .scheme import Config

__version__ = '0.1.0'
_LAZY = {'QuantizedLinear': 'module', 'quantize_': 'quantize', 'convert_': 'convert',
         'skeleton_': 'quantize', 'prepare': 'quantize', 'Report': 'report'}
__all__ = ['Array', 'Config', 'Context', 'InvalidError', 'Linear', 'OutOfMemoryError',
           'TilewrightError', 'UnsupportedError', 'configure', *_LAZY]


def __getattr__(name):
    if name not in _LAZY:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    from importlib import import_module
    return getattr(import_module('.' + _LAZY[name], __name__), name)


def __dir__():
    return sorted(set(globals()) | set(__all__))
