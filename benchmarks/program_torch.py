"""PyTorch's own Transformer on the batches of a saved program: the same sizes, work and optimizer, on the same device.

    python program.py --recipe=transformer_gettext_de --size=base --precision=bfloat16 --output=base_program
    python -m benchmarks.program_torch base_program --size=base      needs torch, numpy and safetensors; no TensorFlow

Pre-norm layers without biases in attention, one table for both languages and the logits, scaled_dot_product_attention,
fused Adam, clipped gradients, bfloat16 by autocast (logits in TF32; the residual stream in float32, ours in bfloat16),
once eager and once by torch.compile. Prints JSON.
"""

import argparse
import json
import math
import sys
import time

import torch
from torch import nn
from torch.nn import functional as F

from strategies.program import read

SIZES = {'tiny': (2, 128, 512, 4, 0.1), 'small': (4, 256, 1024, 8, 0.1), 'base': (6, 512, 2048, 8, 0.1),
         'big': (6, 1024, 4096, 16, 0.3)}      # layers, D, F, heads, dropout: models/transformer.py
WARM_UP = 5


class Attention(nn.Module):
    def __init__(self, d_model, heads, dropout):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query, self.key, self.value, self.output = (nn.Linear(d_model, d_model, bias=False) for _ in range(4))

    def forward(self, x, memory, mask):
        """x [B, T, D], memory [B, S, D], mask bool [B, 1, T, S], True where to look -> [B, T, D]."""
        q, k, v = (layer(y).unflatten(-1, (self.heads, -1)).transpose(1, 2)
                   for layer, y in ((self.query, x), (self.key, memory), (self.value, memory)))     # [B, h, T, d]
        y = F.scaled_dot_product_attention(q, k, v, mask, self.dropout if self.training else 0.)
        return self.output(y.transpose(1, 2).flatten(2))


class Layer(nn.Module):
    def __init__(self, d_model, d_ff, heads, dropout, attentions):
        super().__init__()
        self.attentions = nn.ModuleList(Attention(d_model, heads, dropout) for _ in range(attentions))
        self.norms = nn.ModuleList(nn.LayerNorm(d_model, 1e-6) for _ in range(attentions + 1))
        self.wide, self.narrow, self.dropout = nn.Linear(d_model, d_ff), nn.Linear(d_ff, d_model), nn.Dropout(dropout)

    def forward(self, x, mask, memory=None, cross_mask=None):
        y = self.norms[0](x)
        x = x + self.dropout(self.attentions[0](y, y, mask))
        if memory is not None:
            x = x + self.dropout(self.attentions[1](self.norms[1](x), memory, cross_mask))
        return x + self.dropout(self.narrow(F.relu(self.wide(self.norms[-1](x)))))


class Transformer(nn.Module):
    def __init__(self, words, layers, d_model, d_ff, heads, dropout):
        super().__init__()
        self.table = nn.Embedding(words, d_model)
        nn.init.normal_(self.table.weight, std=d_model ** -0.5)
        self.encoder = nn.ModuleList(Layer(d_model, d_ff, heads, dropout, 1) for _ in range(layers))
        self.decoder = nn.ModuleList(Layer(d_model, d_ff, heads, dropout, 2) for _ in range(layers))
        self.norms, self.dropout = nn.ModuleList(nn.LayerNorm(d_model, 1e-6) for _ in range(2)), nn.Dropout(dropout)

    def embed(self, ids, segments):
        """ids, segments [B, T] -> [B, T, D]: positions are those in each segment."""
        d_model, length = self.table.embedding_dim, ids.shape[1]
        order = torch.arange(length, device=ids.device)
        earlier = (segments[:, :, None] == segments[:, None, :]) & (order[None, :] < order[:, None])
        frequencies = torch.exp(torch.arange(0, d_model, 2, device=ids.device) * (-math.log(10000) / d_model))
        angles = earlier.sum(-1)[..., None] * frequencies                                        # [B, T, D / 2]
        positions = torch.stack([angles.sin(), angles.cos()], -1).flatten(2)
        return self.dropout(self.table(ids) * d_model ** 0.5 + positions)

    def forward(self, source, source_segments, target, target_segments):
        causal = torch.ones(2 * target.shape[1:], dtype=torch.bool, device=target.device).tril()
        see = [(a[:, :, None] == b[:, None, :])[:, None] for a, b in (
            (source_segments, source_segments), (target_segments, target_segments), (target_segments, source_segments))]
        memory = self.embed(source, source_segments)
        for layer in self.encoder:
            memory = layer(memory, see[0])
        memory, x = self.norms[0](memory), self.embed(target, target_segments)
        for layer in self.decoder:
            x = layer(x, see[1] & causal, memory, see[2])
        with torch.autocast(x.device.type, enabled=False):
            return self.norms[1](x).float() @ self.table.weight.T


def trainer(program, size, device):
    """(forward (x, y, weights) -> loss; step (forward, batch) -> loss, which updates; parameters) of a new model."""
    words = next(how['shape'][0] for path, how in program.about['state'].items() if path.endswith('embedding/table'))
    torch.manual_seed(0)
    model = Transformer(words, *SIZES[size]).to(device)
    optimizer = torch.optim.Adam(model.parameters(), 1e-4, betas=(0.9, 0.98), eps=1e-9, fused=True)

    def forward(x, y, weights):
        with torch.autocast(device, torch.bfloat16, enabled=program.about['precision'] == 'bfloat16'):
            logits = model(*x)
        losses = F.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction='none', label_smoothing=0.1)
        return (losses * weights.flatten()).sum() / weights.sum()

    def step(forward, batch):
        optimizer.zero_grad(set_to_none=True)
        loss = forward(*batch)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1., foreach=True)
        optimizer.step()
        return loss
    return forward, step, sum(p.numel() for p in model.parameters())


def batches(program, device):
    """[(x, y, weights)] on the device: the copies are not part of what is measured."""
    names = [f'x/{name}' for name in ('source', 'source_segments', 'target', 'target_segments')] + ['y', 'weights']
    arrays = [torch.tensor(program.batches[name], device=device) for name in names]
    arrays[:5] = [a.long() for a in arrays[:5]]
    return [([a[i] for a in arrays[:4]], arrays[4][i], arrays[5][i]) for i in range(program.steps)]


def measure(step, forward, data, seconds, wait):
    started = time.perf_counter()
    step(forward, data[0])
    wait()
    first = time.perf_counter() - started
    for i in range(WARM_UP):
        step(forward, data[i % len(data)])
    wait()
    steps, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        for _ in range(10):
            loss = step(forward, data[steps % len(data)])
            steps += 1
        wait()
    return {'step_seconds': (time.perf_counter() - started) / steps, 'compile_seconds': first, 'loss': loss.item()}


def main():
    parser = argparse.ArgumentParser(prog='python -m benchmarks.program_torch', description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('folder', help='folder of a saved program of a Transformer that writes, of packed rows')
    parser.add_argument('--size', required=True, choices=SIZES, help='size of the model of the program')
    parser.add_argument('--seconds', type=float, default=5., help='duration of each measurement (default: 5)')
    args = parser.parse_args()
    torch.set_float32_matmul_precision('high')
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    program = read(args.folder)
    data = batches(program, device)
    found = {'torch': torch.__version__, 'device': torch.cuda.get_device_name() if device == 'cuda' else 'cpu'}
    for name in ('eager', 'compiled'):
        forward, step, found['parameters'] = trainer(program, args.size, device)
        forward = torch.compile(forward) if name == 'compiled' else forward
        found[name] = measure(step, forward, data, args.seconds,
                              torch.cuda.synchronize if device == 'cuda' else lambda: None)
    print(json.dumps(found, indent=2))


if __name__ == '__main__':
    sys.exit(main())
