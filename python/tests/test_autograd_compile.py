"""Gradients, torch.compile, and torch's own check of an operator's registration."""

import warnings

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad

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
    for wanted in (False, True):
        dy, dx = (torch.randn(3, n, requires_grad=wanted) for n in (48, 64))
        torch.library.opcheck(ops.linear_input_gradient, (dy, handle, 64))
        torch.library.opcheck(ops.linear_tangent, (dx, handle, 48))


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


def twins(layer, *shape, config='w=i4,g=32,s=f16'):
    """A layer, torch's with the same weights, and numbers for x."""
    ours, torchs = layer(config)
    for parameter in torchs.parameters():
        parameter.requires_grad_(False)
    return ours, torchs, torch.randn(*shape)


TRANSFORMS = {
    'jvp': lambda f, x: torch.func.jvp(f, (x,), (x.cos(),))[1],
    'linearize': lambda f, x: torch.func.linearize(f, x)[1](x.cos()),
    'vjp': lambda f, x: torch.func.vjp(f, x)[1](f(x))[0],
    'grad': lambda f, x: torch.func.grad(lambda v: f(v).square().sum())(x),
    'jacrev': lambda f, x: torch.func.jacrev(f)(x[0]),
    'jacfwd': lambda f, x: torch.func.jacfwd(f)(x[0]),
    'hessian': lambda f, x: torch.func.hessian(lambda v: f(v).square().sum())(x[0]),
    'grad of grad': lambda f, x: torch.func.grad(lambda v: torch.func.grad(
        lambda w: f(w).pow(3).sum())(v).sum())(x),
    'jvp of jvp': lambda f, x: torch.func.jvp(lambda v: torch.func.jvp(
        lambda w: f(w).square(), (v,), (x,))[1], (x,), (x.cos(),))[1],
    'vmap of grad': lambda f, x: torch.vmap(torch.func.grad(lambda v: f(v).square().sum()))(x),
    'grad of vmap': lambda f, x: torch.func.grad(lambda v: torch.vmap(f)(v).square().sum())(x),
    'jvp of vmap': lambda f, x: torch.func.jvp(torch.vmap(f, in_dims=1), (x.t(),),
                                           (x.t().cos(),))[1],
    'vmap of jvp': lambda f, x: torch.vmap(lambda v: torch.func.jvp(f, (v,), (v.cos(),))[1])(x),
}


@pytest.mark.parametrize('name', TRANSFORMS)
def test_transforms(layer, name):
    ours, torchs, x = twins(layer, 5, 64)
    transform = TRANSFORMS[name]
    got, want = transform(ours, x), transform(torchs, x)
    scale = want.abs().max()
    assert scale > 0.1
    close(got / scale, want / scale)
    if name in ('grad of vmap', 'jvp'):
        function = torch.compile(lambda x: transform(ours, x), backend='aot_eager')
        close(function(x) / scale, want / scale)


def test_forward_mode(layer):
    ours, torchs, x = twins(layer, 5, 64)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x, x.cos())
        got, want = (forward_ad.unpack_dual(each(dual)) for each in (ours, torchs))
        close(got.primal, want.primal)
        close(got.tangent, want.tangent)
        assert forward_ad.unpack_dual(ours(x)).tangent is None
        with torch.no_grad():
            close(forward_ad.unpack_dual(ours(dual)).tangent, want.tangent)


def test_forward_mode_through_a_fused_activation_is_refused():
    holder = nn.Sequential(nn.Linear(64, 48))
    tilewright.quantize_(holder, tilewright.Config('w=i8', act='relu'))
    x = torch.randn(2, 64)
    with pytest.raises(tilewright.UnsupportedError, match='act=relu: no gradient goes through'):
        torch.func.jvp(holder, (x,), (x,))


def test_double_backward(layer, recwarn):
    ours, torchs, x = twins(layer, 5, 64)
    found = []
    for each in (ours, torchs):
        leaf = x.clone().requires_grad_()
        gradient, = torch.autograd.grad(each(leaf).pow(3).sum(), leaf, create_graph=True)
        gradient.square().sum().backward()
        found.append(leaf.grad / 1000)
    close(*found)
    assert not [each for each in recwarn if 'autograd' in str(each.message)]


@pytest.mark.parametrize('operator', ['linear', 'linear_input_gradient', 'linear_tangent'])
def test_gradients_by_differences(layer, operator):
    """What torch's own check of first and second gradients says, in both modes."""
    ours, _, x = twins(layer, 3, 64, config='w=f32')
    width = 64 if operator == 'linear_input_gradient' else 48
    v = torch.randn(2, 112 - width, requires_grad=True)

    def function(v):
        return getattr(ops, operator)(v, ours._handle, width)
    options = {'eps': 0.5, 'atol': 1e-2, 'rtol': 1e-2, 'fast_mode': True}
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', 'Input #0 requires gradient')  # it is no float64
        assert torch.autograd.gradcheck(function, v, check_forward_ad=True, **options)
        assert torch.autograd.gradgradcheck(function, v, check_fwd_over_rev=True, **options)
