"""state_dict through safetensors, skeletons, copies; pickling is refused."""

import copy
import io
import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import tilewright

CONFIGS = ('w=i8,a=i8', 'w=i4,g=32,s=f16,a=i8', 'w=u4,g=32,s=bf16,z=value', 'w=u5,g=16,z=code',
           'w=e4m3', 'w=f16', 'nf4_weight_only', 'mx_weight_only,w=e2m1')


def quantized(config, K=96):
    model = nn.Sequential(nn.Linear(K, 64), nn.GELU(), nn.Linear(64, 48, bias=False))
    assert not tilewright.quantize_(model, config).kept
    return model


@pytest.mark.parametrize('config', CONFIGS)
def test_safetensors_and_back(config, tmp_path):
    model = quantized(config)
    save_file(model.state_dict(), tmp_path / 'model.safetensors')
    state = load_file(tmp_path / 'model.safetensors')
    with torch.device('meta'):
        fresh = nn.Sequential(nn.Linear(96, 64), nn.GELU(), nn.Linear(64, 48, bias=False))
    report = tilewright.skeleton_(fresh, state)
    assert [row.name for row in report.quantized] == ['0', '2']
    assert fresh.load_state_dict(state).missing_keys == []
    x = torch.randn(5, 96)
    with torch.no_grad():
        assert torch.equal(fresh(x), model(x))
    again = fresh.state_dict()
    assert again.keys() == state.keys()
    assert all(torch.equal(again[name].view(torch.uint8), state[name].view(torch.uint8))
               for name in state)


def test_static_scale_and_activation_are_kept(tmp_path):
    model = nn.Sequential(nn.Linear(64, 48))
    tilewright.quantize_(model, tilewright.Config('w=i8,a=i8s', act_scale=0.03, act='relu'))
    state = model.state_dict()
    fresh = nn.Sequential(nn.Linear(64, 48))
    tilewright.skeleton_(fresh, state)
    fresh.load_state_dict(state)
    x = torch.randn(3, 64)
    assert torch.equal(fresh(x), model(x))
    assert 'act=relu' in repr(fresh)


def test_canonical_tensors_are_what_they_say():
    model = quantized('w=i4,g=32,s=f16')
    state = model.state_dict()
    codes = state['0.weight']
    assert codes.dtype == torch.uint8 and codes.shape == (64, 48)
    low, high = (codes & 15).to(torch.int8), (codes >> 4).to(torch.int8)
    signed = torch.stack([low, high], -1).view(64, 96)
    signed = torch.where(signed > 7, signed - 16, signed).float()
    weights = signed * state['0.scales'].float().repeat_interleave(32, 1)
    assert torch.equal(weights, model[0].dequantize())


def test_skeleton_by_a_configuration():
    model, fresh = quantized('w=i8'), nn.Sequential(nn.Linear(96, 64), nn.GELU(),
                                                    nn.Linear(64, 48, bias=False))
    tilewright.skeleton_(fresh, 'w=i8')
    with pytest.raises(tilewright.InvalidError, match='no weights yet'):
        fresh(torch.randn(2, 96))
    fresh.load_state_dict(model.state_dict())
    x = torch.randn(2, 96)
    assert torch.equal(fresh(x), model(x))


def test_states_of_another_kind_are_refused():
    model = quantized('w=i8')
    x = torch.randn(2, 96)
    before = model(x)
    with pytest.raises(RuntimeError, match='this one is N=64,K=96,w=i8'):
        model.load_state_dict(quantized('w=i4,g=32').state_dict())
    with pytest.raises(RuntimeError, match='Missing key.*0.scales'):
        model.load_state_dict({k: v for k, v in model.state_dict().items() if k != '0.scales'})
    with pytest.raises(RuntimeError, match='Unexpected key.*0.extra'):
        model.load_state_dict({**model.state_dict(), '0.extra': torch.zeros(1)})
    bad = model.state_dict()
    bad['0.scales'][3] = float('nan')
    with pytest.raises(RuntimeError, match='scales'):
        model.load_state_dict(bad)
    # A state that is refused changes nothing in the layer that refused it.
    assert torch.equal(model(x), before)


def test_skeletons_of_states_of_another_shape_are_refused():
    """Layer by layer: what does not fit is kept, and the report says why."""
    state = quantized('w=i8').state_dict()
    model = nn.Sequential(nn.Linear(97, 64), nn.GELU(), nn.Linear(64, 48, bias=False))
    first = model[0]
    report = tilewright.skeleton_(model, state)
    assert [row.name for row in report.quantized] == ['2']
    assert report.kept[0].note == 'the state is of a layer [64,96], this one is [64,97]'
    assert model[0] is first


@pytest.mark.parametrize('text', ['garbage', 'N=64', '', 'N=x,K=96,w=i8,bias=none,act=none',
                                  'N=64,K=96,w=i8,w=,bias=none,act=tanh',
                                  'N=-1,K=96,w=i8,bias=given,act=none'])
def test_garbage_in_place_of_a_scheme_is_refused(text):
    state = {'0.scheme': torch.tensor(list(text.encode()), dtype=torch.uint8)}
    model = nn.Sequential(nn.Linear(96, 64))
    report = tilewright.skeleton_(model, state)
    assert not report.quantized and report.kept[0].note
    assert type(model[0]) is nn.Linear


@pytest.mark.parametrize('tensor', [torch.tensor(3, dtype=torch.uint8), torch.tensor([300, -1]),
                                    torch.tensor([0.5]), torch.zeros(2, 2, dtype=torch.uint8)])
def test_a_scheme_that_is_no_text_is_refused(tensor):
    model = nn.Sequential(nn.Linear(96, 64))
    report = tilewright.skeleton_(model, {'0.scheme': tensor})
    assert 'scheme: ' in report.kept[0].note and 'expected uint8 [length]' in report.kept[0].note
    ours = quantized('w=i8')
    with pytest.raises(RuntimeError, match='expected uint8'):
        ours.load_state_dict({**ours.state_dict(), '0.scheme': tensor})


def test_deepcopy_is_independent():
    model = quantized('w=i8')
    twin = copy.deepcopy(model)
    x = torch.randn(2, 96)
    before = model(x)
    assert torch.equal(twin(x), before)
    twin.load_state_dict(quantized('w=i8').state_dict())
    assert torch.equal(model(x), before) and not torch.equal(twin(x), before)
    assert model[0]._handle.item() != twin[0]._handle.item()
    del model
    assert twin(x).shape == (2, 48)


def test_pickling_is_refused():
    model = quantized('w=i8')
    for save in (pickle.dumps, lambda each: torch.save(each, io.BytesIO())):
        with pytest.raises(tilewright.UnsupportedError, match='state_dict.*safetensors'):
            save(model)


def test_no_canonical_copy_is_kept():
    model = quantized('w=i8')
    assert not list(model.parameters()) and not list(model.buffers())


def test_state_after_other_dtypes():
    """Weights come back bit for bit from whichever packed form there is."""
    model = quantized('w=u4,g=32,s=f16,z=value')
    before = model.state_dict()
    with torch.no_grad():
        model(torch.randn(2, 96).bfloat16())
    del model[0]._layer.natives['f32']
    after = model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
