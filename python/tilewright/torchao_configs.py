"""torchao's configuration objects as recipes, by class name: torchao need not be installed.

Fields as torchao 0.18.0 has them; what a recipe cannot say is refused by name.
"""

from . import _lib
from .scheme import Config


def _name(value):
    """The word of an enum's member, or of a torch dtype."""
    return str(getattr(value, 'name', value)).rsplit('.', 1)[-1].lower()


def _code(dtype):
    """torch.int4 -> i4, torch.float8_e4m3fn -> e4m3."""
    name = _name(dtype)
    known = {'float8_e4m3fn': 'e4m3', 'float8_e5m2': 'e5m2'}
    if name.startswith('int'):
        return 'i' + name[3:]
    if name.startswith('uint'):
        return 'u' + name[4:]
    if name not in known:
        raise _lib.UnsupportedError(f'weight_dtype: {dtype}, expected an integer or 8-bit float')
    return known[name]


def _float(dtype):
    return {'float32': 'f32', 'float16': 'f16', 'bfloat16': 'bf16'}[_name(dtype)]


def _group(granularity, field='granularity'):
    """PerGroup(32) -> 32, PerRow() and PerAxis(0) -> channel, PerTensor() -> tensor."""
    kind = type(granularity).__name__
    if kind == 'PerGroup':
        return str(granularity.group_size)
    if kind == 'PerRow' or kind == 'PerAxis' and granularity.axis == 0:
        return 'channel'
    if kind == 'PerTensor':
        return 'tensor'
    raise _lib.UnsupportedError(f'{field}: {granularity!r}, expected PerGroup, PerRow, PerAxis(0) '
                                'or PerTensor')


def _pair(granularity):
    """(of x, of the weights), which may be given as one."""
    return granularity if isinstance(granularity, (list, tuple)) else (granularity, granularity)


def _refuse(config, field, value, *allowed):
    if value not in allowed:
        raise _lib.UnsupportedError(f'{type(config).__name__}: {field}={value}, expected '
                                    f'{" or ".join(map(str, allowed))}')


def _int8_weight_only(config):
    group = config.group_size
    return f'int8_weight_only,g={group if group else _group(config.granularity)}'


def _int8_dynamic(config):
    _refuse(config, 'reduce_range', getattr(config, 'reduce_range', False), False)
    of_x, of_weights = _pair(config.granularity)
    _refuse(config, 'granularity of x', _group(of_x), 'channel')
    act = 'i8full' if _name(config.act_mapping_type) == 'symmetric' else 'i8z'
    return f'int8_dynamic_activation_int8_weight,g={_group(of_weights)},a={act}'


def _intx_tail(dtype, granularity, mapping, scale):
    text = f',w={_code(dtype)},g={_group(granularity)},mapping={_name(mapping)}'
    return text + (f',s={_float(scale)}' if scale is not None else '')


def _intx_weight_only(config):
    _refuse(config, 'intx_choose_qparams_algorithm',
            _name(config.intx_choose_qparams_algorithm), 'affine')
    return 'intx_weight_only' + _intx_tail(config.weight_dtype, config.granularity,
                                           config.mapping_type, config.scale_dtype)


def _intx_dynamic(config):
    _refuse(config, 'act_mapping_type', _name(config.act_mapping_type), 'asymmetric')
    return 'int8_dynamic_activation_intx_weight' + _intx_tail(
        config.weight_dtype, config.weight_granularity, config.weight_mapping_type,
        config.weight_scale_dtype)


def _int4_weight_only(config):
    way = _name(config.int4_choose_qparams_algorithm)
    return f'int4_weight_only{"_hqq" if way == "hqq" else ""},g={config.group_size}'


def _int8_int4(config):
    return f'int8_dynamic_activation_int4_weight,g={config.group_size}'


def _float8_weight_only(config):
    group = _group(getattr(config, 'granularity', None) or type('PerRow', (), {})())
    return f'float8_weight_only,w={_code(config.weight_dtype)},g={group}'


def _float8_dynamic(config):
    of_x, of_weights = _pair(config.granularity)
    _refuse(config, 'granularity of x', _group(of_x), 'channel')
    return (f'float8_dynamic_activation_float8_weight,w={_code(config.weight_dtype)},'
            f'g={_group(of_weights)}')


KNOWN = {
    'Int8WeightOnlyConfig': _int8_weight_only,
    'Int8DynamicActivationInt8WeightConfig': _int8_dynamic,
    'IntxWeightOnlyConfig': _intx_weight_only,
    'Int8DynamicActivationIntxWeightConfig': _intx_dynamic,
    'Int4WeightOnlyConfig': _int4_weight_only,
    'Int8DynamicActivationInt4WeightConfig': _int8_int4,
    'Float8WeightOnlyConfig': _float8_weight_only,
    'Float8DynamicActivationFloat8WeightConfig': _float8_dynamic,
}


def config_of(config):
    """The Config that a torchao configuration stands for."""
    name = type(config).__name__
    if name not in KNOWN:
        raise _lib.InvalidError(f'config: a {name}, expected a text, a tilewright.Config, or '
                                f'torchao\'s {", ".join(KNOWN)}')
    return Config(KNOWN[name](config))
