/**
 * What questions are about: a language model with one tensor in reach, and an autoencoder of that
 * tensor.
 */

import { availableParallelism } from "node:os";
import { basename } from "node:path";
import { runFolderOf } from "../checkpoint/layout.ts";
import { type ExcludePositions, type ExcludeTokens, excludedIds } from "../data/mask.ts";
import type { Engine } from "../engine/engine.ts";
import type { AskAbout, AskLimits } from "../explorer/shared/ask.ts";
import { checkEditable } from "../inference/edit-rows.ts";
import { loadSae, type Sae } from "../inference/sae.ts";
import type { WeightsKind } from "../inference/weights.ts";
import { contextOf, type LanguageModel, loadModel, loadTokenizerOf } from "../language-model/load.ts";
import { openHead, openSpliced, type SplicedModel } from "../language-model/spliced.ts";
import type { Tokenizer } from "../language-model/tokenizer.ts";
import { readRunConfig } from "../train/run-folder.ts";
import { SaettaError, UsageError } from "../util/errors.ts";
import { mustBe, numberInWords } from "../util/must.ts";
import { LIMITS } from "./question.ts";

export interface AskModelOptions {
  /** A .onnx file, or a folder with model.onnx; tokenizer.json lies next to it. */
  readonly model: string;
  readonly tokenizer?: string | undefined;
  /** Default: the one that the autoencoder names. */
  readonly tensor?: string | undefined;
  /** Tokens per context. Default: what the model can take, at most 1024. */
  readonly context?: number | undefined;
  readonly weights?: WeightsKind | undefined;
  /** Of the model. Default: all processors. */
  readonly threads?: number | undefined;
}

/** Memory that the logits of a context may take: the model gives those of all positions at once. */
const LOGIT_BYTES = 256 * 2 ** 20;

/** A model, opened at a tensor. */
export interface OpenModel {
  readonly language: LanguageModel;
  readonly tokenizer: Tokenizer;
  /** The text of a token alone. */
  readonly textOf: (id: number) => string;
  readonly context: number;
  readonly tensor: string;
  readonly spliced: SplicedModel;
  /** Tokens of a context, where the model takes one number only: shorter ones are filled up. */
  readonly fixed: number | undefined;
}

/** An autoencoder of the model's tensor. */
export interface Subject {
  readonly model: OpenModel;
  readonly sae: Sae;
  /** Whether the row of a token at a position is one that training uses. */
  readonly counts: (id: number, position: number) => boolean;
  readonly about: AskAbout;
}

/** Holds the model, and the tensor and the autoencoder that were asked about last. */
export class Subjects implements AsyncDisposable {
  readonly #options: AskModelOptions;
  readonly #engine: Engine;
  readonly #language: LanguageModel;
  readonly #tokenizer: Tokenizer;
  readonly #context: number;
  #model: OpenModel | undefined;
  #subject: { readonly path: string; readonly subject: Subject } | undefined;

  private constructor(
    options: AskModelOptions,
    engine: Engine,
    language: LanguageModel,
    tokenizer: Tokenizer,
    context: number,
  ) {
    this.#options = options;
    this.#engine = engine;
    this.#language = language;
    this.#tokenizer = tokenizer;
    this.#context = context;
  }

  /**
   * Reads the model and its tokenizer. Throws where they cannot be used. `engine` stays the
   * caller's.
   */
  static async open(options: AskModelOptions, engine: Engine): Promise<Subjects> {
    const language = await loadModel(options.model);
    const tokenizer = await loadTokenizerOf(language, options.tokenizer);
    const { most, byDefault } = await contextOf(language);
    const { context = byDefault } = options;
    if (context < 2 || (most !== undefined && context > most))
      throw new UsageError(
        mustBe("--context", numberInWords({ least: 2, ...(most !== undefined && { most }) }, "whole number"), context),
      );
    return new Subjects(options, engine, language, tokenizer, context);
  }

  /** Opens what `path` names, unless it is open. */
  async get(path: string): Promise<Subject> {
    if (this.#subject?.path === path) return this.#subject.subject;
    await this.#subject?.subject.sae.close();
    this.#subject = undefined;
    const { weights, tensor: asked } = this.#options;
    const sae = await loadSae(path, { engine: this.#engine, ...(weights && { weights }) });
    try {
      checkEditable(sae, []);
      const tensor = asked ?? sae.description.saetta?.tensor;
      if (tensor === undefined)
        throw new UsageError("the autoencoder does not say which tensor of the model it is of", {
          where: sae.path,
          mend: "name it with --tensor; saetta harvest --model MODEL --list-tensors shows the tensors",
        });
      const model = await this.#openAt(tensor);
      if (sae.dims.dIn !== model.spliced.width)
        throw new SaettaError(
          `takes rows of ${sae.dims.dIn} numbers, but the tensor '${tensor}' has ${model.spliced.width}`,
          { where: sae.path, mend: "name the model and the tensor that it was trained on: --model, --tensor" },
        );
      const subject = { model, sae, counts: await countsOf(sae.path, this.#tokenizer), about: aboutOf(sae, model) };
      this.#subject = { path, subject };
      return subject;
    } catch (thrown) {
      await sae.close();
      throw thrown;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#subject?.subject.sae.close();
    await this.#model?.spliced.close();
  }

  async #openAt(tensor: string): Promise<OpenModel> {
    if (this.#model?.tensor === tensor) return this.#model;
    await this.#model?.spliced.close();
    this.#model = undefined;
    const language = this.#language;
    const tokenizer = this.#tokenizer;
    const { threads = availableParallelism() } = this.#options;
    const head = await openHead(language, tensor, threads);
    const { fixed } = head;
    await head.close();
    if ((fixed.batch ?? 1) !== 1)
      throw new SaettaError(`the model was exported for batches of ${fixed.batch}`, {
        where: language.path,
        mend: "export it with a dynamic batch",
      });
    const trial = new Int32Array(fixed.context ?? Math.min(8, this.#context)).fill(tokenizer.startToken);
    const spliced = await openSpliced(language, tensor, threads, trial);
    this.#model = {
      language,
      tokenizer,
      textOf: textsOf(tokenizer),
      context: fixed.context ?? this.#context,
      tensor,
      spliced,
      fixed: fixed.context,
    };
    return this.#model;
  }
}

/** Remembers the texts: a call of the tokenizer is not quick. */
function textsOf(tokenizer: Tokenizer): (id: number) => string {
  const known = new Map<number, string>();
  return (id) => {
    const text = known.get(id) ?? tokenizer.pieces([id])[0] ?? "";
    known.set(id, text);
    return text;
  };
}

/** Rows are left out as the run left them out; without a run as training does by default. */
async function countsOf(path: string | undefined, tokenizer: Tokenizer): Promise<Subject["counts"]> {
  const run = path === undefined ? undefined : runFolderOf(path);
  const options =
    run === undefined
      ? undefined
      : await readRunConfig(run).then(
          ({ options }) => options,
          () => undefined,
        );
  const tokens: ExcludeTokens = options?.excludeTokens ?? "start";
  const positions: ExcludePositions = options?.excludePositions ?? "none";
  const ids = excludedIds(tokens, tokenizer.startToken);
  return (id, position) => !ids.has(id) && (positions === "none" || !positions.includes(position));
}

function aboutOf({ path = "", dims }: Sae, { language, context, tensor, spliced }: OpenModel): AskAbout {
  const tokens = Math.min(LIMITS.tokens, Math.max(2, Math.floor(LOGIT_BYTES / (4 * spliced.vocabulary))));
  const limits: AskLimits = { ...LIMITS, tokens };
  return {
    name: basename(runFolderOf(path) ?? path),
    model: language.path,
    tensor,
    latents: dims.n,
    width: dims.dIn,
    context,
    limits,
  };
}
