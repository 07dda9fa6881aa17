"""Autoencoders that Saetta wrote, as modules of PyTorch."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import warnings
from typing import Any, Dict, Mapping, Optional, Tuple, Union

import torch

from .errors import Error, UsageError

Path = Union[str, "os.PathLike[str]"]

_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
#: What training adds to the standard deviation of a row (layer_norm).
_LAYER_NORM_EPS = 1e-5
#: A row is constant where its distance from its mean is below this part of its length.
_CONSTANT_ROW = 1e-12


def load(path: Path, *, average: bool = True, dtype: torch.dtype = torch.float32, device: Any = "cpu") -> "Sae":
    """Loads an autoencoder or transcoder that Saetta trained or imported.

    path: a run folder (its newest whole checkpoint), a checkpoint folder, or a folder that `saetta
    import` wrote. average: take the running average of the weights where training kept one, as
    `saetta eval` does; False: those of the last step. Throws Error.
    """
    folder = _checkpoint_in(os.fspath(path))
    cfg = _json(os.path.join(folder, "cfg.json"))
    own = cfg.get("saetta", {})
    if own.get("format_version", 1) > 1:
        raise Error(f"{folder}/cfg.json: format version {own['format_version']} is later than 1; install a newer saetta")
    ema = os.path.join(folder, "ema.safetensors")
    if average and os.path.exists(ema):
        tensors = _averaged(*_safetensors(ema), unit=cfg.get("normalize_decoder", not cfg.get("transcode", False)))
    else:
        names = ("saetta.safetensors", "sae.safetensors")
        there = [name for name in names if os.path.exists(os.path.join(folder, name))]
        if not there:
            raise Error(f"{folder}: holds no weights ({' or '.join(names)})")
        tensors, _ = _safetensors(os.path.join(folder, there[0]))
    return Sae(cfg, tensors, folder).to(device=device, dtype=dtype)


class Sae(torch.nn.Module):
    """An autoencoder, or a transcoder where `transcode` is True. Parameters have the files' names.

    encoder.weight [latents, width], encoder.bias [latents], W_dec [latents, out_width], b_dec
    [out_width]; threshold [latents] of jumprelu, cut [1] of batchtopk and matryoshka, W_skip
    [out_width, width] of transcoders with a skip connection.
    """

    encoder: torch.nn.Linear
    W_dec: torch.nn.Parameter
    b_dec: torch.nn.Parameter

    def __init__(self, cfg: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], path: str = "") -> None:
        """cfg: cfg.json; tensors: the weights by their names in the file. Throws Error."""
        super().__init__()
        own = cfg.get("saetta", {})
        self.path = path
        self.cfg = dict(cfg)
        self.architecture: str = cfg.get("activation", "topk")
        #: "none", "scale" (which is in the weights), "unit" or "layer_norm".
        self.normalization: str = own.get("normalization", "none")
        self._undone_with_std = own.get("undone_with") == "std"
        self.transcode: bool = cfg.get("transcode", False)
        by_topk = self.architecture == "topk" or own.get("prefix_selection") == "topk"
        #: Active latents per row; a mean where a threshold selects; None for jumprelu.
        self.k: Optional[float] = cfg.get("k")
        for name in ("encoder.weight", "encoder.bias", "W_dec", "b_dec", *([] if by_topk else [self._gate()])):
            if name not in tensors:
                raise Error(f"{path}: holds no {name}")
        latents, width = tensors["encoder.weight"].shape
        self.latents, self.width, self.out_width = latents, width, tensors["W_dec"].shape[1]
        self.encoder = torch.nn.Linear(width, latents)
        self.encoder.weight = torch.nn.Parameter(tensors["encoder.weight"])
        self.encoder.bias = torch.nn.Parameter(tensors["encoder.bias"])
        for name in ("W_dec", "b_dec", "threshold", "W_skip"):
            self.register_parameter(name, torch.nn.Parameter(tensors[name]) if name in tensors else None)
        self.register_buffer("cut", tensors.get("cut"))
        self._top_k = int(cfg["k"]) if by_topk else None
        if self.cut is not None and not self.cut[0] > 0:
            raise Error(
                f"{path}: its threshold was never set, so it does not say which latents are active; "
                "train it past --threshold-start"
            )

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """x [..., width], rows as they are in the activations -> latents [..., latents], 0 where not active."""
        x = self._checked(x, self.width, "rows")
        mean, size, _ = self._statistics(x)
        if size is not None:
            x = torch.where(size == 0, torch.zeros_like(x), (x - mean) / size)
        pre = self.encoder(x if self.transcode else x - self.b_dec)
        if self._top_k is not None:
            value, latent = pre.topk(self._top_k, dim=-1)
            return torch.zeros_like(pre).scatter(-1, latent, value.relu())
        gate = self.get_parameter("threshold") if self._gate() == "threshold" else self.cut
        return torch.where((pre > 0) & (pre > gate), pre, torch.zeros_like(pre))

    def decode(self, latents: torch.Tensor, x: Optional[torch.Tensor] = None) -> torch.Tensor:
        """latents [..., latents] -> reconstructed rows [..., out_width].

        x [..., width]: the rows that the latents are of; needed where each row is normalised by itself
        (unit, layer_norm) and by a skip connection. Throws UsageError where it is missing.
        """
        out = self._checked(latents, self.latents, "latents") @ self.W_dec + self.b_dec
        if x is None:
            if self.normalization in ("unit", "layer_norm") or self.W_skip is not None:
                raise UsageError("decode needs the rows too: decode(latents, x)")
            return out
        x = self._checked(x, self.width, "rows")
        if self.W_skip is not None:
            out = out + x @ self.W_skip.T
        mean, _, back = self._statistics(x)
        return out if back is None else out * back + mean

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [..., width] -> reconstruction [..., out_width]."""
        return self.decode(self.encode(x), x)

    def extra_repr(self) -> str:
        return f"{self.architecture}, {self.latents} latents, width {self.width}, normalization {self.normalization}"

    def _gate(self) -> str:
        return "threshold" if self.architecture == "jumprelu" else "cut"

    def _checked(self, x: torch.Tensor, width: int, what: str) -> torch.Tensor:
        if x.shape[-1] != width:
            raise UsageError(f"{what} have {x.shape[-1]} numbers, but this autoencoder's have {width}")
        return x.to(self.W_dec.dtype)

    def _statistics(self, x: torch.Tensor) -> Tuple[Any, Any, Any]:
        """Mean of each row [..., 1], what it is divided by, and what the way back multiplies by.

        None of them where nothing is done to single rows. In float64, as training does it.
        """
        if self.normalization not in ("unit", "layer_norm"):
            return None, None, None
        wide = x if x.device.type == "mps" else x.double()
        mean = wide.mean(-1, keepdim=True)
        spread = (wide - mean).norm(dim=-1, keepdim=True)
        constant = spread <= _CONSTANT_ROW * wide.norm(dim=-1, keepdim=True)
        if self.normalization == "unit":
            size = back = spread
        else:
            std = spread / (x.shape[-1] - 1) ** 0.5
            size = std + _LAYER_NORM_EPS
            back = std if self._undone_with_std else size
        zero = torch.zeros_like(spread)
        return tuple(each.to(x.dtype) for each in (mean, torch.where(constant, zero, size), torch.where(constant, zero, back)))  # type: ignore[return-value]


def _checkpoint_in(path: str) -> str:
    """The folder that holds the weights: `path`, or the newest whole checkpoint of a run."""
    if not os.path.isdir(path):
        raise Error(f"{path}: there is no such folder")
    if os.path.exists(os.path.join(path, "cfg.json")):
        _check(path)
        return path
    checkpoints = os.path.join(path, "checkpoints")
    names = os.listdir(checkpoints) if os.path.isdir(checkpoints) else []
    steps = sorted((name for name in names if name.startswith("step-") and name[5:].isdigit()), key=lambda name: int(name[5:]))
    problem: Optional[Error] = None
    for name in reversed(steps):
        folder = os.path.join(checkpoints, name)
        try:
            _check(folder)
            return folder
        except Error as error:
            warnings.warn(f"{error}; the checkpoint before it is taken", stacklevel=3)
            problem = problem or error
    if problem is not None:
        raise problem
    what = "the run has no checkpoint yet" if os.path.exists(os.path.join(path, "metrics.jsonl")) else "holds no autoencoder of Saetta; saetta import reads those of other programs"
    raise Error(f"{path}: {what}")


def _check(folder: str) -> None:
    """Throws Error where a file that is read here is not as the manifest says. No manifest: nothing to check."""
    manifest = os.path.join(folder, "manifest.json")
    if not os.path.exists(manifest):
        return
    for name, entry in _json(manifest).get("files", {}).items():
        if name not in ("cfg.json", "sae.safetensors", "saetta.safetensors", "ema.safetensors"):
            continue
        path = os.path.join(folder, name)
        digest = hashlib.sha256()
        try:
            with open(path, "rb") as file:
                for piece in iter(lambda: file.read(1 << 22), b""):
                    digest.update(piece)
        except OSError:
            raise Error(f"{path}: the file is missing or cannot be read") from None
        if digest.hexdigest() != entry.get("sha256"):
            raise Error(f"{path}: damaged: its bytes are not those that were saved (SHA-256 differs)")


def _json(path: str) -> Dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as file:
            value = json.load(file)
    except (OSError, ValueError):
        raise Error(f"{path}: is missing, cannot be read or is no JSON") from None
    if not isinstance(value, dict):
        raise Error(f"{path}: must hold a JSON object")
    return value


def _safetensors(path: str) -> Tuple[Dict[str, torch.Tensor], Dict[str, str]]:
    """The tensors of the file as float32 or float64 by their names, and its metadata. Throws Error."""
    try:
        with open(path, "rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length))
            about = header.pop("__metadata__", {})
            tensors = {}
            for name, entry in header.items():
                begin, end = entry["data_offsets"]
                file.seek(8 + length + begin)
                raw = torch.frombuffer(bytearray(file.read(end - begin)), dtype=_DTYPES[entry["dtype"]])
                kept = raw if raw.dtype == torch.float64 else raw.float()
                tensors[name] = kept.reshape(entry["shape"])
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, struct.error, OverflowError, MemoryError):
        raise Error(f"{path}: is no safetensors file of floats, or cut off") from None
    return tensors, about


def _averaged(tensors: Dict[str, torch.Tensor], about: Mapping[str, str], unit: bool) -> Dict[str, torch.Tensor]:
    """Weights from a running average that began with zeros: divided by 1 - decay^updates.

    unit: training kept decoder rows at norm 1. Averaging shortens them, so they get it again. The
    threshold of BatchTopK and what steers JumpReLU are no averages.
    """
    share = 1 - float(about["decay"]) ** int(about["updates"])
    out = {name: tensor if name in ("cut", "sparsity") else tensor.double() / share for name, tensor in tensors.items()}
    if unit:
        norm = out["W_dec"].norm(dim=1, keepdim=True)
        out["W_dec"] = torch.where(norm > 0, out["W_dec"] / norm, out["W_dec"])
    return {name: tensor.to(tensors[name].dtype) for name, tensor in out.items()}

