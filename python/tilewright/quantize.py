"""quantize_: torchao's calling convention over a model's torch.nn.Linear layers."""

import torch

from . import _lib, scheme as schemes, state, torchao_configs
from .module import QuantizedLinear
from .ops import TORCH_DTYPES, TorchLinear
from .report import Report, Row

# Modules of torch that read the weights of their linear layers themselves.
READERS = (torch.nn.MultiheadAttention, torch.nn.TransformerEncoderLayer)


def as_config(config):
    """A Config of a text, a Config, or a configuration of torchao."""
    if isinstance(config, schemes.Config):
        return config
    if isinstance(config, str):
        return schemes.Config(config)
    return torchao_configs.config_of(config)


def linears(model, filter_fn):
    """(name, module, reason to keep it or '') of each layer that the filter lets pass, and
    of each torch.nn.Linear that it does not."""
    readers = [module for module in model.modules() if isinstance(module, READERS)]
    read = {id(part) for reader in readers for part in reader.modules()}
    for name, module in list(model.named_modules(remove_duplicate=False)):
        wanted = filter_fn(module, name) if filter_fn else isinstance(module, torch.nn.Linear)
        if not isinstance(module, torch.nn.Linear):
            continue
        reason = ''
        if not wanted:
            reason = 'the filter said no'
        elif not name:
            reason = 'the model is itself the layer: there is nothing to replace it in'
        elif id(module) in read:
            reason = 'torch.nn.MultiheadAttention and TransformerEncoderLayer read their weights'
        yield name, module, reason


def replace(model, name, module):
    """Puts a module in the place that a dotted name says."""
    parent, _, last = name.rpartition('.')
    setattr(model.get_submodule(parent), last, module)


def _why_not(module):
    weight = module.weight
    if type(weight) not in (torch.nn.Parameter, torch.Tensor) or \
            type(weight.data) is not torch.Tensor:
        return f'its weight is a {type(weight.data).__name__} already: tilewright.convert_ takes it'
    if weight.dtype not in TORCH_DTYPES:
        return f'its weight is {weight.dtype}, expected float32, float16 or bfloat16'
    if weight.device.type != 'cpu':
        return f'its weight is on {weight.device}, expected the CPU'
    return ''


def _quantized(module, config):
    weight = module.weight.detach().contiguous()
    dtype = TORCH_DTYPES[weight.dtype]
    N, K = weight.shape
    bias = module.bias.detach().clone() if module.bias is not None else None
    layer = TorchLinear(N, K, config.scheme(dtype), config.act, config.act_scale, bias)
    layer.quantize(weight, config, dtype)
    return layer


def over_linears(model, filter_fn, layer_of):
    """Replaces what layer_of(module) makes a layer of; a sentence that it returns is a reason."""
    report, done = Report(), {}
    for name, module, reason in linears(model, filter_fn):
        N, K = module.out_features, module.in_features
        if id(module) not in done and not reason:
            try:
                made = layer_of(module)
            except _lib.TilewrightError as error:
                made = str(error)
            if isinstance(made, str):
                reason = made
            else:
                done[id(module)] = QuantizedLinear(made).train(module.training)
        if reason:
            report.rows.append(Row(name, 'kept', N, K, note=reason))
            continue
        new = done[id(module)]
        replace(model, name, new)
        report.rows.append(Row(name, 'quantized', N, K, new.scheme, schemes.short_last_group(
            new._layer.scheme, K)))
    return report


def quantize_(model, config, filter_fn=None, *, device=None):
    """Replaces the model's torch.nn.Linear layers by quantized ones, in place; returns a Report.

    config: a scheme ("w=i4,g=32,s=f16,a=i8"), a recipe ("int8_weight_only"), a Config, or one of
    torchao's configuration objects.  filter_fn(module, name): which layers; all torch.nn.Linear by
    default.  What cannot be quantized is kept, and the report says why.
    """
    if device is not None and torch.device(device).type != 'cpu':
        raise _lib.InvalidError(f'device: {device}, expected the CPU')
    config = as_config(config)
    config.scheme()  # a bad text is an error before anything is replaced
    return over_linears(model, filter_fn,
                        lambda module: _why_not(module) or _quantized(module, config))


def skeleton_(model, source, filter_fn=None):
    """As quantize_, but the layers get no weights: load_state_dict() does that.

    source: a configuration as quantize_ takes it, or a state_dict that quantized layers saved,
    which says itself which layers there are.  The model's own weights are never read, so that it
    may lie on the device "meta"; returns a Report.
    """
    if hasattr(source, 'keys'):
        found = {key[:-len('.scheme')]: value for key, value in source.items()
                 if key.endswith('.scheme')}
        names = {id(module): name for name, module in model.named_modules()}

        def layer_of(module):
            made = state.empty_layer(state.text_of(found[names[id(module)]]))
            shapes = [f'[{each.out_features},{each.in_features}]' for each in (made, module)]
            if shapes[0] != shapes[1]:
                return f'the state is of a layer {shapes[0]}, this one is {shapes[1]}'
            return made
        return over_linears(model, lambda module, name: name in found, layer_of)
    config = as_config(source)

    def empty(module):
        dtype = TORCH_DTYPES.get(module.weight.dtype, 'f32')
        bias = torch.zeros(module.out_features) if module.bias is not None else None
        return TorchLinear(module.out_features, module.in_features, config.scheme(dtype),
                           config.act, config.act_scale, bias)
    return over_linears(model, filter_fn, empty)


def prepare(model, rows, dtype=torch.float32, concurrent=1):
    """Prepares every quantized layer of a model for these numbers of rows of x; with
    tilewright.configure(mode='tune') beforehand this is where kernels are tuned."""
    for module in model.modules():
        if isinstance(module, QuantizedLinear):
            module.prepare(rows, dtype, concurrent)
