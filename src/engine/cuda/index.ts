/**
 * The engine for NVIDIA cards: kernels/*.cu, compiled at first use, and dense products by cuBLASLt,
 * driven through the CUDA driver. An operation checks what it is given and queues kernels; nothing
 * waits for the card but `read`. The same bits on every run on the same card.
 */

import type { Collective } from "../../collective/collective.ts";
import { solo } from "../../collective/solo.ts";
import { NO_NORMALIZATION } from "../../sae/math.ts";
import { SaettaError } from "../../util/errors.ts";
import type {
  Branch,
  Codes,
  Dims,
  DType,
  Engine,
  Grads,
  GradsPlan,
  Narrowing,
  Normalization,
  Over,
  ParamGradInput,
  Params,
  ReduceOp,
  Rule,
  Selection,
  SelectionPlan,
  State,
  Step,
  Tensor,
} from "../engine.ts";
import { EngineBase } from "../engine-base.ts";
import type { Reconstruct } from "../fuse.ts";
import { sidesOf } from "../selections.ts";
import { CudaContext } from "./context.ts";
import type { Compute } from "./contract.ts";
import { Device, NotRecordable } from "./driver/device.ts";
import { CudaError } from "./driver/driver.ts";
import { WHERE } from "./driver/libraries.ts";
import { Nvrtc } from "./driver/nvrtc.ts";
import { Downloads, Uploads } from "./driver/staging.ts";
import { MOST_ROWS, refusal } from "./limits.ts";
import { CudaCodes, forgetStrategy } from "./memory/codes.ts";
import { hasInflow, markRowsAsWritten, settleInflow, waitForReaders } from "./memory/inflow.ts";
import { CHECKS, CudaTensor, ownTensor } from "./memory/tensor.ts";
import { RowUploads } from "./memory/upload-rows.ts";
import { restartForecast } from "./ops/dead-list.ts";
import { encode, load } from "./ops/encode.ts";
import { CudaGrads, ownGrads } from "./ops/gradients.ts";
import * as branchOps from "./ops/reconstruct.ts";
import { RecordedStep, type StepUse } from "./record.ts";
import { cutBatch } from "./replicas/cut-batch.ts";
import { merge } from "./replicas/merge.ts";
import { complete } from "./replicas/owned-rows.ts";
import { Reductions } from "./replicas/reductions.ts";

export interface CudaOptions {
  /**
   * Which card of those that CUDA_VISIBLE_DEVICES leaves; default: the one of this process's
   * LOCAL_RANK, or the first.
   */
  readonly device?: number;
  /**
   * What products are computed in; default bf16. Parameters, moments and sums are f32 and wider
   * whatever it is.
   */
  readonly dtype?: Compute;
  /**
   * Folders to keep compiled kernels in, the first writable one; default the package's `build/`,
   * then the user's cache folder.
   */
  readonly folders?: readonly string[];
  /** The ranks that it computes with; default: it is alone. */
  readonly collective?: Collective;
}

export type { Compute } from "./contract.ts";

/** Half the distance from 1 to the next number. */
const ROUNDING: Readonly<Record<Compute, number | undefined>> = { f32: undefined, bf16: 2 ** -8, fp16: 2 ** -11 };

/**
 * Starts the engine. Throws SaettaError when there is no driver, no card that it can use, or no
 * NVRTC or cuBLASLt.
 */
export async function createCudaEngine(options: CudaOptions = {}): Promise<Engine> {
  const compute = options.dtype ?? "bf16";
  const device = await Device.open(options.device);
  try {
    const nvrtc = await Nvrtc.load();
    const cubins = await nvrtc.cubins(device.capability, compute, options.folders);
    const collective = options.collective ?? solo();
    await collective.ready();
    return new CudaEngine(await CudaContext.create(device, cubins, compute, collective));
  } catch (error) {
    device.close();
    throw error;
  }
}

class CudaEngine extends EngineBase<CudaTensor, CudaCodes, CudaGrads> implements Engine {
  readonly name = "cuda";
  readonly description: string;
  readonly rounding: number | undefined;
  readonly #cuda: CudaContext;
  readonly #reductions: Reductions;
  readonly #uploads: Uploads;
  readonly #downloads: Downloads;
  readonly #rows: RowUploads;
  /** Two numbers that tell of a row that was asked for and is not there. */
  readonly #fault: number;
  readonly #recorded = new Set<RecordedStep>();
  /** The err that the last decode adds to. */
  #started: Tensor | undefined;
  /** What a step uses, while it is called to be recorded. */
  #use: StepUse | undefined;
  #failure: unknown;

  constructor(cuda: CudaContext) {
    super(CHECKS);
    const { device } = cuda;
    this.#cuda = cuda;
    this.#reductions = new Reductions(cuda);
    this.description = `cuda: ${device.name}, ${cuda.compute}`;
    this.rounding = ROUNDING[cuda.compute];
    this.#fault = device.alloc(8, "faults");
    this.#uploads = new Uploads(device);
    this.#downloads = new Downloads(
      device,
      this.#fault,
      (fault) => this.#explain(fault),
      cuda.exchange.collective.deadline,
    );
    this.#rows = new RowUploads(device, cuda.kernels, this.#uploads, this.#fault, (fault) => this.#explain(fault));
  }

  refuses(dims: Dims, selections: readonly SelectionPlan[]): string | undefined {
    return refusal(dims, selections, this.#cuda);
  }

  protected allocate(dtype: DType, shape: readonly number[], size: number): CudaTensor {
    return new CudaTensor(dtype, shape, size, this.#cuda.device.alloc(size, `a tensor ${dtype} [${shape}]`));
  }

  protected allocateCodes(rows: number, capacity: number): CudaCodes {
    return new CudaCodes(rows, capacity, (dtype, shape) => this.alloc(dtype, shape));
  }

  protected fill({ address, size }: CudaTensor, byte: number): void {
    this.#cuda.device.fill(address, byte, size);
  }

  grads(plan: GradsPlan): Grads {
    const { dims, rows, selections, dense, skip } = plan;
    const { dIn, n, dOut } = dims;
    if (rows > MOST_ROWS)
      throw new SaettaError(`a batch can have ${MOST_ROWS} rows at most, not ${rows}`, { where: WHERE });
    const f32 = (...shape: number[]) => this.alloc("f32", shape);
    const tensors = {
      ...{ latentBias: f32(n), preBias: f32(dOut) },
      ...(dense ? { encoder: f32(n, dIn), decoder: f32(n, dOut) } : {}),
      ...(selections.some(({ rule }) => rule.kind === "band") ? { threshold: f32(n) } : {}),
      ...(skip ? { skip: f32(dOut, dIn) } : {}),
    };
    return this.hold(new CudaGrads(this.#cuda, plan, tensors));
  }

  protected queueWrite(tensor: CudaTensor, bytes: Uint8Array, at: number): void {
    const { address } = tensor;
    this.#queue(() => {
      this.#flush();
      const { device } = this.#cuda;
      if (hasInflow(tensor)) {
        waitForReaders(device, tensor);
        this.#uploads.send(device.uploads, address + at, bytes);
        markRowsAsWritten(device, tensor);
      } else {
        this.#uploads.send(device.stream, address + at, bytes);
      }
    });
    this.#changed(tensor);
  }

  hostMemory(bytes: number): Uint8Array<ArrayBuffer> {
    this.checkOpen();
    return this.#rows.memory(bytes);
  }

  async upload(raw: Tensor, bytes: Uint8Array, row: number): Promise<readonly number[]> {
    this.checkOpen();
    const tensor = ownTensor(raw);
    tensor.wrote();
    return this.#rows.send(tensor, bytes, row);
  }

  read(t: Tensor): Promise<Uint8Array> {
    this.checkOpen();
    const tensor = ownTensor(t);
    try {
      this.flush();
      settleInflow(this.#cuda.device, tensor);
      // A run that resumes from these ages elsewhere starts its forecast of the dead there; so does
      // this one.
      restartForecast(tensor);
      return this.#downloads.receive(tensor.address, tensor.size);
    } catch (error) {
      return Promise.reject(this.#failure ?? error);
    }
  }

  pairs(z: Codes): { readonly latent: Tensor; readonly value: Tensor; readonly grad: Tensor } {
    if (!(z instanceof CudaCodes)) throw new SaettaError("codes of another engine were given to the cuda engine");
    return z.tensors;
  }

  load(
    raw: Tensor,
    rows: Tensor,
    x: Tensor,
    t: Step,
    normalization: Normalization = NO_NORMALIZATION,
    column = 0,
  ): void {
    this.checkOpen();
    this.#queue(() => {
      this.#flush();
      const queue = () => load(this.#cuda, { raw, rows, x, t, normalization, column, fault: this.#fault });
      this.#use?.loads.push(queue);
      if (this.#use?.others) this.#use.mixed = true;
      // A recorded step queues its loads itself.
      if (!this.#cuda.device.recording) queue();
    });
  }

  encode(p: Params, x: Tensor, t: Step, selections: readonly Selection[], age?: Tensor): void {
    const sides = sidesOf(selections, WHERE);
    this.#operation(() => {
      const use = encode(this.#cuda, { p, x, t, sides, age });
      if (use !== undefined) this.#use?.dead.add(use);
    });
  }

  reconcile(rule: Rule, z: Codes, t: Step, live: boolean): void {
    const cuda = this.#cuda;
    if (cuda.exchange.sizeOf("shards") > 1 && rule.kind === "topk")
      this.#operation(() => merge(cuda, z, rule.k, live ? t : undefined));
    if (rule.kind === "batchtopk") this.#operation(() => cutBatch(cuda, z, t));
  }

  allReduce(t: Tensor, op: ReduceOp, over: Over, narrow?: Narrowing): void {
    if (narrow !== undefined) throw new SaettaError("sums of 16-bit numbers are not made on cards", { where: WHERE });
    if (this.#cuda.exchange.sizeOf(over) === 1) return;
    this.checkOpen();
    this.#queue(() => {
      if (this.#use !== undefined) this.#use.others = true;
      this.fusion.flush();
      this.#reductions.add(t, op, over, this.#use !== undefined);
    });
  }

  decode(p: Params, branch: Branch, x?: Tensor): void {
    this.#holdable(() => {
      const cuda = this.#cuda;
      this.fusion.flush();
      const add = branchOps.skipped(cuda, p, branch, x);
      this.#started = add ? branch.err : undefined;
      this.fusion.decode(p, branch.codes, branch.err, () => branchOps.decode(cuda, p, branch, add));
    });
  }

  residual(p: Params, target: Tensor, t: Step, branch: Branch, live?: Branch): void {
    this.#holdable(() => {
      const cuda = this.#cuda;
      const alone = () => branchOps.residual(cuda, p, target, t, branch, live);
      if (branchOps.canReconstruct(cuda, branch, p, live)) {
        this.fusion.residual(p, target, t, branch, live, alone);
      } else {
        this.fusion.flush();
        alone();
      }
    });
  }

  codeGrad(p: Params, branch: Branch, t: Step): void {
    this.#holdable(() => {
      const cuda = this.#cuda;
      const all = ({ target, live }: Reconstruct) =>
        branchOps.reconstruct(cuda, p, target, t, branch, live, this.#started === branch.err);
      this.fusion.codeGrad(p, branch, t, () => branchOps.codeGrad(cuda, p, branch, t), all);
    });
  }

  paramGrad(input: ParamGradInput): void {
    this.#operation(() => ownGrads(input.g).paramGrad(this.#cuda, input));
  }

  norm(p: Params, g: Grads, t: Step): void {
    this.#operation(() => ownGrads(g).norm(this.#cuda, p, t));
  }

  update(s: State, g: Grads, t: Step): void {
    this.#operation(() => ownGrads(g).update(this.#cuda, s, t));
  }

  complete(s: State): void {
    if (this.#cuda.exchange.sizeOf("replicas") > 1) this.#operation(() => complete(this.#cuda, s));
  }

  record(step: () => void): () => void {
    const recording = new RecordedStep(this.#cuda, step, (run, use) => {
      this.#use = use;
      try {
        run();
        this.#flush();
      } finally {
        this.#use = undefined;
      }
      if (this.#failure !== undefined) throw this.#failure;
    });
    this.#recorded.add(recording);
    return () => this.#operation(() => recording.run());
  }

  protected async shutDown(): Promise<void> {
    await this.#downloads.drained;
    await this.#rows.drained;
    const { device } = this.#cuda;
    device.driver.attempt("cuStreamSynchronize", device.uploads);
    device.driver.attempt("cuStreamSynchronize", device.stream);
    try {
      for (const recording of this.#recorded) recording.forget();
      this.freeAll();
      this.#cuda.close();
      device.free(this.#fault, 8);
      this.#uploads.close();
      this.#downloads.close();
      this.#rows.close();
    } catch (error) {
      // A card that has failed takes nothing back; its context goes all the same.
      if (!(error instanceof CudaError)) throw error;
    } finally {
      device.close();
    }
  }

  protected flush(): void {
    this.#queue(() => this.#flush());
  }

  protected release(it: CudaTensor | CudaGrads): void {
    if (it instanceof CudaGrads) it.release();
    else it.release(this.#cuda.device);
  }

  /** Queues what was held back. */
  #flush(): void {
    this.fusion.flush();
    this.#reductions.flush();
  }

  /** An operation that may be held back. */
  #holdable(body: () => void): void {
    this.checkOpen();
    this.#queue(() => {
      if (this.#use !== undefined) this.#use.others = true;
      this.#reductions.flush();
      body();
    });
  }

  /** One that is not. */
  #operation(body: () => void): void {
    this.checkOpen();
    this.#queue(() => {
      if (this.#use !== undefined) this.#use.others = true;
      this.#flush();
      body();
    });
  }

  /** Does nothing once something has failed on the card: the first failure is what `read` tells. */
  #queue(body: () => void): void {
    if (this.#failure !== undefined) return;
    try {
      body();
    } catch (error) {
      if (!(error instanceof CudaError) || error instanceof NotRecordable) throw error;
      this.#failure = error;
    }
  }

  #explain(fault: Uint32Array): unknown {
    if (this.#failure !== undefined) return this.#failure;
    return fault[0] === 0
      ? undefined
      : new SaettaError(`load: row ${fault[1]} was asked for, which is not there`, { where: WHERE });
  }

  /** The tensor was written from outside. */
  #changed(tensor: CudaTensor): void {
    tensor.wrote();
    restartForecast(tensor);
    forgetStrategy(tensor);
  }
}
