"""Published autoencoders in the formats that are only read, and the rarer files of SAELens and dictionary_learning."""
import os
from collections import OrderedDict
from types import SimpleNamespace

import numpy as np
import rules
import torch


def make(base, about, helpers):
    to = SimpleNamespace(**helpers)
    saelens(to, base, about)
    dictionary_learning(to)
    torch_files(to)
    gemma_scope(to)
    llamascopium(to)


def tensors_of(to, unit=False):
    encoder, bias, decoder, pre_bias = to.weights(unit=unit)
    return {"W_enc": encoder.t(), "b_enc": bias, "W_dec": decoder, "b_dec": pre_bias}


def saelens(to, base, about):
    cfg = {key: value for key, value in base.items() if key not in ("k", "rescale_acts_by_decoder_norm")}
    old = {"hook_point": "blocks.8.hook_resid_pre", "hook_point_layer": 8, "model_name": "gpt2-small", "d_in": to.D, "d_sae": to.N, "dtype": "torch.float32", "device": "cpu", "normalize_activations": False}
    gated = {"b_gate": 0.3 * torch.randn(to.N), "b_mag": 0.3 * torch.randn(to.N), "r_mag": 0.5 * torch.randn(to.N)}
    variants = {
        "saelens-gated": ({**cfg, "architecture": "gated", "metadata": about}, gated),
        "saelens-gated-no-subtraction": ({**cfg, "architecture": "gated", "apply_b_dec_to_input": False, "metadata": about}, gated),
        "saelens-batchtopk-checkpoint": ({**base, "architecture": "batchtopk", "rescale_acts_by_decoder_norm": True, "metadata": about}, {"topk_threshold": torch.tensor(0.8, dtype=torch.float64)}),
        "saelens-3": ({**old, "activation_fn_str": "relu"}, {"scaling_factor": torch.ones(to.N)}),
        "saelens-5-topk": ({**old, "architecture": "standard", "activation_fn_str": "topk", "activation_fn_kwargs": {"k": to.K}, "normalize_activations": "none"}, {}),
    }
    for name, (changed, more) in variants.items():
        path = to.folder(name)
        tensors = {**tensors_of(to), **more}
        if "gated" in name:
            del tensors["b_enc"]
        rules.save_safetensors(os.path.join(path, "sae_weights.safetensors"), tensors)
        to.dump(os.path.join(path, "cfg.json"), changed)
        to.save_expected(name, "saelens", path)


def dictionary_learning(to):
    trainer = {"trainer_class": "x", "lr": 1e-4, "steps": 10, "seed": 0, "activation_dim": to.D, "dict_size": to.N, "device": "cpu", "layer": 3, "lm_name": "gpt2", "submodule_name": "resid_post_layer_3"}

    def layers(**biases):
        encoder, _, decoder, _ = to.weights(unit=False)
        return OrderedDict([("encoder.weight", encoder), ("decoder.weight", decoder.t().contiguous()), *biases.items()])

    n = {name: 0.3 * torch.randn(to.N) for name in ("encoder.bias", "r_mag", "gate_bias", "mag_bias")}
    d = torch.randn(to.D)
    states = {
        "AutoEncoder": layers(**{"encoder.bias": n["encoder.bias"], "bias": d}),
        "AutoEncoderNew": layers(**{"encoder.bias": n["encoder.bias"], "decoder.bias": d}),
        "GatedAutoEncoder": layers(decoder_bias=d, r_mag=n["r_mag"], gate_bias=n["gate_bias"], mag_bias=n["mag_bias"]),
    }
    for cls, state in states.items():
        name = f"dictionary_learning-{cls}"
        path = to.folder(name)
        torch.save(state, os.path.join(path, "ae.pt"))
        to.dump(os.path.join(path, "config.json"), {"trainer": {**trainer, "dict_class": cls}, "buffer": {"d_submodule": to.D}})
        to.save_expected(name, "dictionary_learning", path)

    path = to.folder("dictionary_learning-resumable")
    state = layers(**{"encoder.bias": n["encoder.bias"], "b_dec": d, "k": torch.tensor(to.K, dtype=torch.int), "threshold": torch.tensor(0.4)})
    backup = {"step": 5, "ae": state, "optimizer": {"state": {}, "param_groups": []}, "config": {"dict_class": "BatchTopKSAE"}, "norm_factor": 1.75}
    torch.save(backup, os.path.join(path, "ae.pt"))
    to.dump(os.path.join(path, "config.json"), {"trainer": {**trainer, "dict_class": "BatchTopKSAE", "k": to.K}, "buffer": {}})
    to.save_expected("dictionary_learning-resumable", "dictionary_learning", path)


def torch_files(to):
    encoder, bias, decoder, pre_bias = to.weights(unit=False)
    path = os.path.join(to.root, "goodfire.pth")
    torch.save(OrderedDict([("encoder_linear.weight", encoder), ("encoder_linear.bias", bias), ("decoder_linear.weight", decoder.t().contiguous()), ("decoder_linear.bias", pre_bias)]), path)
    to.save_expected("goodfire", "goodfire", path)

    encoder, bias, decoder, pre_bias = to.weights()
    path = os.path.join(to.folder(f"SAE-Res-W40-L0_{to.K}"), "layer3.sae.pt")
    torch.save({"W_enc": encoder, "W_dec": decoder.t().contiguous(), "b_enc": bias, "b_dec": pre_bias}, path)
    to.save_expected("qwen-scope", "qwen_scope", path, to.K)


def gemma_scope(to):
    for name, site in (("gemma-scope", "res"), ("gemma-scope-transcoder", "transcoders")):
        path = os.path.join(to.root, name, f"gemma-scope-2b-pt-{site}", "layer_12", "width_16k", "average_l0_7")
        os.makedirs(path)
        params = {key: np.ascontiguousarray(value.numpy()) for key, value in tensors_of(to).items()}
        params["threshold"] = np.random.default_rng(len(name)).uniform(0, 1, to.N).astype(np.float32)
        if site == "res":
            np.savez(os.path.join(path, "params.npz"), **params)
        else:  # deflated, and a matrix in Fortran's order
            np.savez_compressed(os.path.join(path, "params.npz"), **{**params, "W_dec": np.asfortranarray(params["W_dec"])})
        to.save_expected(name, "gemma_scope", path)

    config = {"width": to.N, "model_name": "google/gemma-3-1b-pt", "architecture": "jump_relu", "l0": 10, "affine_connection": False}
    for name, hooks, kind in (("gemma-scope-2", ("model.layers.7.output",) * 2, "sae"), ("gemma-scope-2-transcoder", ("model.layers.7.pre_feedforward_layernorm.output", "model.layers.7.post_feedforward_layernorm.output"), "transcoder"), ("gemma-scope-2-affine", ("model.layers.7.pre_feedforward_layernorm.output", "model.layers.7.post_feedforward_layernorm.output"), "transcoder")):
        path = to.folder(name)
        tensors = {{"W_enc": "w_enc", "W_dec": "w_dec"}.get(key, key): value for key, value in tensors_of(to).items()}
        tensors["threshold"] = torch.rand(to.N)
        affine = name.endswith("affine")
        if affine:
            tensors["affine_skip_connection"] = torch.randn(to.D, to.D)
        rules.save_safetensors(os.path.join(path, "params.safetensors"), tensors)
        to.dump(os.path.join(path, "config.json"), {"hf_hook_point_in": hooks[0], "hf_hook_point_out": hooks[1], **config, "affine_connection": affine, "type": kind})
        to.save_expected(name, "gemma_scope_2", path)


def llamascopium(to):
    hook = "blocks.7.hook_resid_post"

    def layers(dtype=torch.float32):
        encoder, bias, decoder, pre_bias = to.weights(dtype, unit=False)
        return {"encoder.weight": encoder, "encoder.bias": bias, "decoder.weight": decoder.t(), "decoder.bias": pre_bias}

    first = {"hook_point_in": hook, "hook_point_out": hook, "use_decoder_bias": True, "apply_decoder_bias_to_pre_encoder": False, "expansion_factor": 8, "d_model": to.D, "d_sae": to.N, "norm_activation": "dataset-wise", "dataset_average_activation_norm": {"in": 7.5, "out": 7.5}, "sparsity_include_decoder_norm": True, "use_glu_encoder": False, "top_k": to.K}
    for name, changes in (("llama-scope", {"act_fn": "jumprelu", "jump_relu_threshold": 0.4}), ("llama-scope-topk", {"act_fn": "topk", "jump_relu_threshold": 0}), ("llama-scope-subtracted", {"act_fn": "jumprelu", "jump_relu_threshold": 0.2, "apply_decoder_bias_to_pre_encoder": True})):
        path = to.folder(name)
        os.makedirs(os.path.join(path, "checkpoints"))
        rules.save_safetensors(os.path.join(path, "checkpoints", "final.safetensors"), layers(torch.bfloat16 if name == "llama-scope" else torch.float32))
        norms = {} if name == "llama-scope" else {"dataset_average_activation_norm": {"in": 7.5, "out": 6.25}}
        to.dump(os.path.join(path, "hyperparams.json"), {**first, **norms, **changes})
        to.save_expected(name, "llama_scope", path)

    second = {"sae_type": "sae", "d_model": to.D, "expansion_factor": to.N / to.D, "use_decoder_bias": True, "norm_activation": "dataset-wise", "sparsity_include_decoder_norm": True, "top_k": to.K, "hook_point_in": hook, "hook_point_out": hook, "use_glu_encoder": False}
    out = "blocks.7.hook_mlp_out"
    variants = {
        "llama-scope-r1": ({"act_fn": "jumprelu"}, "log_jumprelu_threshold"),
        "llamascopium-jumprelu": ({"act_fn": "jumprelu"}, "activation_function.log_jumprelu_threshold"),
        "llamascopium-topk": ({"act_fn": "topk", "sparsity_include_decoder_norm": False, "use_decoder_bias": False}, None),
        "llamascopium-transcoder": ({"act_fn": "jumprelu", "hook_point_out": out}, "log_jumprelu_threshold"),
        "llamascopium-folded": ({"act_fn": "relu", "norm_activation": "inference"}, None),
    }
    for name, (changes, threshold) in variants.items():
        path = to.folder(name)
        encoder, bias, decoder, pre_bias = to.weights(unit=False)
        tensors = layers() if name == "llama-scope-r1" else {"W_E": encoder.t(), "b_E": bias, "W_D": decoder, "b_D": pre_bias}
        cfg = {**second, **changes}
        if not cfg["use_decoder_bias"]:
            del tensors["b_D"]
        if threshold is not None:
            tensors[threshold] = (torch.rand(to.N) + 0.1).log()
        tensors[f"dataset_average_activation_norm.{hook}"] = torch.tensor(7.5)
        if cfg["hook_point_out"] == out:
            tensors[f"dataset_average_activation_norm.{out}"] = torch.tensor(2.25)
        rules.save_safetensors(os.path.join(path, "sae_weights.safetensors"), tensors)
        to.dump(os.path.join(path, "config.json"), cfg)
        to.save_expected(name, "llamascopium", path)
