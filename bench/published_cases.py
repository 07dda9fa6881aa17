"""The cases of published.py: for each, the options of the library, those of Saetta, and what differs. A case has one or more runs; the first is the library as published, the others have one
difference taken out, which shows that it is the only one."""

import torch

from published_libraries import batches, dictionary_learning, saelens, sparsify, unit_decoder

D, N, K, BATCH, STEPS, LR = 64, 1024, 8, 256, 20, 1e-3
WIDTHS = [128, 256, 512, 1024]
THRESHOLD, BANDWIDTH = 0.3, 0.1
COMMON = dict(latents=N, batch=BATCH, tokens=BATCH * STEPS, lr=LR, warmup=0, decay=0, eps=1e-8, clip=1, firedThreshold=0, deadTokens=10**7)
AUXK = dict(k=K, auxk=D // 2, auxkCoef=1 / 32)
FREE = dict(decoderNorm="free")
PENALTY = 0.05


def saelens_unit(trainer):
    unit_decoder(trainer.sae.W_dec, trainer.optimizer)


def saelens_direct(trainer):
    """Trains thresholds themselves, and not their logarithms, as SAELens does since 6.48."""
    kind = type(trainer.sae)
    trainer.sae.__class__ = type(kind.__name__, (kind,), dict(threshold=property(lambda sae: sae.log_threshold)))
    trainer.sae.log_threshold.data.exp_()


def saelens_direct_unit(trainer):
    saelens_direct(trainer)
    saelens_unit(trainer)


def dead_before(trainer, _):
    """Which latents are dead is decided before the step, and not after its firings are counted."""
    loss, auxiliary, before = trainer.loss, trainer.get_auxiliary_loss, {}

    def counted(x, step):
        before["age"] = trainer.num_tokens_since_fired.clone()
        return loss(x, step=step)

    def earlier(*words):
        after, trainer.num_tokens_since_fired = trainer.num_tokens_since_fired, before["age"]
        found = auxiliary(*words)
        trainer.num_tokens_since_fired = after
        return found

    trainer.loss, trainer.get_auxiliary_loss = counted, earlier


def rate_of_next(trainer, _):
    """The warm-up begins with 1 / warmup, and not with 0."""
    (factor,) = trainer.scheduler.lr_lambdas
    trainer.scheduler.lr_lambdas = [lambda step: factor(step + 1)]
    for group in trainer.optimizer.param_groups:
        group["lr"] = trainer.lr * factor(1)


def k_of_step(trainer, _):
    """k of a step is that of the step, and not of the one before."""
    anneal = trainer.update_annealed_k
    anneal(0, D, trainer.k_anneal_steps)
    trainer.update_annealed_k = lambda step, *words: anneal(step + 1, *words)


def band_of_inputs(_, module):
    """The gradient of the L0 reads pre-activations, as JumpReLU's own does, and not the codes that it gave."""
    jump, step = module.JumpReLUFunction, module.StepFunction
    seen = {}

    class Jump:
        @staticmethod
        def apply(x, *words):
            seen["x"] = x
            return jump.apply(x, *words)

    class Step:
        @staticmethod
        def apply(_, *words):
            return step.apply(seen["x"], *words)

    module.JumpReLUFunction, module.StepFunction = Jump, Step

    def undo():
        module.JumpReLUFunction, module.StepFunction = jump, step

    return undo


def sparsify_k_of_step(trainer):
    """k of a step is that of the step, and not of the one before."""
    current, calls = trainer.get_current_k, []

    def ahead():
        calls.append(None)
        trainer.global_step += len(calls) > 1
        k = current()
        trainer.global_step -= len(calls) > 1
        return k

    trainer.get_current_k = ahead


def sparsify_k_256(trainer):
    """Begins where all k values of a row are above 0."""
    trainer.initial_k = 256
    sparsify_k_of_step(trainer)


def constant_variance(mean):
    """Divides the loss of every batch by the same variance."""

    def change(trainer):
        def scaled(_, __, kwargs, output):
            variation = (kwargs["y"] - kwargs["y"].mean(0)).pow(2).sum() / kwargs["y"].numel()
            return output._replace(fvu=output.fvu * variation / mean)

        trainer.saes["layer"].register_forward_hook(scaled, with_kwargs=True)

    return change


def mean_variance(rows):
    return float(torch.stack([(y - y.mean(0)).pow(2).mean() for y in batches(rows, BATCH)]).mean())


def paper_auxk(codes, decoder, dead, residual):
    """AuxK as Gao et al. have it: relu of the highest dead codes; the error divided by the variation of the residual; no bias."""
    if int(dead.sum()) == 0:
        return residual.new_tensor(0.0)
    values, latents = torch.where(dead, codes, -torch.inf).topk(min(D // 2, int(dead.sum())))
    reconstructed = torch.zeros_like(codes).scatter(1, latents, values.relu()) @ decoder
    return (reconstructed - residual).pow(2).sum() / (residual - residual.mean(0)).pow(2).sum()


def saelens_auxk(trainer):
    sae = trainer.sae

    def loss(sae_in, sae_out, hidden_pre, dead_neuron_mask):
        return sae.cfg.aux_loss_coefficient * paper_auxk(hidden_pre, sae.W_dec, dead_neuron_mask, (sae_in - sae_out).detach())

    sae.calculate_topk_aux_loss = loss


def sparsify_auxk(mean):
    def change(trainer):
        constant_variance(mean)(trainer)

        def replaced(sae, _, kwargs, output):
            x, y = kwargs["x"], kwargs["y"]
            codes = torch.nn.functional.linear(x - sae.b_dec, sae.encoder.weight, sae.encoder.bias)
            return output._replace(auxk_loss=paper_auxk(codes, sae.W_dec, kwargs["dead_mask"], (y - output.sae_out).detach()))

        trainer.saes["layer"].register_forward_hook(replaced, with_kwargs=True)

    return change


def of_saelens(x, start):
    def case(title, kind, told, options, training, ours, runs):
        for why, change, more in [(None, None, {})] + runs:
            losses = saelens(kind, {"decoder_init_norm": 1.0, **options}, start, x, BATCH, dict(lr=LR, **training), change)
            yield dict(library="SAELens", title=title, told=told, why=why, start="start", data="rows", ours={**COMMON, "mseScale": D, **ours, **more}, losses=losses)

    topk, batchtopk = ("topk_sae", "TopK"), ("batchtopk_sae", "BatchTopK")
    matryoshka, jumprelu = ("matryoshka_batchtopk_sae", "MatryoshkaBatchTopK"), ("jumprelu_sae", "JumpReLU")
    unrescaled = dict(k=K, rescale_acts_by_decoder_norm=False)
    zero = dict(architecture="batchtopk", **AUXK, thresholdFrom="zero")
    nested = dict(zero, architecture="matryoshka", prefixes=WIDTHS, mseScale=D * len(WIDTHS))
    unit = ("decoder rows of norm 1", saelens_unit, dict(decoderNorm="unit"))
    paper = ("AuxK as the paper has it", saelens_auxk, {})
    yield from case("TopKTrainingSAE", topk, "rescale_acts_by_decoder_norm=False, lr_warm_up_steps=5", unrescaled, dict(lr_warm_up_steps=5), dict(architecture="topk", **AUXK, **FREE, warmup=5), [])
    yield from case("TopKTrainingSAE", topk, "defaults", dict(k=K), {}, dict(architecture="topk", **AUXK, **FREE), [unit])
    yield from case("TopKTrainingSAE", topk, "rescale_acts_by_decoder_norm=False, dead_feature_window=3", unrescaled, dict(dead_feature_window=3), {"architecture": "topk", **AUXK, **FREE, "deadTokens": 3 * BATCH, "auxkCoef": 1}, [paper])
    yield from case("BatchTopKTrainingSAE", batchtopk, "rescale_acts_by_decoder_norm=False", unrescaled, {}, dict(zero, **FREE), [])
    yield from case("BatchTopKTrainingSAE", batchtopk, "defaults, k=7.6", dict(k=7.6), {}, dict(zero, **FREE, k=7.6), [unit])
    yield from case("MatryoshkaBatchTopKTrainingSAE", matryoshka, "rescale_acts_by_decoder_norm=False", dict(unrescaled, matryoshka_widths=list(WIDTHS)), {}, dict(nested, **FREE), [])
    yield from case("MatryoshkaBatchTopKTrainingSAE", matryoshka, "defaults", dict(k=K, matryoshka_widths=list(WIDTHS)), {}, dict(nested, **FREE), [unit])
    step = dict(jumprelu_init_threshold=THRESHOLD, jumprelu_bandwidth=BANDWIDTH, l0_coefficient=PENALTY)
    ours = dict(architecture="jumprelu", targetL0=0, sparsityCoef=PENALTY, bandwidth=BANDWIDTH, initialThreshold=THRESHOLD, deadPenalty=0)
    direct = ("thresholds themselves are trained", saelens_direct, {})
    both = ("the same; decoder rows of norm 1", saelens_direct_unit, dict(decoderNorm="unit"))
    yield from case("JumpReLUTrainingSAE", jumprelu, "step", step, {}, dict(ours, **FREE), [direct])
    tanh = dict(ours, initialThreshold=5 * THRESHOLD, sparsityPenalty="tanh", deadPenalty=0.01, deadTokens=3 * BATCH, **FREE)
    told = "tanh, jumprelu_init_threshold=1.5, pre_act_loss_coefficient=0.01, dead_feature_window=3"
    yield from case("JumpReLUTrainingSAE", jumprelu, told, dict(step, jumprelu_init_threshold=5 * THRESHOLD, jumprelu_sparsity_loss_mode="tanh", pre_act_loss_coefficient=0.01), dict(dead_feature_window=3), tanh, [direct, both])


def of_dictionary_learning(x, start):
    def case(title, kind, told, options, ours, runs, attributes=None, data="rows", folder="start"):
        for why, change, more in [(None, None, {})] + runs:
            undo = []
            keep = None if change is None else lambda trainer, module: undo.append(change(trainer, module))
            losses = dictionary_learning((kind, title), dict(dict(warmup_steps=0, lr=LR), **options), start, x, BATCH, attributes, keep)
            for each in undo:
                if each is not None:
                    each()
            yield dict(library="dictionary_learning", title=title, told=told, why=why, start=folder, data=data, ours={**COMMON, "mseScale": D, **ours, **more}, losses=losses)

    topk = dict(architecture="topk", **AUXK)
    dead = dict(dead_feature_threshold=4 * BATCH)
    earlier = ("dead latents decided before the step", dead_before, dict(deadTokens=4 * BATCH - 1))
    running = dict(thresholdDecay=0.999, thresholdStart=6, thresholdFrom="first")
    yield from case("TopKTrainer", "top_k", "defaults", dict(k=K), topk, [])
    yield from case("TopKTrainer", "top_k", "dead_feature_threshold=1024", dict(k=K), dict(topk, deadTokens=3 * BATCH - 1), [earlier], dead)
    yield from case("TopKTrainer", "top_k", "warmup_steps=5", dict(k=K, warmup_steps=5), dict(topk, warmup=5), [("warm-up from lr / 5", rate_of_next, {})])
    yield from case("TopKTrainer", "top_k", "k_anneal_steps=8", dict(k=K, k_anneal_steps=8), dict(topk, kAnneal=f"{D}:8"), [("k of the step itself", k_of_step, {})])
    yield from case("BatchTopKTrainer", "batch_top_k", "threshold_start_step=5", dict(k=K, threshold_start_step=5), dict(topk, architecture="batchtopk", **running), [])
    fractions = [(width - before) / N for before, width in zip([0, *WIDTHS], WIDTHS)]
    nested = dict(topk, architecture="matryoshka", prefixes=WIDTHS, mseScale=D / len(WIDTHS), **running)
    yield from case("MatryoshkaBatchTopKTrainer", "matryoshka_batch_top_k", "threshold_start_step=5", dict(k=K, group_fractions=fractions, threshold_start_step=5), nested, [])
    quadratic = dict(architecture="jumprelu", targetL0=20, sparsityPenalty="quadratic", sparsityCoef=1, bandwidth=BANDWIDTH, initialThreshold=THRESHOLD, deadPenalty=0, beta1=0, decoderNorm="unit", mseScale=D)
    told = f"bandwidth={BANDWIDTH}, sparsity_warmup_steps=None"
    yield from case("JumpReluTrainer", "jumprelu", told, dict(bandwidth=BANDWIDTH, sparsity_warmup_steps=None), quadratic, [("gradient of the L0 by pre-activations", band_of_inputs, {})], None, "self", "start-untied")


def of_sparsify(x, y, start):
    def case(title, told, options, training, ours, runs, folder="start-mean", targets=x):
        variance = mean_variance(targets)
        constant = ("one variance for all batches", constant_variance(variance), {})
        for why, change, more in [(None, None, {})] + (runs or [constant]):
            losses = sparsify(dict(k=K, **options), dict(dict(lr=LR, lr_warmup_steps=0), **training), start, x, targets, BATCH, change)
            scale = dict(mseScale=1 / variance, architecture="topk", **dict(AUXK, auxk=0), clip=0, decay=1)
            yield dict(library="sparsify", title=title, told=told, why=why, start=folder, data="rows" if targets is x else "pairs", ours={**COMMON, **scale, **ours, **more}, losses=losses, unit="fvu")

    def both(trainer):
        sparsify_k_256(trainer)
        constant_variance(mean_variance(x))(trainer)

    yield from case("Trainer", 'optimizer="adam"', {}, {}, {}, None)
    auxk = dict(auxk_alpha=1 / 32, dead_feature_threshold=3 * BATCH)
    yield from case("Trainer", "auxk_alpha=1/32, dead_feature_threshold=768", {}, auxk, dict(auxk=D // 2, deadTokens=3 * BATCH), [("AuxK as the paper has it, one variance", sparsify_auxk(mean_variance(x)), {})])
    yield from case("Trainer", "k_decay_steps=10", {}, dict(k_decay_steps=10), dict(kAnneal=f"{10 * D}:10"), [("k of the step itself, one variance, k from 256", both, {"kAnneal": "256:10"})])
    yield from case("Trainer", "transcode=True", dict(transcode=True), {}, {}, None, "start-transcoder", y)
    yield from case("Trainer", "transcode=True, skip_connection=True", dict(transcode=True, skip_connection=True), {}, dict(skip=True), None, "start-skip", y)


def run(x, y, start, only=None):
    cases = [*of_saelens(x, start), *of_dictionary_learning(x, start), *of_sparsify(x, y, start)]
    return [case for case in cases if only is None or only in f"{case['library']} {case['title']} {case['told']}"]
