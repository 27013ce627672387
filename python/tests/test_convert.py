"""convert_: what torchao has quantized keeps its codes, scales and zeros in every bit."""

import pytest
import torch
from torch import nn

import tilewright
from tilewright.convert import pack_bits

quantization = pytest.importorskip('torchao.quantization')
group = quantization.PerGroup(32)
asymmetric = quantization.MappingType.ASYMMETRIC


def unpacked(codes, bits, columns, signed):
    """Canonical codes as whole numbers, by their definition: lowest bits first."""
    stream = (codes.unsqueeze(-1) >> torch.arange(8)) & 1
    stream = stream.flatten(1)[:, :columns * bits].reshape(codes.shape[0], columns, bits)
    value = (stream.to(torch.int32) * (1 << torch.arange(bits))).sum(-1)
    return torch.where(value >= 1 << (bits - 1), value - (1 << bits), value) if signed else value


CASES = {
    'int8 dynamic': (quantization.Int8DynamicActivationInt8WeightConfig(), 8),
    'int8 weight-only': (quantization.Int8WeightOnlyConfig(), 8),
    'int4 dynamic': (quantization.Int8DynamicActivationIntxWeightConfig(
        weight_dtype=torch.int4, weight_granularity=group), 4),
    'int3 weight-only': (quantization.IntxWeightOnlyConfig(
        weight_dtype=torch.int3, granularity=group), 3),
    'int6 asymmetric': (quantization.IntxWeightOnlyConfig(
        weight_dtype=torch.int6, granularity=group, mapping_type=asymmetric), 6),
}


@pytest.mark.parametrize('name', CASES)
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_same_codes(name, dtype):
    config, bits = CASES[name]
    model = nn.Sequential(nn.Linear(96, 64)).to(dtype)
    quantization.quantize_(model, config)
    theirs = model[0].weight
    qdata, scale = theirs.qdata.clone(), theirs.scale.clone()
    zero, floats = theirs.zero_point.clone().to(torch.int32), theirs.dequantize().float()
    x = torch.randn(5, 96).to(dtype)
    with torch.no_grad():
        want = model(x)
    report = tilewright.convert_(model)
    assert len(report.quantized) == 1, report
    state = model.state_dict()
    middle = (1 << (bits - 1)) if '0.zeros' in state else 0
    assert ('0.zeros' in state) == (name == 'int6 asymmetric')
    codes = unpacked(state['0.weight'].view(torch.uint8), bits, 96, signed=not middle)
    assert torch.equal(codes, qdata.to(torch.int32) + middle)
    assert torch.equal(state['0.scales'].flatten(), scale.flatten())
    if middle:
        assert torch.equal(state['0.zeros'].to(torch.int32) - middle, zero)
    # torchao rounds the product to the weights' dtype, the library defines it in f32.
    steps = 0 if dtype == torch.float32 else 2 ** -8
    assert ((model[0].dequantize() - floats).abs() <= steps * floats.abs()).all()
    with torch.no_grad():
        error = (model(x).float() - want.float()).norm() / want.float().norm()
    assert error < (1e-6 if dtype == torch.float32 else 1e-2)


@pytest.mark.parametrize('K', [96, 384, 1536])
@pytest.mark.parametrize('rows', [1, 5, 130])
def test_int8_dynamic_equals_torchaos(K, rows):
    """In every bit of y: integer sums are exact, and the two scales are applied in its order."""
    model = nn.Sequential(nn.Linear(K, 80))
    quantization.quantize_(model, quantization.Int8DynamicActivationInt8WeightConfig())
    x = torch.randn(rows, K)
    with torch.no_grad():
        want = model(x)
        tilewright.convert_(model)
        assert torch.equal(model(x), want)


def test_float8():
    model = nn.Sequential(nn.Linear(64, 48))
    quantization.quantize_(model, quantization.Float8WeightOnlyConfig())
    qdata, scale = model[0].weight.qdata.clone(), model[0].weight.scale.clone()
    assert tilewright.convert_(model).rows[0].scheme == 'w=e4m3,g=channel,s=f32,z=none,a=none'
    state = model.state_dict()
    assert state['0.weight'].dtype == torch.float8_e4m3fn
    assert torch.equal(state['0.weight'].view(torch.uint8), qdata.view(torch.uint8))
    assert torch.equal(state['0.scales'], scale)


def test_int4_tensor():
    """Scales and zeros are [K / g, N] there; w = code * scale + zero."""
    from torchao.quantization.quantize_.workflows import Int4Tensor
    codes = torch.randint(-8, 8, (48, 64), dtype=torch.int8)
    packed = ((codes[:, 1::2] << 4) | (codes[:, ::2] & 15)).to(torch.int8)
    scale, zero = torch.rand(2, 48).bfloat16() + 0.5, torch.randn(2, 48).bfloat16()
    model = nn.Sequential(nn.Linear(64, 48, bias=False).bfloat16())
    model[0].weight = nn.Parameter(Int4Tensor(packed, scale, zero, [1, 32], torch.Size([48, 64])),
                                   requires_grad=False)
    report = tilewright.convert_(model)
    assert report.rows[0].scheme == 'w=i4,g=32,s=bf16,z=value,a=none', report
    want = (codes.float() * scale.float().t().repeat_interleave(32, 1)
            + zero.float().t().repeat_interleave(32, 1))
    assert torch.equal(model[0].dequantize(), want)


def test_what_is_not_torchaos_is_kept():
    model = nn.Sequential(nn.Linear(8, 8))
    report = tilewright.convert_(model)
    assert 'expected torchao\'s' in report.kept[0].note and type(model[0]) is nn.Linear


def test_quantize_says_who_takes_torchaos():
    model = nn.Sequential(nn.Linear(32, 32))
    quantization.quantize_(model, quantization.Int8WeightOnlyConfig())
    assert 'convert_ takes it' in tilewright.quantize_(model, 'w=i8').kept[0].note


def test_packing():
    codes = torch.tensor([[1, -2, 3, -4, 0]], dtype=torch.int8)
    assert pack_bits(codes, 3).tolist() == [[1 | 6 << 3 | (3 << 6 & 255), 3 >> 2 | 4 << 1]]
    assert torch.equal(unpacked(pack_bits(codes, 3), 3, 5, True), codes.to(torch.int32))
