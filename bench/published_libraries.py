"""The published trainers of SAELens, dictionary_learning and sparsify, for published.py. Each function runs a library's own trainer class on given rows from a given start, and
returns the losses of every step, by the library's own definition. `change` is called with the trainer before the first step: it takes out one difference, to show what it explains.
Packages that only language models need (transformers, datasets, transformer_lens, wandb and others) are replaced by empty ones.
"""

import dataclasses
import importlib
import importlib.abc
import importlib.machinery
import json
import os
import sys
import tempfile
import types

import torch
from torch import nn

# What the libraries import and a training step does not use.
UNUSED = ["accelerate", "datasets", "huggingface_hub", "jaxtyping", "natsort", "nnsight", "schedulefree", "simple_parsing", "transformer_lens", "transformers", "wandb"]


class Absent:
    """What an absent package has under any name."""

    def __init__(self, *_, **__):
        pass

    def __class_getitem__(cls, _):
        return cls


class AbsentModule(types.ModuleType):
    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return Absent


class AbsentFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] not in UNUSED:
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec):
        return AbsentModule(spec.name)

    def exec_module(self, module):
        for name, value in GIVEN.get(module.__name__, {}).items():
            setattr(module, name, value)


class Hook(nn.Module):
    def forward(self, x):
        return x


class Rooted(nn.Module):
    def setup(self):
        pass


class Saved:
    def to_dict(self):
        return dataclasses.asdict(self)

    def save_json(self, path):
        with open(path, "w") as file:
            json.dump(self.to_dict(), file)


def linear_schedule(optimizer, warmup, steps):
    """The learning rate of transformers' get_linear_schedule_with_warmup: step / warmup, then a straight line to 0."""

    def factor(step):
        return step / warmup if step < warmup else max(0, (steps - step) / max(1, steps - warmup))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


GIVEN = {
    "accelerate.utils": dict(send_to_device=lambda data, _: data),
    "natsort": dict(natsorted=sorted),
    "simple_parsing": dict(
        Serializable=Saved,
        helpers=types.SimpleNamespace(
            field=lambda default, **_: dataclasses.field(default=default),
            dict_field=lambda default, **_: dataclasses.field(default_factory=lambda: dict(default)),
        ),
        list_field=lambda *items: dataclasses.field(default_factory=lambda: list(items)),
    ),
    "transformer_lens.hook_points": dict(HookPoint=Hook, HookedRootModule=Rooted),
    "transformers": dict(get_linear_schedule_with_warmup=linear_schedule),
}

sys.meta_path.append(AbsentFinder())


def package(name, folder, **values):
    """A package of which only its modules are imported, not its __init__.py."""
    module = types.ModuleType(name)
    module.__path__ = [folder]
    module.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=True)
    module.__dict__.update(values)
    sys.modules[name] = module


def version_in(folder):
    with open(os.path.join(folder, "__init__.py")) as file:
        return next(line.split('"')[1] for line in file if line.startswith("__version__"))


def open_packages(folder):
    """Makes the packages importable; their versions."""
    at = {name: os.path.join(folder, name) for name in ("sae_lens", "dictionary_learning", "sparsify")}
    versions = {name: version_in(path) for name, path in at.items()}
    import logging

    package("sae_lens", at["sae_lens"], __version__=versions["sae_lens"], logger=logging.getLogger("sae_lens"))
    for inner in ("saes", "training", "loading"):
        package(f"sae_lens.{inner}", os.path.join(at["sae_lens"], inner))
    for name in ("pretrained_sae_loaders", "pretrained_saes_directory"):
        sys.modules[f"sae_lens.loading.{name}"] = AbsentModule(f"sae_lens.loading.{name}")
    package("dictionary_learning", at["dictionary_learning"])
    package("dictionary_learning.trainers", os.path.join(at["dictionary_learning"], "trainers"))
    package("sparsify", at["sparsify"])
    return versions


def batches(rows, batch):
    return [rows[first : first + batch] for first in range(0, len(rows), batch)]


def fill(module, values):
    """Writes the start into parameters, by their names."""
    with torch.no_grad():
        for name, value in values.items():
            parameter = module.get_parameter(name)
            assert parameter.shape == value.shape, (name, parameter.shape, value.shape)
            parameter.copy_(value)


def unit_decoder(weight, optimizer):
    """Keeps the rows of `weight` at norm 1, as Saetta does: their gradient is projected before clipping, and they are scaled after the step."""

    def project(_):
        with torch.no_grad():
            weight.grad -= (weight.grad * weight).sum(1, keepdim=True) * weight

    def scale(*_):
        with torch.no_grad():
            weight.div_(weight.norm(dim=1, keepdim=True))

    weight.register_post_accumulate_grad_hook(project)
    optimizer.register_step_post_hook(scale)


def saelens(kind, options, start, rows, batch, training, change=None):
    """`kind`: the module of sae_lens.saes and the prefix of its classes. Losses: {mse, total, ...} of each step."""
    module = importlib.import_module(f"sae_lens.saes.{kind[0]}")
    trainer_module = importlib.import_module("sae_lens.training.sae_trainer")
    config_module = importlib.import_module("sae_lens.config")
    d, n = rows.shape[1], start["b_enc"].shape[0]
    cfg = getattr(module, f"{kind[1]}TrainingSAEConfig")(d_in=d, d_sae=n, device="cpu", **options)
    sae = getattr(module, f"{kind[1]}TrainingSAE")(cfg)
    fill(sae, dict(W_enc=start["W_enc"], b_enc=start["b_enc"], W_dec=start["W_dec"], b_dec=start["b_dec"]))
    found = []

    class Recorded(trainer_module.SAETrainer):
        def _train_step(self, sae, sae_in):
            output = super()._train_step(sae, sae_in)
            losses = {name: float(loss) for name, loss in output.losses.items()}
            inner = sum(loss for name, loss in losses.items() if name.startswith("inner_mse_loss"))
            # The pre-activation loss is not in Saetta's loss, but in its gradients.
            total = float(output.loss) - losses.get("pre_act_loss", 0)
            threshold = output.metrics.get("topk_threshold")
            found.append(dict(reconstruction=losses["mse_loss"] + inner, total=total, **({} if threshold is None else dict(threshold=float(threshold)))))
            return output

    steps = len(rows) // batch
    settings = dict(
        **dict(n_checkpoints=0, checkpoint_path=None, save_final_checkpoint=False, total_training_samples=steps * batch, device="cpu", autocast=False),
        **dict(lr_end=training["lr"], lr_scheduler_name="constant", adam_beta1=0.9, adam_beta2=0.999, lr_decay_steps=0, n_restart_cycles=1),
        **dict(train_batch_size_samples=batch, feature_sampling_window=1000, logger=types.SimpleNamespace(log_to_wandb=False, wandb_log_frequency=1)),
        **{"lr_warm_up_steps": 0, "dead_feature_window": 1000, **training},
    )
    trainer = Recorded(cfg=config_module.SAETrainerConfig(**settings), sae=sae, data_provider=iter(batches(rows, batch)))
    if change is not None:
        change(trainer)
    trainer.fit()
    return found


def dictionary_learning(kind, options, start, rows, batch, attributes=None, change=None):
    """`kind`: the module of dictionary_learning.trainers and its trainer class. `attributes`: of the trainer, which its constructor does not take."""
    module = importlib.import_module(f"dictionary_learning.trainers.{kind[0]}")
    d, n = rows.shape[1], start["b_enc"].shape[0]
    steps = len(rows) // batch
    trainer = getattr(module, kind[1])(steps=steps, activation_dim=d, dict_size=n, layer=0, lm_name="none", device="cpu", **options)
    for name, value in (attributes or {}).items():
        setattr(trainer, name, value)
    if isinstance(getattr(trainer.ae, "encoder", None), nn.Linear):
        values = {"encoder.weight": start["W_enc"].T, "encoder.bias": start["b_enc"], "decoder.weight": start["W_dec"].T, "b_dec": start["b_dec"]}
    else:
        values = {name: start[name] for name in ("W_enc", "b_enc", "W_dec", "b_dec")}
    if "threshold" in dict(trainer.ae.named_parameters()):
        values["threshold"] = start["threshold"]
    fill(trainer.ae, values)
    if change is not None:
        change(trainer, module)
    parts = {}
    keep_parts(trainer, parts)
    found = []
    for step, x in enumerate(batches(rows, batch)):
        total = trainer.update(step, x)
        if "recons" in parts:
            reconstruction = float((x - parts["recons"]).pow(2).sum(-1).mean())
        else:
            reconstruction = total - trainer.auxk_alpha * parts["auxk"]
        threshold = getattr(trainer.ae, "threshold", None)
        is_running = threshold is not None and threshold.ndim == 0 and threshold >= 0
        found.append(dict(reconstruction=reconstruction, total=total, **(dict(threshold=float(threshold)) if is_running else {})))
    return found


def keep_parts(trainer, parts):
    """What is left of the loss without the auxiliary loss is the reconstruction loss; JumpReLU has none, and shows its reconstruction."""
    if hasattr(trainer, "get_auxiliary_loss"):
        auxiliary = trainer.get_auxiliary_loss

        def kept_auxiliary(*words):
            loss = auxiliary(*words)
            parts["auxk"] = float(loss)
            return loss

        trainer.get_auxiliary_loss = kept_auxiliary
        return
    decode = trainer.ae.decode

    def kept_decode(codes):
        parts["recons"] = decode(codes)
        return parts["recons"]

    trainer.ae.decode = kept_decode


class RowsModel(nn.Module):
    """Stands where sparsify expects a language model: its only layer is given the inputs and returns the targets of the row numbers that come as token ids."""

    class Layer(nn.Module):
        def __init__(self, targets):
            super().__init__()
            self.targets = targets
            self.ids = None

        def forward(self, _):
            return self.targets[self.ids]

    def __init__(self, inputs, targets):
        super().__init__()
        self.inputs = inputs
        self.layer = self.Layer(targets)
        self.device = torch.device("cpu")
        self.dummy_inputs = dict(input_ids=torch.zeros(1, 1, dtype=torch.long))

    @property
    def base_model(self):
        return self

    def forward(self, input_ids):
        self.layer.ids = input_ids
        return self.layer(self.inputs[input_ids])


def sparsify(options, training, start, rows, targets, batch, change=None):
    """Trainer.fit, with Adam. Starts from `start` but for what the trainer sets in its first step: b_dec, and b_enc of a transcoder."""
    config = importlib.import_module("sparsify.config")
    trainer_module = importlib.import_module("sparsify.trainer")
    n = start["b_enc"].shape[0]
    cfg = config.TrainConfig(
        sae=config.SparseCoderConfig(num_latents=n, **options),
        **dict(batch_size=batch, optimizer="adam", hookpoints=["layer"], log_to_wandb=False, save_every=10**9),
        **training,
    )
    ids = [dict(input_ids=torch.tensor([row])) for row in range(len(rows))]
    with tempfile.TemporaryDirectory() as folder:
        cfg.save_dir = folder
        trainer = trainer_module.Trainer(cfg, ids, RowsModel(rows, targets))
        sae = trainer.saes["layer"]
        values = {"encoder.weight": start["W_enc"].T, "encoder.bias": start["b_enc"]}
        fill(sae, values if options.get("transcode") else {**values, "W_dec": start["W_dec"]})
        found = []
        # `change` may replace what is trained on, but the FVU is the same.
        sae.register_forward_hook(lambda _, __, output: found.append(dict(reconstruction=float(output.fvu))))
        if change is not None:
            change(trainer)

        def record(_, __, output):
            found[-1]["total"] = found[-1]["reconstruction"] + float(output.auxk_loss) * cfg.auxk_alpha

        sae.register_forward_hook(record)
        precision = torch.get_float32_matmul_precision()
        trainer.fit()
        torch.set_float32_matmul_precision(precision)
    return found
