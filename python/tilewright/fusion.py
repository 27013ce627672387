"""Activations after a layer under torch.compile, which its kernel applies as it writes y.

inductor runs this pass over what the compiler has traced, before gradients and decompositions: y of
linear_forward that goes into an activation and nowhere else becomes linear_act.
"""

import torch
from torch._inductor import config
from torch._inductor.custom_graph_pass import CustomGraphPass, get_hash_for_files

from . import ops

_METHODS = {'relu': 'relu', 'relu_': 'relu'}


def _functions():
    """{what a graph may call: the activation}, every spelling that this torch has."""
    holders = torch, torch.nn.functional, torch._C._nn, torch.ops.aten
    found = {getattr(holder, name + ending, None): name
             for name in ('relu', 'gelu', 'silu') for ending in ('', '_') for holder in holders}
    overloads = {packet.default: name for packet, name in found.items()
                 if isinstance(packet, torch._ops.OpOverloadPacket)}
    found.pop(None, None)
    return {**found, **overloads}


_FUNCTIONS = _functions()
_LINEARS = ops.linear_forward, ops.linear_forward.overloadpacket


def _activation(node):
    """(activation, what it is applied to) of a node; (None, None) where it is something else."""
    if node.op == 'call_function':
        act = _FUNCTIONS.get(node.target)
    else:
        act = _METHODS.get(node.target) if node.op == 'call_method' else None
    if act is None:
        return None, None
    options = dict(zip(('input', 'inplace'), node.args), **node.kwargs)
    y = options.pop('input', None)
    if y is None:
        y = options.pop('self', None)
    # In place or not is the same, as nobody else sees y.
    options.pop('inplace', None)
    approximate = options.pop('approximate', 'none')
    if options or approximate not in ('none', 'tanh'):
        return None, None
    return act if approximate == 'none' else act + '_tanh', y


def _is_linear(node):
    return isinstance(node, torch.fx.Node) and node.op == 'call_function' and \
        node.target in _LINEARS and len(node.users) == 1


def _dtype(node):
    return getattr(node.meta.get('example_value'), 'dtype', None)


def fuse(graph):
    """Fuses each activation into the layer that it follows; returns how many."""
    count = 0
    for node in list(graph.nodes):
        act, y = _activation(node)
        if act is None or not _is_linear(y) or _dtype(node) != _dtype(y):
            continue
        # Where y is: x may be changed in place before the activation.
        with graph.inserting_before(y):
            fused = graph.call_function(ops.linear_act, y.args, {**y.kwargs, 'act': act})
        fused.meta.update(node.meta)
        node.replace_all_uses_with(fused)
        graph.erase_node(node)
        graph.erase_node(y)
        count += 1
    return count


class Pass(CustomGraphPass):
    """fuse() as inductor's pre_grad_custom_pass, after what the caller had set there."""

    def __init__(self, before=None):
        several = isinstance(before, (list, tuple))
        self.before = tuple(before) if several else () if before is None else (before,)

    def __call__(self, graph):
        for each in self.before:
            each(graph)
        fuse(graph)

    def uuid(self):
        """What inductor's cache of compiled graphs knows the pass by; None, which keeps them out of
        it, where a pass before this one has none."""
        names = [each.uuid() if isinstance(each, CustomGraphPass) else None for each in self.before]
        return None if None in names else (_UUID, *names)


_UUID = get_hash_for_files((__file__,))


def install():
    """Adds the pass to inductor's setting, unless it is there."""
    if not hasattr(config, 'pre_grad_custom_pass'):
        return
    found = config.pre_grad_custom_pass
    several = found if isinstance(found, (list, tuple)) else (found,)
    if not any(isinstance(each, Pass) for each in several):
        config.pre_grad_custom_pass = Pass(found)
