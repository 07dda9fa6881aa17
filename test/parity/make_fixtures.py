"""Trains the two recipes in plain PyTorch, in float64, and writes down what happened: fixtures/parity.bin (float64, little-endian) and
fixtures/parity.json (where each array stands, and the numbers of every step). parity.test.ts repeats the runs. From each state of one of them
it also takes one step in float32, and writes down the states (fixtures/states.bin, float32) and how far that step was off; precision.test.ts
compares.

    python3 test/parity/make_fixtures.py       (PyTorch 1.13 or later; a few seconds)

The recipes are those of OpenAI's train.py ("openai": eps 6.25e-10, no clipping) and of the simplified script after it ("simple": eps 1e-8, clip 1.0),
with their known faults mended: gradients are zeroed; project, clip, step, normalise, then the average; clip by c / max(norm, c); age counted in rows, dead
decided as the step begins, masked with -inf; no bias in the auxiliary reconstruction, its normaliser centred on the batch mean and detached.
Gradients are autograd's, the optimizer is torch.optim.Adam.
"""

import json
import os

import sys

try:
    import numpy as np
    import torch
    from torch import nn
    from torch.nn import functional as F
except ImportError as missing:
    sys.exit(f"make_fixtures.py: {missing}; fixtures need PyTorch (Debian: apt install python3-torch), the tests run without it on the committed ones")

D, N, B, STEPS = 12, 48, 32, 20
FULL_AT = (1, 20)
PRECISION_OF = "simple"

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


class Training:
    """The optimizer's side of a run, in the dtype of `start`; `step` takes one batch."""

    def __init__(self, run, start):
        self.run = run
        self.sae = sae = Autoencoder(run["k"], run["auxk"], start)
        self.optimizer = torch.optim.Adam(sae.parameters(), lr=run["lr"], betas=(0.9, 0.999), eps=run["eps"])
        self.params = {"encoder": sae.encoder, "latentBias": sae.latent_bias, "decoder": sae.decoder, "preBias": sae.pre_bias}
        self.averages = {name: torch.zeros_like(p) for name, p in self.params.items()}
        self.age = torch.zeros(N, dtype=torch.long)
        self.updates = 0

    def step(self, x, mse_scale):
        run, sae = self.run, self.sae
        dead = self.age > run["dead_rows"]
        recons, auxiliary, indices, values = sae(x, dead)
        mse = (recons - x).pow(2).mean()
        auxk_loss = torch.zeros((), dtype=x.dtype)
        if auxiliary is not None:
            target = (x - recons).detach()
            auxk_loss = (auxiliary - target).pow(2).mean() / (target - target.mean(0)).pow(2).mean()
        loss = mse_scale * mse + auxk_loss / 32

        self.optimizer.zero_grad()
        loss.backward()
        gradient = {name: p.grad.clone() for name, p in self.params.items()}
        with torch.no_grad():
            w, g = sae.decoder, sae.decoder.grad
            g -= (w * g).sum(1, keepdim=True) * w
            norm = torch.sqrt(sum(p.grad.pow(2).sum() for p in sae.parameters()))
            if run["clip"] is not None:
                for p in sae.parameters():
                    p.grad *= run["clip"] / norm.clamp(min=run["clip"])
        self.optimizer.step()
        with torch.no_grad():
            sae.decoder /= sae.decoder.norm(dim=1, keepdim=True)
            if run["ema"] is not None:
                for name, p in self.params.items():
                    self.averages[name].lerp_(p, 1 - run["ema"])
        fired = torch.zeros(N, dtype=torch.bool)
        fired[indices[values > 1e-3]] = True
        self.age = torch.where(fired, torch.zeros_like(self.age), self.age + B)
        self.updates += 1
        numbers = dict(
            mse=mse.item(),
            auxkLoss=auxk_loss.item(),
            loss=loss.item(),
            fvu=((recons - x).pow(2).sum() / (x - x.mean(0)).pow(2).sum()).item(),
            l0=(values > 0).sum().item() / B,
            dead=int(dead.sum()),
            gradNorm=norm.item(),
            age=self.age.tolist(),
            squares={name: p.detach().pow(2).sum().item() for name, p in self.params.items()},
        )
        return numbers, gradient

    def moments(self, which):
        """Adam's first ("exp_avg") or second ("exp_avg_sq") moments; zeros before the first update."""
        held = self.optimizer.state
        return {name: held[p][which] if held[p] else torch.zeros_like(p) for name, p in self.params.items()}

    def arrays(self):
        weights = {name: p.detach() for name, p in self.params.items()}
        return dict(weights=weights, m=self.moments("exp_avg"), v=self.moments("exp_avg_sq"))

    def taken_up(self, dtype):
        """The same run from the state as it is now, rounded to float32, in another dtype."""
        rounded = {kind: {name: t.float().to(dtype) for name, t in group.items()} for kind, group in self.arrays().items()}
        other = Training(self.run, rounded["weights"])
        other.age, other.updates = self.age.clone(), self.updates
        if self.updates > 0:
            for name, p in other.params.items():
                moments = dict(exp_avg=rounded["m"][name], exp_avg_sq=rounded["v"][name])
                other.optimizer.state[p] = dict(step=torch.tensor(float(self.updates)), **moments)
        return other


def train(run, data, start, mse_scale):
    training = Training(run, start)
    steps, full = [], {}
    for step in range(1, STEPS + 1):
        numbers, _ = training.step(data[(step - 1) * B : step * B], mse_scale)
        steps.append(numbers)
        if step in FULL_AT:
            for name, p in training.params.items():
                full[f"{step}/{name}"] = p.detach().clone()
                if run["ema"] is not None:
                    full[f"{step}/ema.{name}"] = training.averages[name].clone()
    return steps, full


def precision(run, data, start, mse_scale):
    """
    One step from each of the states of a float64 run, rounded to float32 once so that what is measured is the step and not that rounding: in float64,
    which is the truth, and in float32. Returns the states and, for each, the error of float32 (median over the elements that are not 0) and the
    truth's sums of squares.
    """
    training = Training(run, start)
    states, findings = [], []
    for step in range(STEPS):
        x = data[step * B : (step + 1) * B].float()
        states += [t.float().flatten() for group in training.arrays().values() for t in group.values()]
        age, updates = training.age.tolist(), training.updates
        results = []
        for dtype in (torch.float64, torch.float32):
            one = training.taken_up(dtype)
            numbers, gradient = one.step(x.to(dtype), mse_scale)
            kinds = dict(gradient=gradient, **one.arrays())
            arrays = {f"{kind}/{name}": t.double() for kind, group in kinds.items() for name, t in group.items()}
            results.append((numbers["loss"], arrays))
        (loss, truth), (loss32, found) = results
        errors = {name: (found[name] - t).abs()[t != 0].median().item() for name, t in truth.items()}
        errors["loss"] = abs(loss32 - loss)
        squares = {name: t.pow(2).sum().item() for name, t in truth.items()}
        findings.append(dict(age=age, updates=updates, loss=loss, squares=squares, errors=errors))
        training.step(data[step * B : (step + 1) * B], mse_scale)
    return torch.cat(states), findings


def main():
    torch.set_num_threads(1)
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

    states, findings = precision(RUNS[PRECISION_OF], data, start, mse_scale)
    folder = os.path.join(os.path.dirname(os.path.abspath(__file__)), "fixtures")
    os.makedirs(folder, exist_ok=True)
    offsets, at = {}, 0
    with open(os.path.join(folder, "parity.bin"), "wb") as file:
        for name, value in arrays.items():
            offsets[name] = [at, value.numel()]
            at += value.numel()
            file.write(np.ascontiguousarray(value.numpy(), dtype="<f8").tobytes())
    with open(os.path.join(folder, "states.bin"), "wb") as file:
        file.write(np.ascontiguousarray(states.numpy(), dtype="<f4").tobytes())
    shape = dict(d=D, n=N, B=B, steps=STEPS, fullAt=FULL_AT, mseScale=mse_scale, auxCoef=1 / 32, firedAbove=1e-3)
    with open(os.path.join(folder, "parity.json"), "w") as file:
        found = dict(runs=runs, precision=dict(run=PRECISION_OF, states=findings))
        json.dump(dict(madeBy=f"make_fixtures.py, PyTorch {torch.__version__}", shape=shape, arrays=offsets, **found), file)
        file.write("\n")


if __name__ == "__main__":
    main()
