"""Trains every architecture in plain PyTorch, in float64, for 20 steps and writes down what happened: fixtures/architectures.json, with the numbers
of every step, and fixtures/architectures.bin, the targets of the transcoders (float32, little-endian). architectures.test.ts repeats the runs.

    python3 test/parity/make_architecture_fixtures.py       (PyTorch 1.13 or later; a few seconds)

Inputs and start are those of make_fixtures.py (fixtures/parity.bin), which runs first. Gradients are autograd's, the optimizer is
torch.optim.Adam. Only the straight-through gradients of JumpReLU's thresholds are written out, from the paper: Rajamanoharan et al. 2024
(arXiv 2407.14435), equations 11 and 12. Of each parameter and gradient a step has two sums: its squares, and its product with cos(0), cos(1), ...

A run has the options of the library and nothing else: what they mean is written down once more here.
"""

import json
import math
import os
import sys

try:
    import numpy as np
    import torch
    from torch.nn import functional as F
except ImportError as missing:
    sys.exit(
        f"make_architecture_fixtures.py: {missing}; fixtures need PyTorch (Debian: apt install python3-torch), the tests run without it on the committed ones"
    )

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "fixtures")
D, D_OUT, N, B, STEPS = 12, 9, 48, 32, 20
DIGITS = 12
COMMON = dict(latents=N, batch=B, lr=4e-3, eps=1e-8, deadTokens=50, mseScale=1.5)
PREFIXES = dict(prefixes=[3, 6, 12, 24, 48], prefixWeights=[1, 3, 2, 0.5, 1.5])
JUMPRELU = dict(architecture="jumprelu", bandwidth=0.3)

# `options`: of the library.
# `thresholds`: where those of JumpReLU start, from the first to the last latent. `transcoder`: of it, what its decoder starts with (unit: random rows of norm 1).
RUNS = {
    "topk, k annealing": dict(options=dict(architecture="topk", k=3, auxk=8, kAnneal="9:7", clip=0.5)),
    "topk, multi-TopK": dict(options=dict(architecture="topk", k=3, multiTopk=0.125, clip=0.5)),
    "topk, multi-TopK, k annealing, average": dict(options=dict(architecture="topk", k=3, multiTopk=0.7, kAnneal="20:9", ema=0.9)),
    "topk, free decoder rows, other betas": dict(
        options=dict(architecture="topk", k=3, auxk=8, clip=0.5, decoderNorm="free", beta1=0.0, beta2=0.99)
    ),
    "batchtopk": dict(options=dict(architecture="batchtopk", k=3.7, auxk=8, clip=0.5)),
    "batchtopk, the mean starts at 0": dict(options=dict(architecture="batchtopk", k=3.7, auxk=0, thresholdFrom="zero")),
    "batchtopk, the mean starts late, average": dict(
        options=dict(architecture="batchtopk", k=2.3, auxk=40, thresholdDecay=0.9, thresholdStart=5, ema=0.9)
    ),
    "batchtopk, k annealing": dict(options=dict(architecture="batchtopk", k=2.25, auxk=8, kAnneal="7.5:12")),
    "matryoshka over batchtopk": dict(options=dict(architecture="matryoshka", k=4.2, auxk=8, clip=0.5, **PREFIXES)),
    "matryoshka over topk": dict(options=dict(architecture="matryoshka", k=4, auxk=8, prefixSelection="topk", **PREFIXES)),
    "matryoshka over batchtopk, fractions of equal weight": dict(
        options=dict(architecture="matryoshka", k=4.2, auxk=0, prefixes=[0.1, 0.3, 0.55])
    ),
    "jumprelu, step": dict(options=dict(**JUMPRELU, targetL0=6, deadPenalty=0, clip=0.5)),
    "jumprelu, step with a fixed coefficient, dead latents": dict(
        options=dict(**JUMPRELU, targetL0=0, sparsityCoef=0.02, sparsityWarmup=0.5, deadPenalty=0.01)
    ),
    "jumprelu, tanh, average": dict(
        options=dict(**JUMPRELU, sparsityPenalty="tanh", targetL0=5, tanhScale=3, deadPenalty=0.02, ema=0.9)
    ),
    "jumprelu, tanh, thresholds around 0": dict(
        options=dict(**JUMPRELU, sparsityPenalty="tanh", targetL0=5, tanhScale=3, deadPenalty=0), thresholds=[-0.1, 0.1]
    ),
    "jumprelu, quadratic": dict(options=dict(**JUMPRELU, sparsityPenalty="quadratic", targetL0=8, deadPenalty=0.01)),
    "transcoder, topk": dict(options=dict(architecture="topk", k=4, auxk=8), transcoder="zeros"),
    "transcoder, topk, decoder rows of norm 1": dict(
        options=dict(architecture="topk", k=4, auxk=8, decoderNorm="unit"), transcoder="unit"
    ),
    "transcoder, topk, skip": dict(options=dict(architecture="topk", k=4, auxk=8, skip=True, clip=0.5), transcoder="zeros"),
    "transcoder, topk, multi-TopK": dict(options=dict(architecture="topk", k=4, multiTopk=0.25), transcoder="random"),
    "transcoder, batchtopk, skip, average": dict(
        options=dict(architecture="batchtopk", k=3.7, auxk=8, skip=True, ema=0.9), transcoder="random"
    ),
    "transcoder, matryoshka, skip": dict(
        options=dict(architecture="matryoshka", k=4.2, auxk=8, skip=True, **PREFIXES), transcoder="random"
    ),
    "transcoder, jumprelu, skip": dict(
        options=dict(**JUMPRELU, targetL0=6, deadPenalty=0.01, skip=True), transcoder="random"
    ),
}
DEFAULTS = dict(
    clip=0, ema=0, skip=False, auxk=0, auxkCoef=1 / 32, kAnneal=None, thresholdDecay=0.99, thresholdStart=0, thresholdFrom="first", prefixes=None, prefixWeights=None,
    beta1=0.9, beta2=0.999,
    prefixSelection="batchtopk", multiTopk=None, targetL0=32, sparsityPenalty="step", sparsityCoef=None, sparsityWarmup=0, tanhScale=4, deadPenalty=3e-6,
)


class Jump(torch.autograd.Function):
    """z where it is above theta and above 0; the gradient of theta is -(theta / e) K((z - theta) / e) (equation 11), K the window |u| < 1/2."""

    @staticmethod
    def forward(context, z, theta, e):
        context.save_for_backward(z, theta)
        context.e = e
        return z * ((z > theta) & (z > 0))

    @staticmethod
    def backward(context, out):
        z, theta = context.saved_tensors
        window = ((z - theta).abs() / context.e < 0.5).to(z.dtype)
        return out * ((z > theta) & (z > 0)), (-theta / context.e * window * out).sum(0), None


class Count(torch.autograd.Function):
    """1 where z is above theta and above 0; the gradient of theta is -(1 / e) K((z - theta) / e) (equation 12)."""

    @staticmethod
    def forward(context, z, theta, e):
        context.save_for_backward(z, theta)
        context.e = e
        return ((z > theta) & (z > 0)).to(z.dtype)

    @staticmethod
    def backward(context, out):
        z, theta = context.saved_tensors
        window = ((z - theta).abs() / context.e < 0.5).to(z.dtype)
        return None, (-1 / context.e * window * out).sum(0), None


def annealed(o, step):
    if o["kAnneal"] is None:
        return o["k"]
    first, steps = (float(part) for part in o["kAnneal"].split(":"))
    return o["k"] if step >= steps else first + (o["k"] - first) * step / steps


def highest(z, k):
    """z [B, n] where it is among the k highest of its row and above 0, else 0."""
    values, indices = z.topk(min(k, z.shape[1]), dim=1)
    return torch.zeros_like(z).scatter(1, indices, values.relu())


def highest_of_batch(z, kept):
    values, indices = z.flatten().topk(kept)
    return torch.zeros_like(z).flatten().scatter(0, indices, values.relu()).view_as(z)


class Training:
    def __init__(self, run, start):
        self.run, self.o = run, {**DEFAULTS, **COMMON, **run["options"]}
        self.kind = self.o["architecture"]
        self.transcodes = "transcoder" in run
        self.unit = self.o.get("decoderNorm", "free" if self.transcodes else "unit") == "unit"
        self.p = {name: value.clone().requires_grad_() for name, value in start.items()}
        self.optimizer = torch.optim.Adam(self.p.values(), lr=self.o["lr"], betas=(self.o["beta1"], self.o["beta2"]), eps=self.o["eps"])
        self.cut = 0.0
        self.multiplier, self.smoothed = 1.0, 0.0
        self.averages = {name: torch.zeros_like(p) for name, p in self.p.items()}
        self.age = torch.zeros(N, dtype=torch.long)

    def prefixes(self):
        """Ends and weights, which sum to 1."""
        o = self.o
        if self.kind != "matryoshka":
            return [N], [1.0]
        ends = o["prefixes"] if max(o["prefixes"]) > 1 else [math.floor(N * part + 0.5) for part in o["prefixes"]]
        ends = ends if ends[-1] == N else ends + [N]
        weights = o["prefixWeights"] or [1] * len(ends)
        return ends, [weight / sum(weights) for weight in weights]

    def select(self, z, step):
        """Codes [B, n], and of JumpReLU which of them are on, with gradients of the thresholds."""
        o = self.o
        if self.kind == "jumprelu":
            theta = self.p["threshold"]
            return Jump.apply(z, theta, o["bandwidth"]), Count.apply(z, theta, o["bandwidth"])
        k = annealed(o, step)
        if self.kind == "topk" or (self.kind == "matryoshka" and o["prefixSelection"] == "topk"):
            return highest(z, math.floor(k + 0.5)), None
        return highest_of_batch(z, math.floor(k * B)), None

    def sparsity(self, z, f, on, dead, step):
        """The sparsity loss, without that of dead latents, and the latter."""
        o = self.o
        coefficient = o["sparsityCoef"]
        if coefficient is None:
            coefficient = 1 if o["sparsityPenalty"] == "quadratic" else 0.1 / o["targetL0"]
        if o["sparsityWarmup"] > 0:
            coefficient *= min(1, (step + 1) / (o["sparsityWarmup"] * STEPS))
        coefficient *= self.multiplier
        l0 = on.sum() / B
        amount = dict(
            step=l0,
            tanh=torch.tanh(o["tanhScale"] * f).sum() / B,
            quadratic=(l0 / o["targetL0"] - 1) ** 2 if o["targetL0"] else None,
        )[o["sparsityPenalty"]]
        pull = (self.p["threshold"] - z).relu()[:, dead].sum() / B
        return coefficient * amount, o["deadPenalty"] * pull

    def control(self, l0):
        o = self.o
        if o["targetL0"] == 0 or o["sparsityPenalty"] == "quadratic":
            return
        error = lambda: self.smoothed / o["targetL0"] - 1
        integral = self.multiplier - (20 * error() if self.smoothed > 0 else 0)
        self.smoothed = l0 if self.smoothed == 0 else 0.9 * self.smoothed + 0.1 * l0
        change = min(0.05, max(-0.05, 0.02 * error()))
        self.multiplier = min(1e4, max(-1e4, math.sinh(math.asinh(integral) + change) + 20 * error()))

    def move_cut(self, f, step):
        lowest = f[f > 0].min().item()
        if step < self.o["thresholdStart"]:
            return
        replaces = step == self.o["thresholdStart"] and self.o["thresholdFrom"] == "first"
        decay = 0 if replaces else self.o["thresholdDecay"]
        self.cut = decay * self.cut + (1 - decay) * lowest

    def step(self, x, y, step):
        o, p = self.o, self.p
        dead = self.age > o["deadTokens"]
        z = F.linear(x if self.transcodes else x - p["preBias"], p["encoder"], p["latentBias"])
        f, on = self.select(z, step)
        ends, weights = self.prefixes()
        base = p["preBias"] + (F.linear(x, p["skip"]) if o["skip"] else 0)
        recons = [base + f[:, :end] @ p["decoder"][:end] for end in ends]
        mse = (recons[-1] - y).pow(2).mean()
        loss = o["mseScale"] * sum(weight * (recon - y).pow(2).mean() for weight, recon in zip(weights, recons))
        if o["multiTopk"] is not None:
            wide = base + highest(z, 4 * o["k"]) @ p["decoder"]
            loss = loss + o["multiTopk"] * o["mseScale"] * (wide - y).pow(2).mean()
        auxk_loss = torch.zeros(())
        if o["auxk"] and dead.any():
            # Those that are not candidates are -inf: neither above 0 nor with a gradient.
            codes = highest(z.masked_fill(~dead, -torch.inf), min(o["auxk"], int(dead.sum())))
            target = (y - recons[-1]).detach()
            auxk_loss = (codes @ p["decoder"] - target).pow(2).mean() / (target - target.mean(0)).pow(2).mean()
        loss = loss + o["auxkCoef"] * auxk_loss
        sparsity = pull = torch.zeros(())
        if self.kind == "jumprelu":
            sparsity, pull = self.sparsity(z, f, on, dead, step)

        self.optimizer.zero_grad()
        (loss + sparsity + pull).backward()
        gradient = {name: summed(each.grad) for name, each in p.items()}
        with torch.no_grad():
            if self.unit:
                w, g = p["decoder"], p["decoder"].grad
                g -= (w * g).sum(1, keepdim=True) * w
            norm = torch.sqrt(sum(each.grad.pow(2).sum() for each in p.values()))
            if o["clip"] > 0:
                for each in p.values():
                    each.grad *= o["clip"] / norm.clamp(min=o["clip"])
        self.optimizer.step()
        l0 = (f > 0).sum().item() / B
        with torch.no_grad():
            if self.unit:
                p["decoder"] /= p["decoder"].norm(dim=1, keepdim=True)
            if o["ema"] > 0:
                for name, each in p.items():
                    self.averages[name].lerp_(each, 1 - o["ema"])
        if self.kind == "jumprelu":
            self.control(l0)
        if self.kind == "batchtopk" or (self.kind == "matryoshka" and o["prefixSelection"] == "batchtopk"):
            self.move_cut(f.detach(), step)
        self.age = torch.where((f > 1e-3).any(0), torch.zeros_like(self.age), self.age + B)
        variation = (y - y.mean(0)).pow(2).sum()
        found = dict(
            mse=mse.item(),
            auxkLoss=auxk_loss.item(),
            loss=loss.item() + sparsity.item(),
            sparsityLoss=sparsity.item(),
            fvu=[((recon - y).pow(2).sum() / variation).item() for recon in recons],
            l0=l0,
            dead=int(dead.sum()),
            gradNorm=norm.item(),
            age=int(self.age.sum()),
            cut=self.cut,
            multiplier=self.multiplier,
            smoothed=self.smoothed,
            gradient=gradient,
            weights={name: summed(each.detach()) for name, each in p.items()},
        )
        if o["multiTopk"] is not None:
            found["wideFvu"] = ((wide - y).pow(2).sum() / variation).item()
        if o["ema"] > 0:
            found["averages"] = {name: summed(each) for name, each in self.averages.items()}
        window = (z - p["threshold"]).abs().lt(o["bandwidth"] / 2).sum().item() / B if self.kind == "jumprelu" else 0
        return found, window


def summed(t):
    t = t.flatten()
    return [t.pow(2).sum().item(), (t * torch.cos(torch.arange(len(t), dtype=t.dtype))).sum().item()]


def rounded(value):
    if isinstance(value, dict):
        return {name: rounded(each) for name, each in value.items()}
    if isinstance(value, list):
        return [rounded(each) for each in value]
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def parity_arrays():
    with open(os.path.join(FOLDER, "parity.json")) as file:
        places = json.load(file)["arrays"]
    numbers = np.fromfile(os.path.join(FOLDER, "parity.bin"), dtype="<f8")
    return lambda name: torch.from_numpy(numbers[places[name][0] : sum(places[name])].copy())


def start_of(run, array):
    start = dict(
        encoder=array("start/encoder").view(N, D),
        latentBias=array("start/latentBias"),
        decoder=array("start/decoder").view(N, D),
        preBias=array("start/preBias"),
    )
    if "transcoder" in run:
        start["decoder"] = torch.zeros(N, D_OUT) if run["transcoder"] == "zeros" else start["decoder"][:, :D_OUT]
        if run["transcoder"] == "unit":
            start["decoder"] /= start["decoder"].norm(dim=1, keepdim=True)
        start["preBias"] = start["preBias"][:D_OUT]
        if run["options"].get("skip"):
            start["skip"] = torch.zeros(D_OUT, D)
    if run["options"]["architecture"] == "jumprelu":
        first, last = run.get("thresholds", [0.1, 0.9])
        start["threshold"] = first + (last - first) * torch.arange(N, dtype=torch.float64) / (N - 1)
    return start


def main():
    torch.set_num_threads(1)
    torch.manual_seed(11)
    torch.set_default_dtype(torch.float64)
    array = parity_arrays()
    data = array("data").view(STEPS * B, D)
    hidden = torch.tanh(data @ torch.randn(D, 2 * D_OUT) / 2)
    targets = hidden @ torch.randn(2 * D_OUT, D_OUT) / 3 + data @ torch.randn(D, D_OUT) / 6 + 0.1 * torch.randn(STEPS * B, D_OUT)
    targets = (targets + torch.linspace(-0.3, 0.4, D_OUT)).float()
    runs = {}
    for title, run in RUNS.items():
        training = Training(run, start_of(run, array))
        steps = []
        for step in range(STEPS):
            rows = slice(step * B, (step + 1) * B)
            y = targets[rows].double() if training.transcodes else data[rows]
            found, window = training.step(data[rows], y, step)
            steps.append(found)
        runs[title] = dict(**run, steps=steps)
        first, last = steps[0], steps[-1]
        print(
            f"{title}: loss {first['loss']:.4f} -> {last['loss']:.4f}, L0 {first['l0']:.1f} -> {last['l0']:.1f}, dead {max(s['dead'] for s in steps)}, "
            f"in the window {window:.1f}, cut {last['cut']:.3f}, multiplier {last['multiplier']:.3f}"
        )
    with open(os.path.join(FOLDER, "architectures.bin"), "wb") as file:
        file.write(np.ascontiguousarray(targets.numpy(), dtype="<f4").tobytes())
    with open(os.path.join(FOLDER, "architectures.json"), "w") as file:
        shape = dict(d=D, dOut=D_OUT, n=N, B=B, steps=STEPS, common=COMMON)
        made = f"make_architecture_fixtures.py, PyTorch {torch.__version__}"
        json.dump(rounded(dict(madeBy=made, shape=shape, runs=runs)), file, separators=(",", ":"))
        file.write("\n")


if __name__ == "__main__":
    main()
