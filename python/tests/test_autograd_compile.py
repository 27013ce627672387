"""Gradients, torch.compile, and torch's own check of an operator's registration."""

import pytest
import torch
from torch import nn

import tilewright
from conftest import close
from tilewright import ops


def test_gradient_of_x(layer):
    ours, torchs = layer()
    x = torch.randn(2, 5, 64, requires_grad=True)
    twin = x.detach().clone().requires_grad_()
    weight = torch.randn(2, 5, 48)
    (ours(x) * weight).sum().backward()
    (torchs(twin) * weight).sum().backward()
    close(x.grad, twin.grad)


def test_no_gradient_where_none_is_asked(layer):
    ours, _ = layer()
    x = torch.randn(2, 64, requires_grad=True)
    assert ours(x).requires_grad
    assert not ours(x.detach()).requires_grad
    with torch.no_grad():
        assert not ours(x).requires_grad


def test_gradient_through_a_fused_activation_is_refused():
    holder = nn.Sequential(nn.Linear(64, 48))
    tilewright.quantize_(holder, tilewright.Config('w=i8', act='relu'))
    x = torch.randn(2, 64, requires_grad=True)
    with pytest.raises(tilewright.UnsupportedError, match='act=relu: no gradient goes through'):
        holder(x).sum().backward()


@pytest.mark.parametrize('config', ['w=i8,a=i8', 'w=i4,g=32,s=f16'])
def test_operators_pass_torchs_own_check(layer, config):
    ours, _ = layer(config)
    handle = ours._handle
    for x in (torch.randn(3, 64), torch.randn(2, 3, 64, requires_grad=True)):
        torch.library.opcheck(ops.linear, (x, handle, 48))
    torch.library.opcheck(ops.linear_forward, (torch.randn(3, 64), handle, 48))
    torch.library.opcheck(ops.linear_input_gradient, (torch.randn(3, 48), handle, 64))


def test_fullgraph(model):
    tilewright.quantize_(model, 'w=i4,g=32,s=f16,a=i8')
    compiled = torch.compile(model, fullgraph=True)
    x = torch.randn(2, 3, 100)
    with torch.no_grad():
        close(compiled(x), model(x))


def test_compiled_gradient(model):
    tilewright.quantize_(model, 'w=i8')
    compiled = torch.compile(model, fullgraph=True)
    x = torch.randn(4, 100, requires_grad=True)
    twin = x.detach().clone().requires_grad_()
    compiled(x).square().sum().backward()
    model(twin).square().sum().backward()
    close(x.grad, twin.grad)


def test_blocks_share_one_graph():
    """Compiled one by one, blocks that differ by their layers alone compile once."""
    blocks = nn.ModuleList(nn.Sequential(nn.Linear(32, 32), nn.GELU()) for _ in range(10))
    tilewright.quantize_(blocks, 'w=i8')
    torch._dynamo.utils.counters.clear()
    for block in blocks:
        block.compile(fullgraph=True, backend='eager')
    x = torch.randn(3, 32)
    with torch.no_grad():
        for block in blocks:
            close(block(x), nn.functional.gelu(block[0](x)))
    assert torch._dynamo.utils.counters['stats']['unique_graphs'] == 1


def test_new_weights_need_no_new_graph(model):
    other = nn.Sequential(nn.Linear(100, 64), nn.GELU(), nn.Linear(64, 48, bias=False))
    for each in (model, other):
        tilewright.quantize_(each, 'w=i8')
    compiled = torch.compile(model, fullgraph=True, backend='aot_eager')
    x = torch.randn(4, 100)
    with torch.no_grad():
        before = compiled(x)
        model.load_state_dict(other.state_dict())
        close(compiled(x), other(x))
        assert not torch.allclose(compiled(x), before, atol=1e-3)


def test_dynamic_rows(layer):
    ours, torchs = layer()
    compiled = torch.compile(ours, fullgraph=True, dynamic=True, backend='aot_eager')
    with torch.no_grad():
        for rows in (3, 5, 9):
            x = torch.randn(rows, 64)
            close(compiled(x), torchs(x))


def test_tracing_records_the_operator(layer):
    """A tracer sees an operator, never numbers that were computed meanwhile."""
    from torch.fx.experimental.proxy_tensor import make_fx
    ours, torchs = layer()
    x = torch.randn(3, 64)
    with torch.no_grad():
        graph = make_fx(ours)(x)
        assert any(node.target is ops.linear_forward for node in graph.graph.nodes)
        close(graph(2 * x), torchs(2 * x))


def test_vmap(layer):
    ours, torchs = layer()
    x = torch.randn(64, 3, 5)
    with torch.no_grad():
        close(torch.vmap(ours, in_dims=2)(x.movedim(0, 1)), torchs(x.movedim(0, 2).movedim(1, 0)))


def test_a_copy_of_a_handle_still_finds_its_layer(layer):
    ours, torchs = layer()
    x = torch.randn(3, 64)
    close(ops.linear_forward(x, ours._handle.clone(), 48), torchs(x).detach())
