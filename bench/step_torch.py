"""The training step of the second listing of the reference (my_train.py) in PyTorch on the CPU, for rivals.mjs: the same operations in the same order, with what needs a GPU,
a network or a file taken out (`.cuda()`, `fused=True`, wandb, h5py, tqdm). Says on stdout, as one line of JSON, what it runs on; then for each line "none" or a number
(auxk) on stdin it does one step and answers with one line: ms, cpu_ms, dead. Usage: step_torch.py D N K BATCH THREADS
"""

import ctypes
import json
import os
import re
import resource
import sys
import time

import torch
import torch.nn as nn

AUXK_COEF = 1 / 32
DEAD_STEPS = 10_000_000 // 1024
LR = 1e-5


class FastAutoencoder(nn.Module):
    def __init__(self, n_dirs, d_model, k, dead_steps_threshold):
        super().__init__()
        self.n_dirs = n_dirs
        self.k = k
        self.auxk = None
        self.dead_steps_threshold = dead_steps_threshold
        self.encoder = nn.Linear(d_model, n_dirs, bias=False)
        self.decoder = nn.Linear(n_dirs, d_model, bias=False)
        self.pre_bias = nn.Parameter(torch.zeros(d_model))
        self.latent_bias = nn.Parameter(torch.zeros(n_dirs))
        self.register_buffer("stats_last_nonzero", torch.zeros(n_dirs, dtype=torch.long))
        self.decoder.weight.data = self.encoder.weight.data.T.clone()
        unit_norm_decoder_(self)

    def auxk_mask(self, x):
        dead_mask = (self.stats_last_nonzero > self.dead_steps_threshold).float()
        x = x * dead_mask
        return x

    def forward(self, x):
        x_centered = x - self.pre_bias
        pre_act = nn.functional.linear(x_centered, self.encoder.weight, self.latent_bias)
        vals, inds = torch.topk(pre_act, self.k, dim=-1)
        fired = torch.zeros_like(self.stats_last_nonzero)
        fired.scatter_add_(0, inds.reshape(-1), (vals > 1e-3).to(fired.dtype).reshape(-1))
        self.stats_last_nonzero *= 1 - fired.clamp(max=1)
        self.stats_last_nonzero += 1
        auxk_vals, auxk_inds = None, None
        if self.auxk is not None:
            masked = self.auxk_mask(pre_act.clone())
            auxk_vals, auxk_inds = torch.topk(masked, self.auxk, dim=-1)
        recons = self.decode_sparse(inds, torch.relu(vals))
        auxk_vals = torch.relu(auxk_vals) if auxk_vals is not None else None
        return recons + self.pre_bias, auxk_inds, auxk_vals

    def decode_sparse(self, inds, vals):
        latents = torch.zeros(inds.shape[0], self.n_dirs, device=inds.device, dtype=vals.dtype)
        latents.scatter_(1, inds, vals)
        return self.decoder(latents)


def unit_norm_decoder_(ae):
    ae.decoder.weight.data /= ae.decoder.weight.data.norm(dim=0, keepdim=True)


def unit_norm_decoder_grad_adjustment_(ae):
    grad = ae.decoder.weight.grad
    proj = torch.einsum("ij,ij->j", grad, ae.decoder.weight.data)
    ae.decoder.weight.grad -= proj * ae.decoder.weight.data


def normalized_mse(y_hat, y):
    return (y_hat - y).pow(2).sum() / y.pow(2).sum()


def loss_of(ae, batch, recons, auxk_inds, auxk_vals, mse_scale):
    main_mse = (recons - batch).pow(2).mean()
    auxk_loss = torch.tensor(0.0, device=main_mse.device)
    if auxk_inds is not None:
        auxk_recons = ae.decode_sparse(auxk_inds, auxk_vals)
        residual = (batch - recons).detach()
        auxk_loss = normalized_mse(auxk_recons, residual)
    return main_mse * mse_scale + AUXK_COEF * auxk_loss


def step(ae, opt, batch, mse_scale):
    """One turn of training_loop_, with clip_grad None."""
    recons, auxk_inds, auxk_vals = ae(batch)
    loss = loss_of(ae, batch, recons, auxk_inds, auxk_vals, mse_scale)
    loss.backward()
    unit_norm_decoder_grad_adjustment_(ae)
    opt.step()
    opt.zero_grad()
    unit_norm_decoder_(ae)


def pin(cpus):
    """This thread on the first CPU, each pool's first worker on the second, and so on: the workers of a pool follow one another in the order of their numbers."""
    if not hasattr(os, "sched_setaffinity"):
        return
    threads = sorted(int(name) for name in os.listdir("/proc/self/task"))
    me = threads.index(os.getpid())
    workers = threads[:me] + threads[me + 1 :]
    os.sched_setaffinity(os.getpid(), {cpus[0]})
    for i, thread in enumerate(workers):
        os.sched_setaffinity(thread, {cpus[1 + i % (len(cpus) - 1)]} if len(cpus) > 1 else {cpus[0]})


def blas():
    """What serves the matrix products: MKL where PyTorch was built with it; else what is loaded: OpenBLAS tells its version and kernels."""
    config = torch.__config__.show()
    built = re.search(r"BLAS_INFO=(\w+)", config)
    if built and built.group(1) == "mkl":
        version = re.search(r"Math Kernel Library Version (\S+)", config)
        return f"MKL {version.group(1) if version else ''}".strip()
    with open("/proc/self/maps") as maps:
        loaded = sorted({line.split()[-1] for line in maps if re.search(r"lib\w*blas[^/]*\.so", line)})
    for path in loaded:
        try:
            describe = ctypes.CDLL(path).openblas_get_config
        except (OSError, AttributeError):
            continue
        describe.restype = ctypes.c_char_p
        return describe().decode().strip()
    names = ", ".join(os.path.basename(path) for path in loaded) or "built in"
    return f"{built.group(1) if built else 'unknown'} BLAS ({names})"


def main():
    d, n, k, rows, threads = (int(word) for word in sys.argv[1:6])
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    ae = FastAutoencoder(n, d, k, DEAD_STEPS)
    # Every fourth latent is held back as in src/bench/workload.ts, so that it stays dead.
    dead = torch.arange(n) % 4 == 0
    ae.encoder.weight.data[dead] *= 0.5
    opt = torch.optim.Adam(ae.parameters(), lr=LR, eps=1e-8)
    batch = torch.rand(rows, d) - 0.5
    mse_scale = 1 / batch.var(dim=0).mean().item()

    def one(auxk):
        ae.auxk = auxk
        ae.stats_last_nonzero[dead] = 2 * DEAD_STEPS
        before = resource.getrusage(resource.RUSAGE_SELF)
        began = time.perf_counter()
        step(ae, opt, batch, mse_scale)
        ms = 1000 * (time.perf_counter() - began)
        after = resource.getrusage(resource.RUSAGE_SELF)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return dict(ms=ms, cpu_ms=1000 * cpu, dead=int((ae.stats_last_nonzero > DEAD_STEPS).sum()))

    one(None)
    if hasattr(os, "sched_getaffinity"):
        cpus = sorted(os.sched_getaffinity(0))
        if len(cpus) == threads:
            pin(cpus)
    print(json.dumps(dict(name=f"PyTorch {torch.__version__}", blas=blas(), threads=torch.get_num_threads())), flush=True)
    for line in sys.stdin:
        word = line.strip()
        print(json.dumps(one(None if word == "none" else int(word))), flush=True)


if __name__ == "__main__":
    main()
