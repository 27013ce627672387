"""Activations that torch.compile fuses into layers: results, graphs, what a layer holds then."""

import copy
import gc
import threading
import weakref

import pytest
import torch
from torch import nn
from torch._inductor import config
from torch._inductor.custom_graph_pass import CustomGraphPass
from torch.nn import functional as F

import tilewright
from conftest import DTYPES, close
from tilewright import fusion, ops

SPELLINGS = {
    'relu': (F.relu, torch.relu, torch.relu_, torch.ops.aten.relu, torch.ops.aten.relu_.default,
             nn.ReLU(inplace=True), lambda y: y.relu(), lambda y: y.relu_(),
             lambda y: torch.relu(input=y)),
    'gelu': (F.gelu, nn.GELU(), torch.ops.aten.gelu, torch.ops.aten.gelu.default,
             lambda y: F.gelu(y, approximate='none')),
    'gelu_tanh': (nn.GELU('tanh'), lambda y: torch.ops.aten.gelu(y, approximate='tanh')),
    'silu': (F.silu, nn.SiLU(), torch.ops.aten.silu, torch.ops.aten.silu_,
             lambda y: F.silu(y, inplace=True)),
}


@pytest.fixture
def compiled_calls():
    """What inductor's graphs call after all passes; the pass here, which has no uuid, also keeps
    them out of the caches."""
    seen = []

    def look(graph):
        seen.extend(node.target for node in graph.nodes if node.op == 'call_function')
    with config.patch(post_grad_custom_post_pass=look):
        yield seen


def backend(seen):
    """Runs the pass, keeps what tensors go through then, and computes by torch."""
    def compiler(module, _):
        fusion.fuse(module.graph)
        module.graph.lint()
        module.recompile()
        seen.extend(node.target for node in module.graph.nodes
                    if node.op.startswith('call') and node.args)
        return module.forward
    return compiler


@pytest.mark.parametrize('config_text', ['w=i8,a=i8', 'w=u4,g=32,s=f16,z=value'])
@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize('act', ops.ACTS)
def test_every_activation_and_dtype(layer, act, dtype, config_text, compiled_calls):
    ours, _ = layer(config_text)
    x = torch.randn(2, 5, 64).to(dtype)
    with torch.no_grad():
        want = ops.ACTS[act](ours(x))
        got = torch.compile(lambda x: ops.ACTS[act](ours(x)), fullgraph=True)(x)
    close(got, want, dtype)
    assert compiled_calls == [ops.linear_act]


@pytest.mark.parametrize('act', SPELLINGS)
def test_spellings(layer, act):
    ours, _ = layer()
    x = torch.randn(3, 64)
    with torch.no_grad():
        for spelling in SPELLINGS[act]:
            seen = []
            torch._dynamo.reset()
            function = torch.compile(lambda x, f=spelling: f(ours(x)), fullgraph=True,
                                     backend=backend(seen))
            close(function(x), ops.ACTS[act](ours(x)))
            assert seen == [ops.linear_act], spelling


KEPT = {
    'two users': lambda f, x: (lambda y: F.gelu(y) + y)(f(x)),
    'changed in place before': lambda f, x: F.gelu(f(x).add_(1)),
    'changed in place, seen by another': lambda f, x: (lambda y: y.relu_().sum() + y.sum())(f(x)),
    'a view': lambda f, x: F.gelu(f(x).view(-1)),
    'another activation': lambda f, x: F.elu(f(x)),
}


@pytest.mark.parametrize('name', KEPT)
def test_what_is_not_fused(layer, name):
    ours, _ = layer()
    x, seen = torch.randn(3, 64), []
    with torch.no_grad():
        function = torch.compile(lambda x: KEPT[name](ours, x), fullgraph=True,
                                 backend=backend(seen))
        close(function(x), KEPT[name](ours, x))
    assert ops.linear_act not in seen


def test_x_changed_in_place_between(layer):
    ours, _ = layer()

    def function(x):
        y = ours(x)
        x.add_(1)
        return F.gelu(y)
    x, seen = torch.randn(3, 64), []
    with torch.no_grad():
        want = F.gelu(ours(x))
        close(torch.compile(function, fullgraph=True, backend=backend(seen))(x.clone()), want)
    assert ops.linear_act in seen


def test_a_gradient_is_wanted(layer, compiled_calls):
    ours, torchs = layer()
    x = torch.randn(3, 64, requires_grad=True)
    twin = x.detach().clone().requires_grad_()
    torch.compile(lambda x: F.gelu(ours(x)), fullgraph=True)(x).square().sum().backward()
    F.gelu(torchs(twin)).square().sum().backward()
    close(x.grad, twin.grad)
    assert ops.linear_act not in compiled_calls


def test_a_layer_with_an_activation_keeps_it(compiled_calls):
    holder = nn.Sequential(nn.Linear(64, 48), nn.GELU())
    tilewright.quantize_(holder, tilewright.Config('w=i8', act='relu'))
    x = torch.randn(3, 64)
    with torch.no_grad():
        close(torch.compile(holder, fullgraph=True)(x), F.gelu(holder[0](x)))
    assert list(holder[0]._layer.natives) == ['f32']


def test_a_model_and_then_another(model, compiled_calls):
    tilewright.quantize_(model, 'w=i8,a=i8')
    other = nn.Sequential(nn.Linear(32, 48), nn.SiLU(), nn.Linear(48, 16), nn.ReLU())
    tilewright.quantize_(other, 'w=i8')
    with torch.no_grad():
        for each, width in ((model, 100), (other, 32)):
            x = torch.randn(7, width)
            close(torch.compile(each, fullgraph=True)(x), each(x))
    assert compiled_calls == [ops.linear_act, ops.linear_forward, ops.linear_act, ops.linear_act]


@pytest.mark.parametrize('dynamic', [False, True])
def test_any_number_of_rows(layer, dynamic, compiled_calls):
    ours, _ = layer()
    function = torch.compile(lambda x: F.silu(ours(x)), fullgraph=True, dynamic=dynamic)
    with torch.no_grad():
        for rows in (3, 0, 1, 9):
            x = torch.randn(rows, 64)
            got = function(x)
            assert got.shape == (rows, 48)
            if rows:
                close(got, F.silu(ours(x)))
    assert set(compiled_calls) <= {ops.linear_act, torch.ops.aten.sym_size.int}


def test_eager_modules_are_left_alone(model):
    tilewright.quantize_(model, 'w=i8')
    model(torch.randn(3, 100))
    assert list(model[0]._layer.natives) == ['f32']


# ---- the setting of inductor ----

class Named(CustomGraphPass):
    """A pass of the caller's that inductor's cache knows."""

    def __init__(self):
        self.calls = 0

    def __call__(self, graph):
        self.calls += 1

    def uuid(self):
        return 'a name'


@pytest.mark.parametrize('several', [False, True])
def test_a_pass_of_the_callers_runs_too(layer, several, compiled_calls):
    ours, _ = layer()
    theirs, x = Named(), torch.randn(3, 64)
    with torch.no_grad(), config.patch(pre_grad_custom_pass=[theirs] if several else theirs):
        close(torch.compile(lambda x: F.relu(ours(x)), fullgraph=True)(x), F.relu(ours(x)))
        installed = config.pre_grad_custom_pass
        fusion.install()
        assert config.pre_grad_custom_pass is installed
    assert theirs.calls == 1 and compiled_calls == [ops.linear_act]


def test_the_name_in_inductors_cache():
    alone, named = fusion.Pass().uuid(), fusion.Pass(Named()).uuid()
    assert alone and named and alone != named
    assert fusion.Pass(lambda graph: None).uuid() is None
    assert fusion.Pass([Named(), lambda graph: None]).uuid() is None


# ---- what a layer holds ----

def fused(ours, x):
    return ops.linear_act(x, ours._handle, ours.out_features, 'gelu')


def test_the_fused_native_takes_the_place_of_the_plain_one(layer):
    ours, _ = layer()
    before = {name: tensor.clone() for name, tensor in ours.state_dict().items()}
    plain = weakref.ref(ours._layer.natives['f32'])
    x = torch.randn(3, 64)
    y = ours(x)
    got = fused(ours, x)
    assert list(ours._layer.natives) == ['f32+gelu'] and plain() is None
    close(got, F.gelu(y))
    # Every code and scale is what it was.
    after = ours.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    # Asked for again, the plain one stays.
    assert torch.equal(ours(x), y)
    ops.linear_act(x, ours._handle, 48, 'relu')
    assert list(ours._layer.natives) == ['f32+gelu', 'f32', 'f32+relu']


def test_new_weights_and_copies(layer):
    (ours, _), (other, _) = layer(), layer()
    x = torch.randn(3, 64)
    fused(ours, x)
    twin = copy.deepcopy(ours)
    assert torch.equal(fused(twin, x), fused(ours, x))
    ours.load_state_dict(other.state_dict())
    close(fused(ours, x), F.gelu(other(x)))
    assert list(ours._layer.natives) == ['f32+gelu']
    assert not torch.allclose(fused(twin, x), fused(ours, x), atol=1e-3)


def test_threads(layer):
    ours, _ = layer()
    x = torch.randn(33, 64)
    y = fused(ours, x)
    torch.set_num_threads(1 if torch.get_num_threads() > 1 else 2)
    close(fused(ours, x), y)
    assert list(ours._layer.natives) == ['f32+gelu']


def test_plain_and_fused_calls_at_once(layer):
    ours, _ = layer()
    x = torch.randn(5, 64)
    want, wrong = ours(x), []

    def work(act):
        for _ in range(200):
            y = ops.linear_act(x, ours._handle, 48, act) if act else ours(x)
            expected = ops.ACTS[act](want) if act else want
            if not torch.allclose(y, expected, atol=1e-5):
                wrong.append(act)
    threads = [threading.Thread(target=work, args=(act,)) for act in (None, 'gelu', 'relu', None)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and {'f32+gelu', 'f32+relu'} <= set(ours._layer.natives)


def test_prepare_reaches_the_fused_native(layer, monkeypatch):
    ours, _ = layer()
    asked = []
    monkeypatch.setattr(tilewright.linear.Native, 'prepare',
                        lambda native, *arguments: asked.append(arguments))
    ours.prepare([4])
    ours.prepare([2, 4], concurrent=3)
    fused(ours, torch.randn(4, 64))
    assert asked == [([4], 1), ([2, 4], 3), ([2, 4], 3)]
    ours.prepare([5])
    assert asked[3:] == [([5], 1)] and list(ours._layer.natives) == ['f32+gelu']
    assert ours.plan(4)['kernel']


def test_no_layer_is_kept_alive(compiled_calls):
    holder = nn.Sequential(nn.Linear(64, 48), nn.GELU())
    tilewright.quantize_(holder, 'w=i8')
    with torch.no_grad():
        torch.compile(holder, fullgraph=True)(torch.randn(3, 64))
    layer = weakref.ref(holder[0]._layer)
    del holder
    torch._dynamo.reset()
    gc.collect()
    assert compiled_calls == [ops.linear_act] and layer() is None


# ---- the operator by itself ----

def test_torchs_own_check(layer):
    ours, _ = layer('w=i8,a=i8')
    torch.library.opcheck(ops.linear_act, (torch.randn(3, 64), ours._handle, 48, 'silu'))


def test_vmap(layer):
    ours, _ = layer()
    x = torch.randn(64, 3, 5)
    rows = x.movedim(0, 2)
    close(torch.vmap(lambda v: fused(ours, v.t()), in_dims=1)(x), F.gelu(ours(rows)))


def test_errors(layer):
    ours, _ = layer()
    for function in (ops.linear_act, torch.compile(ops.linear_act, backend='eager')):
        with pytest.raises(Exception, match='act: "elu", expected one of relu, gelu, silu'):
            function(torch.randn(3, 64), ours._handle, 48, 'elu')
    with pytest.raises(tilewright.InvalidError, match=r'x: shape \[3,65\]|x: shape \[3, 65\]'):
        fused(ours, torch.randn(3, 65))
    handle = ours._handle
    del ours
    gc.collect()
    with pytest.raises(tilewright.InvalidError, match='no such layer in this process'):
        ops.linear_act(torch.randn(3, 64), handle, 48, 'gelu')
