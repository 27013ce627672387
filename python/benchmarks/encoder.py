"""all-MiniLM-L6-v2 in plain torch: BERT's encoder (Devlin et al., arXiv:1810.04805), mean pool."""

import json
import os

import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F


class Layer(nn.Module):
    """Self-attention and the feed-forward part, each added and normalized."""

    def __init__(self, width, heads, inner, eps):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.output = nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, inner), nn.Linear(inner, width)
        self.norm1, self.norm2 = nn.LayerNorm(width, eps), nn.LayerNorm(width, eps)

    def split(self, x):
        """[B,T,width] -> [B,heads,T,width / heads]."""
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)

    def forward(self, x):
        mixed = F.scaled_dot_product_attention(
            self.split(self.query(x)), self.split(self.key(x)), self.split(self.value(x)))
        x = self.norm1(x + self.output(mixed.transpose(1, 2).reshape(x.shape)))
        return self.norm2(x + self.down(F.gelu(self.up(x))))


class Encoder(nn.Module):
    """Token ids [B,T] without padding -> embeddings [B,width] of length 1."""

    def __init__(self, config):
        super().__init__()
        width, eps = config['hidden_size'], config['layer_norm_eps']
        self.words = nn.Embedding(config['vocab_size'], width)
        self.positions = nn.Embedding(config['max_position_embeddings'], width)
        self.types = nn.Embedding(config['type_vocab_size'], width)
        self.norm = nn.LayerNorm(width, eps)
        self.layers = nn.ModuleList(
            Layer(width, config['num_attention_heads'], config['intermediate_size'], eps)
            for _ in range(config['num_hidden_layers']))

    def forward(self, ids):
        x = self.words(ids) + self.positions.weight[:ids.shape[1]] + self.types.weight[0]
        x = self.norm(x)
        for layer in self.layers:
            x = layer(x)
        return F.normalize(x.mean(1), dim=-1)


# Names in the checkpoint -> ours.
RENAMED = (('embeddings.word_embeddings', 'words'), ('embeddings.position_embeddings', 'positions'),
           ('embeddings.token_type_embeddings', 'types'), ('embeddings.LayerNorm', 'norm'),
           ('encoder.layer.', 'layers.'), ('attention.self.', ''),
           ('attention.output.dense', 'output'), ('attention.output.LayerNorm', 'norm1'),
           ('intermediate.dense', 'up'), ('output.dense', 'down'), ('output.LayerNorm', 'norm2'))


def load(folder):
    """The model with its real weights, in float32."""
    with open(os.path.join(folder, 'config.json'), encoding='utf-8') as file:
        model = Encoder(json.load(file))
    state = {}
    for name, tensor in load_file(os.path.join(folder, 'model.safetensors')).items():
        for old, new in RENAMED:
            name = name.replace(old, new)
        state[name] = tensor
    state = {name: tensor for name, tensor in state.items() if name in model.state_dict()}
    model.load_state_dict(state)
    return model.eval()
