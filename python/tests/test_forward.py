"""Results against torch: dtypes, shapes, strides, threads, modes, and the sentences of errors."""

import threading

import pytest
import torch

import tilewright
from conftest import DTYPES, SCHEMES, close
from tilewright import ops


@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize('config', [s for s in SCHEMES if 'a=' not in s])
def test_every_dtype_of_x(layer, config, dtype):
    ours, torchs = layer(config)
    x = torch.randn(7, 64).to(dtype)
    with torch.no_grad():
        close(ours(x), torchs(x.float()), dtype)


def test_one_layer_serves_all_dtypes_in_turn(layer):
    ours, torchs = layer()
    x = torch.randn(5, 64)
    with torch.no_grad():
        for dtype in DTYPES + DTYPES[::-1]:
            close(ours(x.to(dtype)), torchs(x.to(dtype).float()), dtype)
    assert set(ours._layer.natives) == {'f32', 'f16', 'bf16'}


def test_quantized_activations(layer):
    """Codes of x by the formula of a=i8: s = amax / 127, half to even."""
    ours, torchs = layer('w=i8,a=i8')
    x = torch.randn(9, 64)
    scale = x.abs().amax(1, keepdim=True) / 127
    rounded = (x * (1 / scale)).round().clamp(-127, 127) * scale
    with torch.no_grad():
        close(ours(x), torchs(rounded))
        assert not torch.allclose(ours(x), torchs(x), atol=1e-5)


@pytest.mark.parametrize('shape', [(64,), (1, 64), (2, 3, 64), (2, 1, 3, 64), (2, 3, 1, 2, 64)])
def test_leading_dimensions(layer, shape):
    ours, torchs = layer()
    x = torch.randn(shape)
    with torch.no_grad():
        close(ours(x), torchs(x))


@pytest.mark.parametrize('shape', [(0, 64), (3, 0, 64)])
def test_no_rows(layer, shape):
    ours, _ = layer()
    y = ours(torch.empty(shape))
    assert y.shape == (*shape[:-1], 48)


def strided(kind):
    if kind == 'rows of a wider matrix':
        return torch.randn(6, 80)[:, 8:72]
    if kind == 'transposed':
        return torch.randn(64, 6).t()
    if kind == 'every other column':
        return torch.randn(6, 128)[:, ::2]
    if kind == 'one row for all':
        return torch.randn(1, 64).expand(6, 64)
    return torch.randn(3, 2, 64).transpose(0, 1)


@pytest.mark.parametrize('kind', ['rows of a wider matrix', 'transposed', 'every other column',
                                  'one row for all', 'permuted batch'])
def test_x_that_is_not_contiguous(layer, kind):
    ours, torchs = layer()
    x = strided(kind)
    assert not x.is_contiguous()
    with torch.no_grad():
        close(ours(x), torchs(x))


def test_row_strided_x_is_not_copied(layer, monkeypatch):
    ours, _ = layer()
    x = torch.randn(6, 80)[:, 8:72]
    ours(x.contiguous())
    seen = []
    native = ours._layer.natives['f32']
    run = type(native).run
    monkeypatch.setattr(type(native), 'run', lambda self, *a: (seen.append(a), run(self, *a)))
    ours(x)
    assert seen[0][:3] == (x.data_ptr(), 6, 80)


def test_bias_and_activation():
    source = torch.nn.Linear(64, 48)
    for act, apply in (('relu', torch.relu), ('gelu', torch.nn.functional.gelu),
                       ('silu', torch.nn.functional.silu)):
        holder = torch.nn.Sequential(source)
        tilewright.quantize_(holder, tilewright.Config('w=f32', act=act))
        x = torch.randn(4, 64)
        with torch.no_grad():
            close(holder(x), apply(source(x)))


def refuses(call, sentence, error=tilewright.InvalidError):
    with pytest.raises(error) as caught:
        call()
    assert sentence in str(caught.value), caught.value
    return caught.value


def test_errors(layer):
    ours, _ = layer()
    refuses(lambda: ours(torch.randn(2, 63)), 'x: shape [2, 63], expected [...,64]')
    refuses(lambda: ours(torch.randn(())), 'x: shape [], expected [...,64]')
    refuses(lambda: ours(torch.randn(2, 64).double()), 'x: torch.float64, expected float32')
    error = refuses(lambda: layer('w=i4,g=32,s=q8'), 's: "q8"')
    assert isinstance(error, ValueError) and error.status == 'INVALID'
    refuses(lambda: layer('no_such_recipe'), 'no_such_recipe')
    refuses(lambda: ours(torch.empty(2, 64, device='meta')), 'on meta, expected', Exception)


def test_gone_layer():
    handle = torch.tensor(5)
    refuses(lambda: ops.linear(torch.randn(2, 64), handle, 48), 'layer: 5, no such layer')


def test_a_module_that_is_gone_leaves_the_table(layer):
    ours, _ = layer()
    index = ours._handle.item()
    assert index in ops._layers
    del ours
    assert index not in ops._layers


@pytest.mark.parametrize('threads', [1, 2, 3])
def test_follows_torchs_threads(layer, threads):
    ours, torchs = layer(N=300)
    x = torch.randn(40, 64)
    with torch.no_grad():
        close(ours(x), torchs(x))
        torch.set_num_threads(threads)
        close(ours(x), torchs(x))
    assert ours._layer.context.device()['threads'] == threads


def test_runs_on_torchs_own_threads(layer):
    """Kernels start no pool: the threads of this process are those that torch has."""
    import os
    torch.set_num_threads(2)
    torch.randn(1000, 1000) @ torch.randn(1000, 1000)
    ours, _ = layer('w=i8,a=i8', N=512, K=512)
    before = len(os.listdir('/proc/self/task'))
    ours(torch.randn(256, 512))
    assert len(os.listdir('/proc/self/task')) == before


def test_several_python_threads(layer):
    ours, torchs = layer(N=200)
    inputs = [torch.randn(3 + i, 64) for i in range(4)]
    wrong = []

    def work(x):
        with torch.no_grad():
            want = torchs(x)
            for _ in range(50):
                if not torch.allclose(ours(x), want, atol=1e-5):
                    wrong.append(x.shape)
    workers = [threading.Thread(target=work, args=(x,)) for x in inputs]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def test_negative_views(layer):
    """Tensors whose negation is a bit that only torch's own operators heed."""
    ours, torchs = layer()
    for x in (torch._neg_view(torch.randn(3, 64)), torch._neg_view(torch.randn(64, 3)).t(),
              torch._neg_view(torch.randn(5, 128))[:, :64],
              torch.randn(3, 64, dtype=torch.complex64).conj().imag):
        assert x.is_neg()
        with torch.no_grad():
            close(ours(x), torchs(x))
            close(torch.from_dlpack(ours._layer(x.contiguous())), torchs(x))
            close(ops.linear_forward(x, ours._handle, 48), torchs(x))
        close(ours(x.detach().requires_grad_()).detach(), torchs(x).detach())
    refuses(lambda: ours._layer(x.resolve_neg(), out=torch._neg_view(torch.zeros(3, 48))),
            'out: a negative view, expected memory')


def test_negative_views_as_weights():
    plain, negated = (torch.nn.Sequential(torch.nn.Linear(64, 48)) for _ in range(2))
    weight, bias = -plain[0].weight.data, -plain[0].bias.data
    negated[0].weight.data, negated[0].bias.data = torch._neg_view(weight), torch._neg_view(bias)
    state = {}
    for model in (plain, negated):
        tilewright.quantize_(model, 'w=i8')
        state = state or model.state_dict()
    x = torch.randn(3, 64)
    assert torch.equal(plain(x), negated(x))
    state['0.bias'] = torch._neg_view(-state['0.bias'])
    negated.load_state_dict(state)
    assert torch.equal(plain(x), negated(x))
    assert torch.equal(negated.state_dict()['0.bias'], plain.state_dict()['0.bias'])


def test_inference_mode(layer):
    ours, torchs = layer()
    with torch.inference_mode():
        x = torch.randn(3, 64)
        assert ours(x).is_inference()
        close(ours(x), torchs(x))
        close(ops.linear(x, ours._handle, 48), torchs(x))


def test_autocast(layer):
    ours, torchs = layer()
    x = torch.randn(3, 64)
    with torch.no_grad(), torch.autocast('cpu', dtype=torch.bfloat16):
        assert torchs(x).dtype == torch.bfloat16
        close(ours(x), torchs(x.bfloat16()).float(), torch.bfloat16)


def test_half_model(layer):
    ours, torchs = layer()
    holder = torch.nn.Sequential(ours).bfloat16()
    x = torch.randn(3, 64).bfloat16()
    with torch.no_grad():
        close(holder(x), torchs(x.float()), torch.bfloat16)


def test_fork(layer):
    """A child process, which has none of the parent's threads, still runs the layer."""
    import os
    torch.set_num_threads(1)
    ours, torchs = layer()
    x = torch.randn(3, 64)
    with torch.no_grad():
        want = torchs(x)
        ours(x)
        child = os.fork()
        if not child:
            os._exit(0 if torch.allclose(ours(x), want, atol=1e-5) else 1)
        assert os.waitpid(child, 0)[1] == 0
