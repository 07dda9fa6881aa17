"""Autoencoders in the formats of other programs, written by PyTorch as those programs write them, and what their rules make of 16 rows.

    /usr/bin/python3 test/interchange/make_fixtures.py        Debian's python3-torch (1.13)

The fixtures are committed; the tests need neither PyTorch nor this script.
"""
import json
import os

import shutil
from collections import OrderedDict

import torch

import fixtures_of_others
import rules

FOLDER = os.path.join(os.path.dirname(__file__), "fixtures")
D, N, K, B = 12, 40, 4, 16


def weights(dtype=torch.float32, unit=True):
    encoder = torch.randn(N, D) / D**0.5
    decoder = torch.randn(N, D)
    if unit:
        decoder = decoder / decoder.norm(dim=1, keepdim=True)
    return [t.to(dtype) for t in (encoder, 0.1 * torch.randn(N), decoder, torch.randn(D))]


def folder(name):
    path = os.path.join(FOLDER, name)
    os.makedirs(path)
    return path


def dump(path, value):
    json.dump(value, open(path, "w"), indent=1)


def save_expected(name, form, path, *extra):
    latents, output = getattr(rules, form)(path, ROWS, *extra)
    for part, tensor in (("latents", latents), ("output", output)):
        open(os.path.join(FOLDER, f"{name}.{part}"), "wb").write(tensor.detach().float().contiguous().numpy().tobytes())


def openai_state(encoder, bias, decoder, pre_bias):
    """As Autoencoder.state_dict() has it: an OrderedDict with the decoder's weight over the memory of its transpose."""
    state = OrderedDict(pre_bias=pre_bias, latent_bias=bias)
    state["stats_last_nonzero"] = torch.arange(N)
    state["latents_activation_frequency"] = torch.ones(N)
    state["latents_mean_square"] = torch.zeros(N)
    state["encoder.weight"] = encoder
    state["decoder.weight"] = decoder.t()
    state["activation"] = "TopK"
    state["activation_state_dict"] = OrderedDict(k=K, postact_fn="ReLU")
    state._metadata = OrderedDict([("", {"version": 1}), ("encoder", {"version": 1})])
    return state


def main():
    global ROWS
    torch.manual_seed(0)
    shutil.rmtree(FOLDER, ignore_errors=True)
    os.makedirs(FOLDER)
    ROWS = 2 * torch.randn(B, D) + torch.randn(D)
    open(os.path.join(FOLDER, "rows"), "wb").write(ROWS.numpy().tobytes())
    dump(os.path.join(FOLDER, "shape.json"), {"d": D, "n": N, "k": K, "rows": B})

    # OpenAI: the decoder transposed in memory, and contiguous; half precision; what train.py writes; keys that are not used.
    torch.save(openai_state(*weights()), os.path.join(FOLDER, "openai.pt"))
    contiguous = openai_state(*weights())
    contiguous["decoder.weight"] = contiguous["decoder.weight"].contiguous()
    contiguous["encoder.weight"] = contiguous["encoder.weight"].t().contiguous().t()
    contiguous["trained_for"] = 3
    torch.save(contiguous, os.path.join(FOLDER, "openai-strides.pt"))
    for name, dtype in (("half", torch.float16), ("bfloat16", torch.bfloat16)):
        torch.save(openai_state(*weights(dtype)), os.path.join(FOLDER, f"openai-{name}.pt"))
    encoder, bias, decoder, pre_bias = weights()
    bare = {"pre_bias": pre_bias, "latent_bias": bias, "encoder.weight": encoder, "decoder.weight": decoder.t(), "stats_last_nonzero": torch.zeros(N, dtype=torch.long)}
    torch.save(bare, os.path.join(FOLDER, "openai-bare.pt"))
    # One storage for all: views of it, as after flattening; parameters instead of tensors.
    flat = torch.cat([t.flatten() for t in weights()])
    parts = [flat[a:b] for a, b in ((0, N * D), (N * D, N * D + N), (N * D + N, 2 * N * D + N), (2 * N * D + N, 2 * N * D + N + D))]
    views = openai_state(parts[0].view(N, D), parts[1], parts[2].view(N, D), torch.nn.Parameter(parts[3]))
    torch.save(views, os.path.join(FOLDER, "openai-views.pt"))
    for name in ("openai", "openai-strides", "openai-views"):
        state = rules.load_torch(os.path.join(FOLDER, f"{name}.pt"))
        state.pop("trained_for", None)
        torch.save(state, "/tmp/strict.pt")
        save_expected(name, "openai", "/tmp/strict.pt")
    for name in ("half", "bfloat16"):
        state = rules.load_torch(os.path.join(FOLDER, f"openai-{name}.pt"))
        torch.save(OrderedDict((key, value.float() if torch.is_tensor(value) and value.is_floating_point() else value) for key, value in state.items()), "/tmp/strict.pt")
        save_expected(f"openai-{name}", "openai", "/tmp/strict.pt")
    save_expected("openai-bare", "bare", os.path.join(FOLDER, "openai-bare.pt"), K)

    # dictionary_learning
    path = folder("dictionary_learning")
    encoder, bias, decoder, pre_bias = weights()
    state = OrderedDict([("b_dec", pre_bias), ("k", torch.tensor(K, dtype=torch.int)), ("threshold", torch.tensor(0.25)), ("decoder.weight", decoder.t().contiguous()), ("encoder.weight", encoder), ("encoder.bias", bias)])
    torch.save(state, os.path.join(path, "ae.pt"))
    trainer = {"trainer_class": "TopKTrainer", "dict_class": "AutoEncoderTopK", "lr": 1e-4, "steps": 10, "auxk_alpha": 0.03125, "warmup_steps": 1, "decay_start": None, "threshold_beta": 0.999, "threshold_start_step": 1000, "seed": 0, "activation_dim": D, "dict_size": N, "k": K, "device": "cpu", "layer": 3, "lm_name": "gpt2", "wandb_name": "AutoEncoderTopK", "submodule_name": "resid_post_layer_3"}
    dump(os.path.join(path, "config.json"), {"trainer": trainer, "buffer": {"d_submodule": D, "io": "out", "ctx_len": 128, "device": "cpu"}})
    save_expected("dictionary_learning", "dictionary_learning", path)

    # SAELens: plain; the decoder's bias not taken from the input; latents times norms of decoder rows; layer_norm; half precision.
    base = {"architecture": "topk", "d_in": D, "d_sae": N, "k": K, "dtype": "float32", "device": "cpu", "apply_b_dec_to_input": True, "normalize_activations": "none", "reshape_activations": "none", "rescale_acts_by_decoder_norm": False}
    about = {"sae_lens_version": "6.49.2", "sae_lens_training_version": "6.49.2", "model_name": "gpt2-small", "hook_name": "blocks.8.hook_resid_post", "hook_head_index": None, "context_size": 64, "prepend_bos": True, "dataset_path": "x", "seqpos_slice": [None], "model_from_pretrained_kwargs": {}}
    variants = {
        "saelens": ({}, torch.float32),
        "saelens-no-subtraction": ({"apply_b_dec_to_input": False}, torch.float32),
        "saelens-norms": ({"rescale_acts_by_decoder_norm": True}, torch.float32),
        "saelens-layer-norm": ({"normalize_activations": "layer_norm"}, torch.float32),
        "saelens-half": ({"dtype": "float16"}, torch.float16),
    }
    for name, (changes, dtype) in variants.items():
        path = folder(name)
        encoder, bias, decoder, pre_bias = weights(dtype, unit=name != "saelens-norms")
        rules.save_safetensors(os.path.join(path, "sae_weights.safetensors"), {"W_enc": encoder.t(), "b_enc": bias, "W_dec": decoder, "b_dec": pre_bias})
        dump(os.path.join(path, "cfg.json"), {**base, **changes, "metadata": about})
        save_expected(name, "saelens", path)

    # sparsify
    for name, dtype in (("sparsify", torch.float32), ("sparsify-bfloat16", torch.bfloat16)):
        path = folder(name)
        encoder, bias, decoder, pre_bias = weights(dtype)
        rules.save_safetensors(os.path.join(path, "sae.safetensors"), {"encoder.weight": encoder, "encoder.bias": bias, "W_dec": decoder, "b_dec": pre_bias})
        dump(os.path.join(path, "cfg.json"), {"activation": "topk", "expansion_factor": 32, "normalize_decoder": True, "num_latents": N, "k": K, "multi_topk": False, "skip_connection": False, "transcode": False, "d_in": D})
        save_expected(name, "sparsify", path)

    thresholds(base, about)
    transcoders(base, about)
    fixtures_of_others.make(base, about, HELPERS)


def thresholds(base, about):
    """Autoencoders in which a threshold decides which latents are active."""
    variants = {
        "saelens-jumprelu": {"architecture": "jumprelu"},
        "saelens-jumprelu-no-subtraction": {"architecture": "jumprelu", "apply_b_dec_to_input": False},
        "saelens-relu": {"architecture": "standard"},
    }
    for name, changes in variants.items():
        path = folder(name)
        encoder, bias, decoder, pre_bias = weights(unit=name == "saelens-jumprelu")
        tensors = {"W_enc": encoder.t(), "b_enc": bias, "W_dec": decoder, "b_dec": pre_bias}
        if changes["architecture"] == "jumprelu":
            tensors["threshold"] = torch.rand(N) * 2 - 0.5  # some below 0
        rules.save_safetensors(os.path.join(path, "sae_weights.safetensors"), tensors)
        cfg = {key: value for key, value in base.items() if key not in ("k", "rescale_acts_by_decoder_norm")}
        dump(os.path.join(path, "cfg.json"), {**cfg, **changes, "metadata": about})
        save_expected(name, "saelens", path)

    trainer = {"lr": 1e-4, "steps": 10, "seed": 0, "activation_dim": D, "dict_size": N, "device": "cpu", "layer": 3, "lm_name": "gpt2", "submodule_name": "resid_post_layer_3"}
    for name, cls in (("batchtopk", "BatchTopKSAE"), ("matryoshka", "MatryoshkaBatchTopKSAE"), ("jumprelu", "JumpReluAutoEncoder")):
        path = folder(f"dictionary_learning-{name}")
        encoder, bias, decoder, pre_bias = weights(unit=name != "jumprelu")
        more = {"dict_class": cls, "trainer_class": cls.replace("SAE", "Trainer")}
        k, threshold = torch.tensor(K, dtype=torch.int), torch.tensor(0.75)
        if name == "batchtopk":
            state = OrderedDict([("b_dec", pre_bias), ("k", k), ("threshold", threshold), ("decoder.weight", decoder.t().contiguous()), ("encoder.weight", encoder), ("encoder.bias", bias)])
            more["k"] = K
        else:
            state = OrderedDict([("W_enc", encoder.t().contiguous()), ("b_enc", bias), ("W_dec", decoder), ("b_dec", pre_bias), ("threshold", torch.rand(N) * 2 - 0.5 if name == "jumprelu" else threshold)])
        if name == "matryoshka":
            state.update(k=k, group_sizes=torch.tensor([8, 12, 20]))
            more.update(k=K, group_sizes=[8, 12, 20], group_weights=[0.5, 0.25, 0.25])
        torch.save(state, os.path.join(path, "ae.pt"))
        dump(os.path.join(path, "config.json"), {"trainer": {**trainer, **more}, "buffer": {"d_submodule": D}})
        save_expected(f"dictionary_learning-{name}", "dictionary_learning", path)


def transcoders(base, about):
    """From D inputs to OUT outputs in SAELens, to D in the others."""
    OUT = 7
    cfg = {key: value for key, value in base.items() if key not in ("k", "rescale_acts_by_decoder_norm")}
    for name, kind in (("saelens-transcoder", "transcoder"), ("saelens-skip-transcoder", "skip_transcoder"), ("saelens-jumprelu-transcoder", "jumprelu_transcoder"), ("saelens-jumprelu-skip-transcoder", "jumprelu_skip_transcoder")):
        path = folder(name)
        encoder, bias, _, _ = weights()
        tensors = {"W_enc": encoder.t(), "b_enc": bias, "W_dec": torch.randn(N, OUT), "b_dec": torch.randn(OUT)}
        if "jumprelu" in kind:
            tensors["threshold"] = torch.rand(N)
        if "skip" in kind:
            tensors["W_skip"] = torch.randn(OUT, D)
        rules.save_safetensors(os.path.join(path, "sae_weights.safetensors"), tensors)
        dump(os.path.join(path, "cfg.json"), {**cfg, "architecture": kind, "d_out": OUT, "apply_b_dec_to_input": False, "metadata": {**about, "hook_name_out": "blocks.8.hook_mlp_out"}})
        save_expected(name, "saelens", path)

    for name, skip, stated in (("transcoder", False, True), ("skip-transcoder", True, True), ("early-transcoder", False, False)):
        run = folder(f"sparsify-{name}")
        path = os.path.join(run, "layers.3.mlp")
        os.makedirs(path)
        encoder, bias, decoder, pre_bias = weights(unit=False)
        tensors = {"encoder.weight": encoder, "encoder.bias": bias, "W_dec": decoder, "b_dec": pre_bias}
        if skip:
            tensors["W_skip"] = torch.randn(D, D)
        rules.save_safetensors(os.path.join(path, "sae.safetensors"), tensors)
        dump(os.path.join(path, "cfg.json"), {"activation": "topk", "expansion_factor": 32, "normalize_decoder": True, "num_latents": N, "k": K, "multi_topk": False, "skip_connection": skip, "transcode": stated, "d_in": D})
        if not stated:
            dump(os.path.join(run, "config.json"), {"model": "gpt2", "transcode": True})
        save_expected(f"sparsify-{name}", "sparsify", path)

    for name, activation in (("jumprelu", "jumprelu"), ("topk", f"topk\nk: {K}"), ("relu", "relu")):
        path = folder(f"circuit-tracer-{name}")
        encoder, bias, decoder, pre_bias = weights(unit=False)
        tensors = {"W_enc": encoder, "W_dec": decoder, "b_enc": bias, "b_dec": pre_bias}
        if name == "jumprelu":
            tensors["activation_function.threshold"] = torch.rand(N)
        if name != "topk":
            tensors["W_skip"] = torch.randn(D, D)
        rules.save_safetensors(os.path.join(path, "layer_3.safetensors"), tensors)
        lines = ["model_kind: transcoder_set", 'model_name: "google/gemma-2-2b"', "feature_input_hook: mlp.hook_in", "feature_output_hook: hook_mlp_out", "scan: gemma", f"activation: {activation}"]
        open(os.path.join(path, "config.yaml"), "w").write("\n".join(lines) + "\n")
        save_expected(f"circuit-tracer-{name}", "circuit_tracer", path)


HELPERS = {"folder": folder, "dump": dump, "weights": weights, "save_expected": save_expected, "root": FOLDER, "D": D, "N": N, "K": K}
main()
