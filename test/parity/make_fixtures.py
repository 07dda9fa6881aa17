"""Trains the two recipes in plain PyTorch, in float64, and writes down what happened: fixtures/parity.bin (float64, little-endian) and
fixtures/parity.json (where each array stands, and the numbers of every step). parity.test.ts repeats the runs.

    python3 test/parity/make_fixtures.py       (PyTorch 1.13 or later; a few seconds)

The recipes are those of OpenAI's train.py ("openai": eps 6.25e-10, no clipping) and of the simplified script after it ("simple": eps 1e-8, clip 1.0),
with their known faults mended: gradients are zeroed; project, clip, step, normalise, then the average; clip by c / max(norm, c); age counted in rows, dead
decided as the step begins, masked with -inf; no bias in the auxiliary reconstruction, its normaliser centred on the batch mean and detached.
Gradients are autograd's, the optimizer is torch.optim.Adam.
"""

import json
import os

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

D, N, B, STEPS = 12, 48, 32, 20
FULL_AT = (1, 20)

RUNS = {
    "simple": dict(k=4, auxk=8, lr=1e-3, eps=1e-8, clip=1.0, ema=None, dead_rows=50),
    "simple, without AuxK": dict(k=4, auxk=0, lr=1e-3, eps=1e-8, clip=1.0, ema=None, dead_rows=50),
    "simple, hard clipping, average, more dead allowed than there are": dict(k=3, auxk=40, lr=2e-3, eps=1e-8, clip=0.05, ema=0.9, dead_rows=32),
    "openai": dict(k=4, auxk=8, lr=1e-4, eps=6.25e-10, clip=None, ema=0.999, dead_rows=50),
    "openai, nothing ever dead": dict(k=8, auxk=8, lr=1e-3, eps=6.25e-10, clip=None, ema=0.5, dead_rows=10_000_000),
}


class Autoencoder(nn.Module):
    def __init__(self, k, auxk, start):
        super().__init__()
        self.k, self.auxk = k, auxk
        self.encoder = nn.Parameter(start["encoder"].clone())  # [n, d]
        self.latent_bias = nn.Parameter(start["latentBias"].clone())  # [n]
        self.decoder = nn.Parameter(start["decoder"].clone())  # [n, d], unit rows
        self.pre_bias = nn.Parameter(start["preBias"].clone())  # [d]

    def forward(self, x, dead):
        pre = F.linear(x - self.pre_bias, self.encoder, self.latent_bias)
        values, indices = pre.topk(self.k, dim=-1)
        recons = self.decode(indices, values) + self.pre_bias
        auxiliary = None
        if self.auxk and dead.any():
            count = min(self.auxk, int(dead.sum()))
            auxiliary = self.decode(*reversed(pre.masked_fill(~dead, -torch.inf).topk(count, dim=-1)))
        return recons, auxiliary, indices, values

    def decode(self, indices, values):
        latents = torch.zeros(values.shape[0], N, dtype=values.dtype).scatter(1, indices, values.relu())
        return latents @ self.decoder


def train(run, data, start, mse_scale):
    sae = Autoencoder(run["k"], run["auxk"], start)
    optimizer = torch.optim.Adam(sae.parameters(), lr=run["lr"], betas=(0.9, 0.999), eps=run["eps"])
    names = {"encoder": sae.encoder, "latentBias": sae.latent_bias, "decoder": sae.decoder, "preBias": sae.pre_bias}
    averages = {name: torch.zeros_like(p) for name, p in names.items()}
    age = torch.zeros(N, dtype=torch.long)
    steps, full = [], {}
    for step in range(1, STEPS + 1):
        x = data[(step - 1) * B : step * B]
        dead = age > run["dead_rows"]
        recons, auxiliary, indices, values = sae(x, dead)
        mse = (recons - x).pow(2).mean()
        auxk_loss = torch.zeros((), dtype=x.dtype)
        if auxiliary is not None:
            target = (x - recons).detach()
            auxk_loss = (auxiliary - target).pow(2).mean() / (target - target.mean(0)).pow(2).mean()
        loss = mse_scale * mse + auxk_loss / 32

        optimizer.zero_grad()
        loss.backward()
        with torch.no_grad():
            w, g = sae.decoder, sae.decoder.grad
            g -= (w * g).sum(1, keepdim=True) * w
            norm = torch.sqrt(sum(p.grad.pow(2).sum() for p in sae.parameters()))
            if run["clip"] is not None:
                for p in sae.parameters():
                    p.grad *= run["clip"] / norm.clamp(min=run["clip"])
        optimizer.step()
        with torch.no_grad():
            sae.decoder /= sae.decoder.norm(dim=1, keepdim=True)
            if run["ema"] is not None:
                for name, p in names.items():
                    averages[name].lerp_(p, 1 - run["ema"])
        fired = torch.zeros(N, dtype=torch.bool)
        fired[indices[values > 1e-3]] = True
        age = torch.where(fired, torch.zeros_like(age), age + B)

        steps.append(
            dict(
                mse=mse.item(),
                auxkLoss=auxk_loss.item(),
                loss=loss.item(),
                fvu=((recons - x).pow(2).sum() / (x - x.mean(0)).pow(2).sum()).item(),
                l0=(values > 0).sum().item() / B,
                dead=int(dead.sum()),
                gradNorm=norm.item(),
                age=age.tolist(),
                squares={name: p.detach().pow(2).sum().item() for name, p in names.items()},
            )
        )
        if step in FULL_AT:
            for name, p in names.items():
                full[f"{step}/{name}"] = p.detach().clone()
                if run["ema"] is not None:
                    full[f"{step}/ema.{name}"] = averages[name].clone()
    return steps, full


def main():
    torch.manual_seed(7)
    torch.set_default_dtype(torch.float64)
    # Rows of a few features each, some of them rare, around a mean: some latents die.
    features = F.normalize(torch.randn(20, D), dim=1)
    present = torch.rand(STEPS * B, 20) < torch.linspace(0.4, 0.02, 20)
    data = (present * (1 + torch.rand(STEPS * B, 20))) @ features + 0.1 * torch.randn(STEPS * B, D) + torch.linspace(-0.5, 0.5, D)
    encoder = (2 * torch.rand(N, D) - 1) / D**0.5
    start = dict(
        encoder=encoder,
        latentBias=0.05 * torch.randn(N),
        decoder=F.normalize(encoder, dim=1),
        preBias=data.median(0).values,
    )
    arrays = dict(data=data, **{f"start/{name}": value for name, value in start.items()})
    mse_scale = 1 / data.var(0, unbiased=False).mean().item()
    runs = {}
    for title, run in RUNS.items():
        steps, full = train(run, data, start, mse_scale)
        runs[title] = dict(config=run, steps=steps)
        arrays.update({f"{title}/{name}": value for name, value in full.items()})
        print(f"{title}: loss {steps[0]['loss']:.4f} -> {steps[-1]['loss']:.4f}, dead {[s['dead'] for s in steps]}")

    folder = os.path.join(os.path.dirname(os.path.abspath(__file__)), "fixtures")
    os.makedirs(folder, exist_ok=True)
    offsets, at = {}, 0
    with open(os.path.join(folder, "parity.bin"), "wb") as file:
        for name, value in arrays.items():
            offsets[name] = [at, value.numel()]
            at += value.numel()
            file.write(np.ascontiguousarray(value.numpy(), dtype="<f8").tobytes())
    shape = dict(d=D, n=N, B=B, steps=STEPS, fullAt=FULL_AT, mseScale=mse_scale, auxCoef=1 / 32, firedAbove=1e-3)
    with open(os.path.join(folder, "parity.json"), "w") as file:
        json.dump(dict(madeBy=f"make_fixtures.py, PyTorch {torch.__version__}", shape=shape, arrays=offsets, runs=runs), file)
        file.write("\n")


if __name__ == "__main__":
    main()
