"""The formats of other programs as plain PyTorch code that follows their rules: how a file is loaded, rows encoded and latents decoded.

    python3 rules.py JOBS.json      a list of {"form", "path", "rows", "d", "out", "k"}

form: openai, bare and qwen_scope (which need k), dictionary_learning, saelens, sparsify, circuit_tracer, goodfire, gemma_scope, gemma_scope_2, llama_scope, llamascopium, saetta. rows: a raw file of f32 [B, d]. Writes out.latents, f32 [B, n], and out.output, f32 [B, d].
"""
import json
import os
import pickle
import struct
import sys
from collections import OrderedDict

import numpy as np
import torch
import torch.nn.functional as F

DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64, "I32": torch.int32, "BOOL": torch.bool}


def load_safetensors(path):
    data = open(path, "rb").read()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    out = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        raw = bytearray(data[8 + length + begin : 8 + length + end])
        out[name] = torch.frombuffer(raw, dtype=DTYPES[entry["dtype"]]).reshape(entry["shape"])
    return out


def save_safetensors(path, tensors):
    header, blobs, at = {}, [], 0
    names = {dtype: name for name, dtype in DTYPES.items()}
    for name, tensor in tensors.items():
        tensor = tensor.contiguous()
        raw = bytes(tensor.flatten().view(torch.uint8).tolist()) if tensor.dim() else bytes(tensor.reshape(1).view(torch.uint8).tolist())
        header[name] = {"dtype": names[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [at, at + len(raw)]}
        blobs.append(raw)
        at += len(raw)
    text = json.dumps(header).encode()
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + b"".join(blobs))


def load_torch(path):
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (TypeError, pickle.UnpicklingError):  # before 1.13; a float in a pickle before 2.0
        return torch.load(path, map_location="cpu")


def top_k(pre, k):
    value, latent = torch.topk(pre, k, dim=-1)
    return torch.zeros_like(pre).scatter_(-1, latent, torch.relu(value))


def layer_norm(x, eps=1e-5):
    mean = x.mean(dim=-1, keepdim=True)
    x = x - mean
    std = x.std(dim=-1, keepdim=True)
    return x / (std + eps), mean, std


def openai(path, x):
    state = load_torch(path if path.endswith(".pt") else os.path.join(path, "autoencoder.pt"))
    n, d = state["encoder.weight"].shape
    assert state.pop("activation") == "TopK"
    activation = state.pop("activation_state_dict")
    assert activation["postact_fn"] == "ReLU" and isinstance(activation["k"], int)
    module = torch.nn.Module()  # strict, as load_state_dict is
    module.encoder = torch.nn.Linear(d, n, bias=False)
    module.decoder = torch.nn.Linear(n, d, bias=False)
    module.pre_bias = torch.nn.Parameter(torch.zeros(d))
    module.latent_bias = torch.nn.Parameter(torch.zeros(n))
    module.register_buffer("stats_last_nonzero", torch.zeros(n, dtype=torch.long))
    module.register_buffer("latents_activation_frequency", torch.ones(n))
    module.register_buffer("latents_mean_square", torch.zeros(n))
    module.load_state_dict(state, strict=True)
    x, mean, std = layer_norm(x)
    latents = top_k(F.linear(x - module.pre_bias, module.encoder.weight, module.latent_bias), activation["k"])
    return latents, (module.decoder(latents) + module.pre_bias) * std + mean


def bare(path, x, k):
    state = load_torch(path if path.endswith(".pt") else os.path.join(path, "autoencoder.pt"))
    assert set(state) == {"pre_bias", "latent_bias", "encoder.weight", "decoder.weight", "stats_last_nonzero"}
    latents = top_k(F.linear(x - state["pre_bias"], state["encoder.weight"], state["latent_bias"]), k)
    return latents, F.linear(latents, state["decoder.weight"]) + state["pre_bias"]


def auto_encoder(state, x):
    latents = torch.relu(F.linear(x - state["bias"], state["encoder.weight"], state["encoder.bias"]))
    return latents, F.linear(latents, state["decoder.weight"]) + state["bias"]


def auto_encoder_new(state, x):
    latents = torch.relu(F.linear(x, state["encoder.weight"], state["encoder.bias"]))
    return latents, F.linear(latents, state["decoder.weight"], state["decoder.bias"])


def gated_auto_encoder(state, x):
    encoded = F.linear(x - state["decoder_bias"], state["encoder.weight"])
    gate = (encoded + state["gate_bias"] > 0).to(encoded.dtype)
    latents = gate * torch.relu(state["r_mag"].exp() * encoded + state["mag_bias"])
    return latents, F.linear(latents, state["decoder.weight"]) + state["decoder_bias"]


LAYERS = {"AutoEncoder": auto_encoder, "AutoEncoderNew": auto_encoder_new, "GatedAutoEncoder": gated_auto_encoder}
BIASES = {"bias", "b_dec", "b_enc", "decoder_bias", "decoder.bias", "encoder.bias", "mag_bias", "gate_bias", "threshold"}


def dictionary_learning(path, x):
    config = json.load(open(os.path.join(path, "config.json")))
    cls = config["trainer"]["dict_class"]
    state = load_torch(os.path.join(path, "ae.pt"))
    module = torch.nn.Module()
    if "norm_factor" in state:  # a run that can be resumed: biases and thresholds are scaled when it ends
        factor, state = state["norm_factor"], OrderedDict(state["ae"])
        for name in state:
            if name in BIASES and not (name == "threshold" and state[name].dim() == 0 and state[name] < 0):
                state[name] = state[name] * factor
    if cls in LAYERS:
        return LAYERS[cls](state, x)
    if cls in ("AutoEncoderTopK", "BatchTopKSAE"):
        n, d = state["encoder.weight"].shape
        module.decoder = torch.nn.Linear(n, d, bias=False)
        module.encoder = torch.nn.Linear(d, n)
    else:
        d, n = state["W_enc"].shape
        module.W_enc = torch.nn.Parameter(torch.empty(d, n))
        module.b_enc = torch.nn.Parameter(torch.zeros(n))
        module.W_dec = torch.nn.Parameter(torch.empty(n, d))
    assert (n, d) == (config["trainer"]["dict_size"], config["trainer"]["activation_dim"])
    module.b_dec = torch.nn.Parameter(torch.zeros(d))
    if cls == "JumpReluAutoEncoder":
        module.threshold = torch.nn.Parameter(torch.zeros(n))
    else:
        module.register_buffer("k", torch.tensor(0, dtype=torch.int))
        module.register_buffer("threshold", torch.tensor(-1.0))
    if cls == "MatryoshkaBatchTopKSAE":
        groups = state["group_sizes"].tolist()
        assert sum(groups) == n and all(size > 0 for size in groups) and groups == config["trainer"]["group_sizes"]
        module.register_buffer("group_sizes", torch.tensor(groups))
    module.load_state_dict(state, strict=True)
    if cls == "AutoEncoderTopK":
        latents = top_k(torch.relu(module.encoder(x - module.b_dec)), module.k.item())
        return latents, module.decoder(latents) + module.b_dec
    if cls == "BatchTopKSAE":
        post = torch.relu(module.encoder(x - module.b_dec))
        latents = post * (post > module.threshold)
        return latents, module.decoder(latents) + module.b_dec
    if cls == "MatryoshkaBatchTopKSAE":
        post = torch.relu((x - module.b_dec) @ module.W_enc + module.b_enc)
        latents = post * (post > module.threshold)
        return latents, latents @ module.W_dec + module.b_dec
    assert cls == "JumpReluAutoEncoder"
    pre = x @ module.W_enc + module.b_enc
    latents = torch.relu(pre * (pre > module.threshold))
    return latents, latents @ module.W_dec + module.b_dec


def migrated(cfg):
    """cfg.json of SAELens 3 to 5 with the keys of 6."""
    if "metadata" in cfg:
        return cfg
    cfg = {{"hook_point": "hook_name", "activation_fn_str": "activation_fn"}.get(key, key): value for key, value in cfg.items()}
    cfg = {"apply_b_dec_to_input": True, "architecture": "standard", "reshape_activations": "none", "rescale_acts_by_decoder_norm": False, **cfg}
    if cfg.get("activation_fn") == "topk":
        cfg.update(architecture="topk", k=cfg["activation_fn_kwargs"]["k"])
    if not cfg.get("normalize_activations"):
        cfg["normalize_activations"] = "none"
    return {**cfg, "metadata": {"sae_lens_version": "6.0.0"}}


def saelens(path, x):
    cfg = migrated(json.load(open(os.path.join(path, "cfg.json"))))
    kind = cfg["architecture"]
    if kind in ("gated", "batchtopk", "matryoshka_batchtopk"):
        return saelens_others(path, cfg, x)
    assert kind in ("topk", "jumprelu", "standard", "transcoder", "skip_transcoder", "jumprelu_transcoder", "jumprelu_skip_transcoder") and cfg["reshape_activations"] == "none"
    assert int(cfg["metadata"]["sae_lens_version"].split(".")[0]) >= 6
    w = {name: tensor.float() for name, tensor in load_safetensors(os.path.join(path, "sae_weights.safetensors")).items()}
    factors = w.pop("scaling_factor", torch.ones(1))
    assert torch.allclose(factors, torch.ones_like(factors))
    names = {"W_enc", "b_enc", "W_dec", "b_dec"} | ({"threshold"} if "jumprelu" in kind else set()) | ({"W_skip"} if "skip" in kind else set())
    assert set(w) == names, set(w)
    transcoder = "transcoder" in kind
    assert w["W_enc"].shape == (cfg["d_in"], cfg["d_sae"]) and w["W_dec"].shape == (cfg["d_sae"], cfg["d_out" if transcoder else "d_in"])
    assert not (transcoder and cfg["apply_b_dec_to_input"])
    mean, std, rows = 0.0, 1.0, x
    if cfg["normalize_activations"] == "layer_norm":
        x, mean, std = layer_norm(x)
    else:
        assert cfg["normalize_activations"] == "none"
    pre = ((x - w["b_dec"]) if cfg["apply_b_dec_to_input"] else x) @ w["W_enc"] + w["b_enc"]
    if kind == "topk":
        norms = w["W_dec"].norm(dim=-1) if cfg["rescale_acts_by_decoder_norm"] else torch.ones(cfg["d_sae"])
        latents = top_k(pre * norms, cfg["k"])
        return latents, ((latents / norms) @ w["W_dec"] + w["b_dec"]) * std + mean
    latents = torch.relu(pre)
    if "jumprelu" in kind:
        latents = latents * (pre > w["threshold"])
    out = (latents @ w["W_dec"] + w["b_dec"]) * std + mean
    return latents, out + rows @ w["W_skip"].T if "skip" in kind else out


def saelens_others(path, cfg, x):
    """Gated, and BatchTopK as a checkpoint in training has it: folded as when it is saved for inference."""
    w = {name: tensor.float() for name, tensor in load_safetensors(os.path.join(path, "sae_weights.safetensors")).items()}
    assert cfg["normalize_activations"] == "none" and cfg["reshape_activations"] == "none"
    if cfg["architecture"] != "gated" and cfg["rescale_acts_by_decoder_norm"]:
        norms = w["W_dec"].norm(dim=-1)
        w.update(W_enc=w["W_enc"] * norms, b_enc=w["b_enc"] * norms, W_dec=w["W_dec"] / norms[:, None])
    x = x - w["b_dec"] if cfg["apply_b_dec_to_input"] else x
    if cfg["architecture"] == "gated":
        active = (x @ w["W_enc"] + w["b_gate"] > 0).float()
        latents = active * torch.relu(x @ (w["W_enc"] * w["r_mag"].exp()) + w["b_mag"])
    else:
        pre = x @ w["W_enc"] + w["b_enc"]
        latents = torch.relu(pre) * (pre > w["topk_threshold"])
    return latents, latents @ w["W_dec"] + w["b_dec"]


def goodfire(path, x):
    state = load_torch(path)
    latents = torch.relu(F.linear(x, state["encoder_linear.weight"], state["encoder_linear.bias"]))
    return latents, F.linear(latents, state["decoder_linear.weight"], state["decoder_linear.bias"])


def qwen_scope(path, x, k):
    state = load_torch(path)
    latents = top_k(F.linear(x, state["W_enc"], state["b_enc"]), k)
    return latents, F.linear(latents, state["W_dec"], state["b_dec"])


def gemma_scope(path, x):
    params = {name: torch.from_numpy(np.ascontiguousarray(value)).float() for name, value in np.load(os.path.join(path, "params.npz")).items()}
    pre = x @ params["W_enc"] + params["b_enc"]
    latents = (pre > params["threshold"]) * torch.relu(pre)
    return latents, latents @ params["W_dec"] + params["b_dec"]


def gemma_scope_2(path, x):
    params = {name: tensor.float() for name, tensor in load_safetensors(os.path.join(path, "params.safetensors")).items()}
    pre = x @ params["w_enc"] + params["b_enc"]
    latents = (pre > params["threshold"]) * torch.relu(pre)
    out = latents @ params["w_dec"] + params["b_dec"]
    return latents, out + x @ params["affine_skip_connection"] if "affine_skip_connection" in params else out


def llama_scope(path, x):
    """The first files: one threshold for all, and TopK, of which latents times norms of decoder rows are compared and given."""
    cfg = json.load(open(os.path.join(path, "hyperparams.json")))
    w = {name: tensor.float() for name, tensor in load_safetensors(os.path.join(path, "checkpoints", "final.safetensors")).items()}
    scale = {side: cfg["d_model"] ** 0.5 / norm for side, norm in cfg["dataset_average_activation_norm"].items()}
    x = x * scale["in"]
    if cfg["apply_decoder_bias_to_pre_encoder"]:
        x = x - w["decoder.bias"]
    pre = F.linear(x, w["encoder.weight"], w["encoder.bias"])
    norms = w["decoder.weight"].norm(dim=0)
    if cfg["act_fn"] == "topk":
        latents = top_k(torch.relu(pre) * norms, cfg["top_k"]) if cfg["sparsity_include_decoder_norm"] else top_k(pre, cfg["top_k"])
        values = latents / norms if cfg["sparsity_include_decoder_norm"] else latents
    else:
        latents = values = pre.where(pre > cfg["jump_relu_threshold"], torch.zeros(()))
    return latents, F.linear(values, w["decoder.weight"], w["decoder.bias"]) / scale["out"]


def llamascopium(path, x):
    cfg = json.load(open(os.path.join(path, "config.json")))
    w = {name: tensor.float() for name, tensor in load_safetensors(os.path.join(path, "sae_weights.safetensors")).items()}
    early = "encoder.weight" in w
    enc, dec = (w["encoder.weight"].T, w["decoder.weight"].T) if early else (w["W_E"], w["W_D"])
    b_enc = w["encoder.bias" if early else "b_E"]
    b_dec = w.get("decoder.bias" if early else "b_D", torch.zeros(dec.shape[1])) if cfg["use_decoder_bias"] else torch.zeros(dec.shape[1])
    hooks = [cfg["hook_point_in"], cfg["hook_point_out"]]
    scale = [cfg["d_model"] ** 0.5 / w[f"dataset_average_activation_norm.{hook}"].item() if cfg["norm_activation"] == "dataset-wise" else 1.0 for hook in hooks]
    pre = (x * scale[0]) @ enc + b_enc
    norms = dec.norm(dim=1) if cfg["sparsity_include_decoder_norm"] else torch.ones(dec.shape[0])
    scores = pre * norms
    if cfg["act_fn"] == "jumprelu":
        (name,) = [each for each in w if each.endswith("log_jumprelu_threshold")]
        values = scores * (scores > w[name].exp()) / norms
        latents = values
    elif cfg["act_fn"] == "topk":
        latents = top_k(torch.relu(scores), cfg["top_k"])
        values = latents / norms
    else:
        latents = values = torch.relu(scores) / norms
    return latents, (values @ dec + b_dec) / scale[1]


def sparsify(path, x):
    cfg = json.load(open(os.path.join(path, "cfg.json")))
    run = os.path.join(path, "..", "config.json")
    transcode = cfg["transcode"] or (os.path.exists(run) and json.load(open(run)).get("transcode", False))
    assert cfg["activation"] == "topk"
    w = {name: tensor.float() for name, tensor in load_safetensors(os.path.join(path, "sae.safetensors")).items()}
    assert ("W_skip" in w) == cfg["skip_connection"]
    pre = torch.relu(F.linear(x if transcode else x - w["b_dec"], w["encoder.weight"], w["encoder.bias"]))
    latents = top_k(pre, cfg["k"])
    out = latents @ w["W_dec"] + w["b_dec"]
    return latents, out + x @ w["W_skip"].T if cfg["skip_connection"] else out


def circuit_tracer(path, x):
    config = {}
    for line in open(os.path.join(path, "config.yaml")):
        key, value = line.rstrip("\n").split(": ", 1)
        config[key] = json.loads(value) if value[0] in '"0123456789' else value
    assert config["model_kind"] == "transcoder_set"
    (name,) = [each for each in os.listdir(path) if each.startswith("layer_")]
    w = {key: tensor.float() for key, tensor in load_safetensors(os.path.join(path, name)).items()}
    assert set(w) - {"W_skip", "activation_function.threshold"} == {"W_enc", "W_dec", "b_enc", "b_dec"}
    pre = F.linear(x, w["W_enc"], w["b_enc"])
    if config.get("activation") == "topk":
        gate = torch.zeros_like(pre).scatter_(-1, torch.topk(pre, config["k"], dim=-1).indices, 1)
        latents = pre * gate
    elif config.get("activation") == "relu" or "activation_function.threshold" not in w:
        latents = torch.relu(pre)
    else:
        latents = pre * (pre > w["activation_function.threshold"])
    out = latents @ w["W_dec"] + w["b_dec"]
    return latents, out + x @ w["W_skip"].T if "W_skip" in w else out


def saetta(path, x):
    sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "python"))
    from saetta import load

    sae = load(path)
    latents = sae.encode(x)
    return latents, sae.decode(latents, x)


if __name__ == "__main__":
    torch.set_num_threads(1)
    for job in json.load(open(sys.argv[1])):
        x = torch.frombuffer(bytearray(open(job["rows"], "rb").read()), dtype=torch.float32).reshape(-1, job["d"])
        with torch.no_grad():
            latents, output = globals()[job["form"]](job["path"], x, *([job["k"]] if "k" in job else []))
        for name, tensor in (("latents", latents), ("output", output)):
            with open(f"{job['out']}.{name}", "wb") as f:
                f.write(tensor.float().contiguous().numpy().tobytes())
