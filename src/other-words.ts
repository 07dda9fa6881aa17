/**
 * What other programs call an option, and what it is called here: SAELens, sparsify,
 * dictionary_learning, OpenAI's train.py, transformers and torchrun. Used to answer an unknown
 * option, in flags, config files and the library alike.
 */

/**
 * [our option in camelCase, or "" where there is none; what to know; the words of others]. Case,
 * "-" and "_" of a word do not count.
 */
const TABLE: readonly (readonly [ours: string, hint: string, words: string])[] = [
  [
    "latents",
    "",
    "d_sae n_latents num_latents n_features num_features features dict_size dictionary_size hidden_size n_dirs",
  ],
  [
    "latents",
    "",
    "d_hidden n_hidden hidden_dim latent_dim sae_dim d_dict activation_dim_out n_dict_components width_sae",
  ],
  ["expansion", "", "expansion_factor exp_factor dict_ratio multiplier d_sae_multiplier ratio dict_mult"],
  ["k", "", "top_k topk active_latents num_active sparsity target_l0 l0_target l0 n_active k_active"],
  ["auxk", "dead latents that it may use; 0 turns it off", "aux_k k_aux auxiliary_k topk_aux dead_topk n_auxk"],
  [
    "auxkCoef",
    "",
    "auxk_alpha aux_alpha aux_coef auxk_weight aux_loss_coefficient auxk_loss_coef aux_weight alpha_aux",
  ],
  [
    "batch",
    "it counts rows",
    "batch_size bs train_batch_size train_batch_size_tokens sae_batch_size out_batch_size batch_tokens",
  ],
  [
    "batch",
    "it counts rows",
    "per_device_train_batch_size micro_batch_size micro_acc_steps minibatch_size rows_per_step",
  ],
  [
    "tokens",
    "it counts rows",
    "training_tokens total_tokens total_training_tokens num_tokens n_tokens max_tokens train_tokens",
  ],
  [
    "tokens",
    "it counts rows",
    "token_budget total_training_samples training_samples num_samples n_samples max_examples rows num_rows",
  ],
  [
    "tokens",
    "it counts rows: steps x batch",
    "steps num_steps n_steps max_steps total_steps training_steps total_training_steps",
  ],
  [
    "tokens",
    "it counts rows: steps x batch",
    "train_steps num_train_steps iterations n_iters num_iterations iters max_iters n_batches",
  ],
  ["epochs", "", "num_epochs n_epochs epoch num_train_epochs max_epochs passes"],
  ["lr", "", "learning_rate base_lr step_size adam_lr max_lr peak_lr"],
  [
    "warmup",
    "it counts steps",
    "lr_warm_up_steps lr_warmup_steps warmup_steps warm_up_steps num_warmup_steps lr_warmup warm_up",
  ],
  ["warmup", "it counts steps", "n_lr_warm_up_steps lr_warm_up"],
  [
    "decay",
    "a share of the steps",
    "lr_decay_steps decay_steps lr_decay decay_start n_lr_decay_steps lr_decay_fraction cooldown",
  ],
  [
    "decay",
    "a share of the steps, linear",
    "lr_scheduler_name lr_scheduler lr_scheduler_type scheduler lr_schedule schedule",
  ],
  ["eps", "", "adam_eps adam_epsilon epsilon optimizer_eps"],
  ["beta1", "", "adam_beta1 beta_1"],
  ["beta2", "", "adam_beta2 beta_2"],
  ["beta1", "and beta2 apart", "betas adam_betas"],
  ["decoderNorm", "", "normalize_decoder unit_norm_decoder decoder_unit_norm normalize_w_dec"],
  ["", "Adam is the only optimizer", "optimizer optim optimizer_name weight_decay adam_weight_decay momentum"],
  [
    "clip",
    "",
    "clip_grad grad_clip gradient_clip max_grad_norm gradient_clipping clip_grad_norm grad_clip_norm max_norm_grad",
  ],
  ["ema", "", "ema_decay ema_multiplier ema_rate use_ema average_decay"],
  [
    "deadTokens",
    "it counts rows",
    "dead_feature_threshold dead_threshold dead_tokens_threshold dead_feature_window dead_steps",
  ],
  [
    "deadTokens",
    "it counts rows",
    "dead_steps_threshold dead_after n_batches_to_dead dead_latent_threshold resample_steps",
  ],
  ["deadTokens", "it counts rows", "feature_sampling_window resample_every dead_toks_threshold"],
  ["firedThreshold", "", "activation_threshold firing_threshold fire_threshold active_threshold"],
  [
    "",
    "--k sets the sparsity of a TopK autoencoder",
    "l1 l1_coefficient l1_coeff l1_coef l1_penalty l1_alpha l1_weight l1_lambda lambda",
  ],
  [
    "",
    "--k sets the sparsity of a TopK autoencoder",
    "l1_warm_up_steps l1_warmup_steps l0_coefficient l0_coeff sparsity_penalty",
  ],
  [
    "",
    "--k sets the sparsity of a TopK autoencoder",
    "sparsity_coefficient sparsity_coeff sparsity_warmup_steps penalty lp_norm sparsity_loss",
  ],
  [
    "",
    "TopK is what is trained; --k sets its sparsity",
    "architecture arch sae_type sae_class activation activation_fn activation_function",
  ],
  [
    "",
    "TopK is what is trained; --k sets its sparsity",
    "trainer dict_class variant batch_topk batchtopk jumprelu gated relu",
  ],
  ["mseScale", "", "mse_coef mse_weight mse_coefficient reconstruction_coefficient mse_loss_normalization recon_coef"],
  ["encoderRescale", "", "init_encoder_norm rescale_encoder decoder_heuristic_init encoder_init"],
  ["nonFinite", "", "skip_nan nan_policy skip_non_finite skip_nonfinite ignore_nan nan"],
  [
    "excludeTokens",
    "",
    "exclude_special_tokens remove_bos ignore_bos skip_bos drop_bos exclude_bos skip_first_token ignore_tokens",
  ],
  ["excludeTokens", "", "skip_tokens special_tokens masked_tokens special_token_ids remove_bos_token ignore_token_ids"],
  [
    "holdout",
    "a share of the sequences",
    "hold_out val_split validation_split test_split eval_split val_fraction test_size val_size",
  ],
  ["holdout", "a share of the sequences", "validation_fraction eval_fraction holdout_fraction val_ratio test_fraction"],
  [
    "evalEvery",
    "it counts steps",
    "eval_steps eval_interval eval_frequency eval_every_n_steps eval_every_n_wandb_logs val_interval",
  ],
  ["evalEvery", "it counts steps", "evaluation_steps val_check_interval eval_freq eval_every_steps validate_every"],
  [
    "init",
    "",
    "pretrained resume_from finetune from_pretrained_path from_pretrained init_from init_weights finetune_from pretrained_path",
  ],
  [
    "init",
    "",
    "checkpoint load load_from checkpoint_path resume_from_checkpoint load_path sae_path weights_path start_from",
  ],
  [
    "shuffle",
    "",
    "shuffle_data no_shuffle_data shuffle_buffer shuffle_rows shuffle_buffer_size n_batches_in_buffer activations_mixing_fraction",
  ],
  ["dropLast", "", "drop_last_batch dataloader_drop_last"],
  [
    "statisticsRows",
    "",
    "num_statistics_samples statistics_samples bias_init_samples n_samples_for_stats init_samples",
  ],
  ["seed", "", "random_seed rng_seed manual_seed torch_seed"],
  [
    "normalize",
    "",
    "normalize_activations normalise normalise_activations normalization activation_norm norm_activations normalize_input",
  ],
  ["normalize", "", "normalize_inputs layer_norm layernorm activation_normalization input_norm normalize_acts"],
  ["engine", "auto, cpu or cuda", "device backend accelerator use_cuda gpu cuda gpus devices no_cuda"],
  [
    "dtype",
    "auto, f32, bf16 or fp16",
    "precision autocast mixed_precision torch_dtype bf16 fp16 amp compute_dtype half autocast_sae",
  ],
  ["threads", "", "num_threads n_threads cpu_threads num_workers workers dataloader_num_workers cpus jobs"],
  ["shards", "", "tensor_parallel tp tp_size tensor_parallel_size model_parallel_size num_shards n_shards"],
  [
    "replicas",
    "",
    "data_parallel dp dp_size world_size data_parallel_size num_replicas ddp num_gpus n_gpus n_replicas",
  ],
  ["nproc", "", "nproc_per_node num_processes n_procs nprocs num_procs"],
  [
    "checkpointEvery",
    "it counts steps",
    "save_every save_steps save_interval checkpoint_interval checkpoint_frequency checkpoint_freq",
  ],
  [
    "checkpointEvery",
    "it counts steps",
    "save_every_n_steps checkpoint_every_n_steps save_freq ckpt_every n_checkpoints",
  ],
  [
    "keep",
    "it counts checkpoints",
    "save_total_limit keep_last max_checkpoints keep_checkpoints num_checkpoints_to_keep keep_last_n save_top_k",
  ],
  [
    "logEvery",
    "it counts steps",
    "log_steps logging_steps log_interval log_frequency wandb_log_frequency log_every_n_steps log_freq",
  ],
  ["logEvery", "it counts steps", "log_every_steps print_every logging_interval"],
  ["wandb", "", "wandb_project log_to_wandb use_wandb report_to wandb_name project wandb_entity"],
  ["tensorboard", "", "tb use_tensorboard tensorboard_dir logging_dir tb_log"],
  [
    "dataset",
    "the name of a dataset inside the file",
    "dataset_name dataset_key hdf5_key data_key tensor_key column key",
  ],
  [
    "out",
    "",
    "output output_dir out_dir output_path save_dir save_path checkpoint_dir run_dir output_folder results_dir save_to",
  ],
  ["out", "", "checkpoint_output_path dest destination outdir outfile output_file out_path out_file"],
  ["config", "", "config_file cfg config_path cfg_file yaml"],
  ["model", "", "model_name model_path model_name_or_path lm base_model pretrained_model language_model lm_name"],
  ["tensor", "", "hook hook_name hook_point hookpoint hookpoints hook_layer hook_point_layer site submodule module"],
  ["layer", "", "layers layer_index layer_idx"],
  ["text", "", "text_file dataset_path corpus text_path prompts input_text"],
  [
    "context",
    "",
    "context_size context_length ctx_len ctx_size seq_len max_length max_seq_len sequence_length block_size ctx n_ctx",
  ],
  [
    "data",
    "",
    "activations acts data_path data_dir activation_path activations_path cached_activations_path input input_path inputs",
  ],
  ["data", "", "train_data data_file train_file data_files input_file acts_path activation_dir activations_dir"],
  [
    "maxRows",
    "",
    "n_eval_batches eval_batches n_rows max_samples eval_tokens limit max_eval_rows max_batches n_eval_tokens",
  ],
  ["json", "", "as_json output_json json_output format_json"],
  ["features", "it counts latents", "n_latents_shown top_features show_features show_latents num_latents_shown top"],
  ["serve", "", "dashboard ui web open_browser show"],
];

const OURS: ReadonlyMap<string, readonly (readonly [string, string])[]> = table();

function table(): Map<string, (readonly [string, string])[]> {
  const map = new Map<string, (readonly [string, string])[]>();
  for (const [ours, hint, words] of TABLE)
    for (const word of words.split(" ").map(bare)) map.set(word, [...(map.get(word) ?? []), [ours, hint] as const]);
  return map;
}

/**
 * "; here it is --batch (it counts rows)", for a word of another program; undefined where there is
 * nothing to say. `known`: the options that there are, in camelCase; `spell` writes one as the user
 * would. Where activations are arguments and no option, that is said.
 */
export function ourWord(
  word: string,
  spell: (name: string) => string,
  known: readonly string[],
  dataIs?: string,
): string | undefined {
  const found = OURS.get(bare(word)) ?? (bare(word) === "data" ? [["data", ""] as const] : []);
  for (const [ours, hint] of found) {
    if (ours === "") {
      if (known.includes("k")) return `; ${hint.replace("--k", spell("k"))}`;
    } else if (known.includes(ours)) return `; here it is ${spell(ours)}${hint === "" ? "" : ` (${hint})`}`;
    else if (ours === "data" && dataIs !== undefined) return `; ${dataIs}`;
  }
  return undefined;
}

function bare(word: string): string {
  return word.toLowerCase().replace(/[-_]/g, "");
}
