"""What the tests share: fixed seeds, small models, and the library's answer to compare with."""

import os

import pytest
import torch
from torch import nn

os.environ.setdefault('TW_CACHE', '')

import tilewright  # noqa: E402  (after TW_CACHE)

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
SCHEMES = ('w=i8,a=i8', 'w=i4,g=32,s=f16,a=i8', 'w=u4,g=32,s=f16,z=value', 'w=e4m3',
           'w=i8,g=32,s=f16,a=i8g32,fpmath=bf16')


@pytest.fixture(autouse=True)
def settled():
    """Each test begins from the same numbers and leaves no compiled graph and no setting behind."""
    torch.manual_seed(1)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch._dynamo.reset()


@pytest.fixture
def model():
    """Two linear layers; of the first K is no multiple of 32."""
    return nn.Sequential(nn.Linear(100, 64), nn.GELU(), nn.Linear(64, 48, bias=False)).eval()


@pytest.fixture
def layer():
    """A quantized layer and torch's own with the very weights that it stands for."""
    def make(config='w=i4,g=32,s=f16', N=48, K=64, dtype=torch.float32, bias=True):
        holder = nn.Sequential(nn.Linear(K, N, bias=bias).to(dtype))
        same = nn.Linear(K, N, bias=bias)
        same.load_state_dict(holder[0].state_dict())
        tilewright.quantize_(holder, config)
        same.weight.data = holder[0].dequantize()
        return holder[0], same
    return make


def close(y, want, x_dtype=torch.float32):
    """y is as near to the exact result as its dtype lets it be."""
    steps = {torch.float32: 2e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}
    assert y.dtype == x_dtype and y.shape == want.shape
    error = (y.double() - want.double()).abs().max().item()
    assert error <= steps[x_dtype] * max(want.abs().max().item(), 1), error
