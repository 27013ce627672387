"""quantize_: its report, filters, what it keeps; torchao's configurations by their objects."""

import pytest
import torch
from torch import nn

import tilewright
from conftest import close


def test_report(model):
    model.add_module('3', nn.Linear(48, 8).double())
    report = tilewright.quantize_(model, 'w=i4,g=32,s=f16,a=i8')
    assert [(row.name, row.outcome) for row in report.rows] == [
        ('0', 'quantized'), ('2', 'quantized'), ('3', 'kept')]
    assert [row.name for row in report.short_last_group] == ['0']
    assert report.rows[0].note == 'the last group has 4 of 32 columns'
    assert 'float64' in report.kept[0].note
    text = str(report)
    assert 'short last group' in text and 'w=i4,g=32,s=f16,z=none,a=i8' in text
    assert text.endswith('2 of 3 linear layers quantized (1 with a short last group)')
    assert isinstance(model[0], tilewright.QuantizedLinear) and type(model[3]) is nn.Linear


def test_filter(model):
    report = tilewright.quantize_(model, 'w=i8', lambda module, name: name == '2')
    assert [row.note for row in report.kept] == ['the filter said no']
    assert type(model[0]) is nn.Linear and isinstance(model[2], tilewright.QuantizedLinear)


def test_what_the_library_refuses_is_kept(model):
    model[0].weight.data[3, 4] = float('nan')
    report = tilewright.quantize_(model, 'w=i8')
    assert [row.name for row in report.kept] == ['0'] and '[3,4]' in report.kept[0].note


def test_bad_configurations_replace_nothing(model):
    for config, sentence in (('w=i4,q=3', '"q": unknown field'), ('int9_weight_only', 'int9'),
                             (object(), 'config: a object')):
        with pytest.raises(tilewright.InvalidError, match=sentence):
            tilewright.quantize_(model, config)
    with pytest.raises(tilewright.InvalidError, match='device: cuda'):
        tilewright.quantize_(model, 'w=i8', device='cuda')
    assert type(model[0]) is nn.Linear


def test_shared_modules_stay_shared():
    shared = nn.Linear(32, 32)
    model = nn.Sequential(shared, nn.ReLU(), shared)
    report = tilewright.quantize_(model, 'w=i8')
    assert len(report.quantized) == 2 and model[0] is model[2]


def test_attention_that_reads_its_weights_is_kept():
    model = nn.ModuleDict({'attention': nn.MultiheadAttention(32, 2), 'up': nn.Linear(32, 64)})
    report = tilewright.quantize_(model, 'w=i8')
    assert [row.name for row in report.quantized] == ['up']
    assert 'MultiheadAttention' in report.kept[0].note
    x = torch.randn(3, 1, 32)
    model['attention'](x, x, x)


def test_a_bare_layer_is_kept():
    report = tilewright.quantize_(nn.Linear(32, 32), 'w=i8')
    assert 'nothing to replace it in' in report.kept[0].note


def test_training_mode_is_kept(model):
    model.train()
    model[2].eval()
    tilewright.quantize_(model, 'w=i8')
    assert model[0].training and not model[2].training


def test_bf16_model(model):
    want = model(torch.ones(2, 100))
    model.bfloat16()
    report = tilewright.quantize_(model, 'int8_weight_only')
    assert len(report.quantized) == 2
    y = model(torch.ones(2, 100).bfloat16())
    assert y.dtype == torch.bfloat16 and (y.float() - want).abs().max() < 0.05


def test_prepare_and_plan(model):
    tilewright.quantize_(model, 'w=i8,a=i8')
    tilewright.prepare(model, [1, 16])
    assert model[0].plan(16)['kernel'].startswith('cpu.')
    with pytest.raises(tilewright.InvalidError):
        tilewright.prepare(model, [0])


def test_configure():
    """Settings hold for layers made from then on; what is wrong with them is said at once."""
    try:
        tilewright.configure(mode='reference')
        model = nn.Sequential(nn.Linear(32, 16))
        tilewright.quantize_(model, 'w=i8')
        assert model[0].plan(4)['kernel'] == 'reference'
        with pytest.raises(tilewright.InvalidError, match='mode: "fast"'):
            tilewright.configure(mode='fast')
    finally:
        tilewright.configure()


# ---- torchao's objects ----

def configs():
    quantization = pytest.importorskip('torchao.quantization')
    group = quantization.PerGroup(32)
    return {
        'w=i8,g=channel,s=f32,z=none,a=none': quantization.Int8WeightOnlyConfig(),
        'w=i8,g=channel,s=f32,z=none,a=i8full':
            quantization.Int8DynamicActivationInt8WeightConfig(),
        'w=i4,g=32,s=f32,z=none,a=i8z': quantization.Int8DynamicActivationIntxWeightConfig(
            weight_dtype=torch.int4, weight_granularity=group),
        'w=i3,g=32,s=f32,z=none,a=none': quantization.IntxWeightOnlyConfig(
            weight_dtype=torch.int3, granularity=group),
        'w=i4,g=32,s=f32,z=value,a=none': quantization.Int4WeightOnlyConfig(group_size=32),
        'w=e4m3,g=channel,s=f32,z=none,a=none': quantization.Float8WeightOnlyConfig(),
    }


def test_torchao_configurations():
    for scheme, config in configs().items():
        model = nn.Sequential(nn.Linear(64, 48))
        report = tilewright.quantize_(model, config)
        got = report.rows[0].scheme
        # Which way torchao's int4 packs its zeros differs by kernel: the library's is its own.
        assert got == scheme or (scheme.startswith('w=i4') and 'a=none' in scheme), (got, config)


def test_torchao_configurations_that_no_recipe_says():
    quantization = pytest.importorskip('torchao.quantization')
    with pytest.raises(tilewright.UnsupportedError, match='reduce_range=True, expected False'):
        tilewright.quantize_(nn.Sequential(nn.Linear(8, 8)),
                             quantization.Int8DynamicActivationInt8WeightConfig(reduce_range=True))


def test_weights_equal_torchaos(model):
    """The same floats by the same configuration: the same dequantized weights, in every bit."""
    quantization = pytest.importorskip('torchao.quantization')
    config = quantization.Int8DynamicActivationInt8WeightConfig()
    theirs = nn.Sequential(nn.Linear(100, 64))
    ours = nn.Sequential(nn.Linear(100, 64))
    ours.load_state_dict(theirs.state_dict())
    quantization.quantize_(theirs, config)
    tilewright.quantize_(ours, config)
    assert torch.equal(ours[0].dequantize(), theirs[0].weight.dequantize())
    x = torch.randn(4, 100)
    with torch.no_grad():
        close(ours(x), theirs(x))
