/**
 * The engine for NVIDIA cards: kernels/*.cu, compiled at first use, and dense products by cuBLASLt, driven through the CUDA driver. An operation checks what it is given
 * and queues kernels; nothing waits for the card but `read`. The same bits on every run on the same card.
 */

import type { Collective } from "../../collective/collective.ts";
import { solo } from "../../collective/solo.ts";
import { NO_NORMALIZATION } from "../../sae/math.ts";
import { BYTES } from "../../util/bytes.ts";
import { SaettaError } from "../../util/errors.ts";
import type {
  Codes,
  Dims,
  DType,
  Engine,
  Grads,
  Normalization,
  Over,
  Params,
  Path,
  ReduceOp,
  Rule,
  Selection,
  SelectionPlan,
  State,
  Step,
  Tensor,
} from "../engine.ts";
import { Fusion, type Reconstruct } from "../fuse.ts";
import { sidesOf } from "../selections.ts";
import type { Compute } from "./contract.ts";
import { Device, NotRecordable } from "./device.ts";
import { CudaError } from "./driver.ts";
import { encode, load } from "./encode.ts";
import { CudaGrads, ownGrads } from "./gradients.ts";
import { WHERE } from "./libraries.ts";
import { MOST_ROWS, refusal } from "./limits.ts";
import { Machine } from "./machine.ts";
import { CudaCodes, CudaTensor, ownTensor, PAIRS } from "./memory.ts";
import { Nvrtc } from "./nvrtc.ts";
import * as paths from "./paths.ts";
import { type Findings, Recording } from "./record.ts";
import { complete } from "./replicas.ts";
import { RowUploads, settleInflow } from "./rows.ts";
import { Downloads, Uploads } from "./staging.ts";

export interface CudaOptions {
  /** Which card of those that CUDA_VISIBLE_DEVICES leaves; default: the one of this process's LOCAL_RANK, or the first. */
  readonly device?: number;
  /** What products are computed in; default bf16. Parameters, moments and sums are f32 and wider whatever it is. */
  readonly dtype?: Compute;
  /** Folders to keep compiled kernels in, the first writable one; default the package's `build/`, then the user's cache folder. */
  readonly folders?: readonly string[];
  /** The ranks that it computes with; default: it is alone. */
  readonly collective?: Collective;
}

export type { Compute } from "./contract.ts";

/** Half the distance from 1 to the next number. */
const ROUNDING: Readonly<Record<Compute, number | undefined>> = { f32: undefined, bf16: 2 ** -8, fp16: 2 ** -11 };

/** Starts the engine. Throws SaettaError when there is no driver, no card that it can use, or no NVRTC or cuBLASLt. */
export async function createCudaEngine(options: CudaOptions = {}): Promise<Engine> {
  const compute = options.dtype ?? "bf16";
  const device = await Device.open(options.device);
  try {
    const nvrtc = await Nvrtc.load();
    const cubins = await nvrtc.cubins(device.capability, compute, options.folders);
    const collective = options.collective ?? solo();
    await collective.ready();
    return new CudaEngine(await Machine.create(device, cubins, compute, collective));
  } catch (error) {
    device.close();
    throw error;
  }
}

class CudaEngine implements Engine {
  readonly name = "cuda";
  readonly description: string;
  readonly real = "f32";
  readonly numbers = "f64";
  readonly rounding: number | undefined;
  readonly #m: Machine;
  readonly #fusion = new Fusion();
  readonly #uploads: Uploads;
  readonly #downloads: Downloads;
  readonly #rows: RowUploads;
  /** Two numbers that tell of a row that was asked for and is not there. */
  readonly #fault: number;
  /** Everything not given back yet. */
  readonly #held = new Set<CudaTensor | CudaGrads>();
  readonly #recordings = new Set<Recording>();
  #findings: Findings | undefined;
  #failure: unknown;
  #closed: Promise<void> | undefined;

  constructor(m: Machine) {
    this.#m = m;
    this.description = `cuda: ${m.device.name}, ${m.compute}`;
    this.rounding = ROUNDING[m.compute];
    this.#fault = m.device.alloc(8, "faults");
    this.#uploads = new Uploads(m.device);
    this.#downloads = new Downloads(
      m.device,
      this.#fault,
      (fault) => this.#explain(fault),
      m.ranks.collective.deadline,
    );
    this.#rows = new RowUploads(m.device, m.kernels, this.#uploads, this.#fault, (fault) => this.#explain(fault));
    m.onCopy = (tensor) => this.#findings?.copied.add(tensor);
  }

  refuses(dims: Dims, selections: readonly SelectionPlan[]): string | undefined {
    return refusal(dims, selections, this.#m);
  }

  alloc(dtype: DType, shape: readonly number[]): CudaTensor {
    this.#open();
    const size = shape.reduce((a, b) => a * b, BYTES[dtype]);
    const tensor = new CudaTensor(dtype, shape, size, this.#m.device.alloc(size, `a tensor ${dtype} [${shape}]`));
    this.#held.add(tensor);
    return tensor;
  }

  codes(rows: number, capacity: number): Codes {
    const codes = new CudaCodes(rows, capacity, (dtype, shape) => this.alloc(dtype, shape));
    const { latent } = codes.tensors;
    this.#m.device.fill(latent.address, 0xff, latent.size);
    return codes;
  }

  grads(dims: Dims, rows: number, selections: readonly SelectionPlan[], dense: boolean): Grads {
    const { dIn: d, n } = dims;
    if (rows > MOST_ROWS)
      throw new SaettaError(`a batch can have ${MOST_ROWS} rows at most, not ${rows}`, { where: WHERE });
    const [latentBias, preBias] = [this.alloc("f32", [n]), this.alloc("f32", [d])];
    const rowsOf = dense ? { encoder: this.alloc("f32", [n, d]), decoder: this.alloc("f32", [n, d]) } : {};
    const grads = new CudaGrads(this.#m, dims, rows, selections, { latentBias, preBias, ...rowsOf });
    this.#held.add(grads);
    return grads;
  }

  free(it: Tensor | Codes | Grads): void {
    this.#open();
    this.#queue(() => this.#flush());
    if (it instanceof CudaCodes) {
      for (const tensor of Object.values(it.tensors)) this.#free(tensor);
    } else if (it instanceof CudaGrads) {
      for (const tensor of [it.preBias, it.latentBias, it.encoder, it.decoder])
        if (tensor !== undefined) this.#free(tensor);
      this.#free(it);
    } else {
      this.#free(ownTensor(it));
    }
  }

  write(t: Tensor, bytes: Uint8Array, at = 0): void {
    this.#open();
    const tensor = ownTensor(t);
    const { address, size, inflow } = tensor;
    if (!Number.isInteger(at) || at < 0 || at + bytes.length > size) {
      throw new SaettaError(`${bytes.length} bytes at ${at} do not fit a tensor of ${size} bytes`, { where: WHERE });
    }
    this.#queue(() => {
      this.#flush();
      const { driver, stream, uploads } = this.#m.device;
      if (inflow === undefined) {
        this.#uploads.send(stream, address + at, bytes);
      } else {
        driver.call("waiting for rows to be read", "cuStreamWaitEvent", uploads, inflow.used, 0);
        this.#uploads.send(uploads, address + at, bytes);
        driver.call("marking rows as written", "cuEventRecord", inflow.written, uploads);
        inflow.pending = true;
      }
    });
    this.#changed(tensor);
  }

  hostMemory(bytes: number): Uint8Array<ArrayBuffer> {
    this.#open();
    return this.#rows.memory(bytes);
  }

  async upload(raw: Tensor, bytes: Uint8Array, row: number): Promise<readonly number[]> {
    this.#open();
    const tensor = ownTensor(raw);
    tensor.version++;
    return this.#rows.send(tensor, bytes, row);
  }

  read(t: Tensor): Promise<Uint8Array> {
    this.#open();
    const tensor = ownTensor(t);
    try {
      this.#queue(() => this.#flush());
      settleInflow(this.#m.device, tensor.inflow);
      // Whoever reads the ages may go on from them elsewhere, where the forecast of the dead begins anew: so it does here.
      tensor.dead?.restart();
      return this.#downloads.receive(tensor.address, tensor.size);
    } catch (error) {
      return Promise.reject(this.#failure ?? error);
    }
  }

  pairs(z: Codes): { readonly latent: Tensor; readonly value: Tensor; readonly grad: Tensor } {
    if (!(z instanceof CudaCodes)) throw new SaettaError("codes of another engine were given to the cuda engine");
    return z.tensors;
  }

  load(raw: Tensor, rows: Tensor, x: Tensor, t: Step, normalization: Normalization = NO_NORMALIZATION): void {
    this.#open();
    this.#queue(() => {
      this.#flush();
      const queue = () => load(this.#m, raw, rows, x, t, this.#fault, normalization);
      this.#findings?.loads.push(queue);
      if (this.#findings?.others) this.#findings.mixed = true;
      // A recorded step queues its loads itself.
      if (!this.#m.device.recording) queue();
    });
  }

  encode(p: Params, x: Tensor, t: Step, selections: readonly Selection[], age?: Tensor): void {
    const { live, dead } = sidesOf(selections, WHERE);
    this.#operation(() => {
      const use = encode(this.#m, p, x, t, live, dead, age);
      if (use !== undefined) this.#findings?.dead.add(use);
    });
  }

  reconcile(rule: Rule, z: Codes, t?: Step): void {
    const { ranks } = this.#m;
    if (ranks.sizeOf("shards") > 1 && rule.kind === "topk") this.#operation(() => ranks.merge(z, rule.k, t));
  }

  allReduce(t: Tensor, op: ReduceOp, over: Over): void {
    const { ranks } = this.#m;
    if (ranks.sizeOf(over) === 1) return;
    this.#open();
    this.#queue(() => {
      if (this.#findings !== undefined) this.#findings.others = true;
      this.#fusion.flush();
      ranks.allReduce(t, op, over, this.#findings !== undefined);
    });
  }

  decode(p: Params, z: Codes, err: Tensor): void {
    this.#holdable(() => this.#fusion.decode(p, z, err, () => paths.decode(this.#m, p, z, err)));
  }

  residual(p: Params, target: Tensor, t: Step, path: Path, live?: Path): void {
    this.#holdable(() => {
      const m = this.#m;
      const alone = () => paths.residual(m, p, target, t, path, live);
      if (paths.canReconstruct(m, path, p)) {
        this.#fusion.residual(p, target, t, path, live, alone);
      } else {
        this.#fusion.flush();
        alone();
      }
    });
  }

  codeGrad(p: Params, path: Path, t: Step): void {
    this.#holdable(() => {
      const m = this.#m;
      const all = ({ target, live }: Reconstruct) => paths.reconstruct(m, p, target, t, path, live);
      this.#fusion.codeGrad(p, path, t, () => paths.codeGrad(m, p, path, t), all);
    });
  }

  paramGrad(p: Params, x: Tensor, t: Step, live: Path, dead: Path | undefined, g: Grads): void {
    this.#operation(() => ownGrads(g).paramGrad(this.#m, p, x, t, live, dead));
  }

  norm(p: Params, g: Grads, t: Step): void {
    this.#operation(() => ownGrads(g).norm(this.#m, p.decoder, t));
  }

  update(s: State, g: Grads, t: Step): void {
    this.#operation(() => ownGrads(g).update(this.#m, s, t));
  }

  complete(s: State): void {
    if (this.#m.ranks.sizeOf("replicas") > 1) this.#operation(() => complete(this.#m, s));
  }

  record(step: () => void): () => void {
    const recording = new Recording(this.#m, step, (run, findings) => {
      this.#findings = findings;
      try {
        run();
        this.#flush();
      } finally {
        this.#findings = undefined;
      }
      if (this.#failure !== undefined) throw this.#failure;
    });
    this.#recordings.add(recording);
    return () => this.#operation(() => recording.run());
  }

  /** After everything already called. Reads under way are answered first; all memory is given back. */
  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(): Promise<void> {
    await this.#downloads.drained;
    await this.#rows.drained;
    const { device } = this.#m;
    device.driver.attempt("cuStreamSynchronize", device.uploads);
    device.driver.attempt("cuStreamSynchronize", device.stream);
    try {
      for (const recording of this.#recordings) recording.forget();
      for (const it of this.#held) this.#free(it);
      this.#m.close();
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

  /** Queues what was held back. */
  #flush(): void {
    this.#fusion.flush();
    this.#m.ranks.flush();
  }

  #open(): void {
    if (this.#closed !== undefined) throw new SaettaError("the engine was used after it was closed", { where: WHERE });
  }

  /** An operation that may be held back. */
  #holdable(body: () => void): void {
    this.#open();
    this.#queue(() => {
      if (this.#findings !== undefined) this.#findings.others = true;
      this.#m.ranks.flush();
      body();
    });
  }

  /** One that is not. */
  #operation(body: () => void): void {
    this.#open();
    this.#queue(() => {
      if (this.#findings !== undefined) this.#findings.others = true;
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
    tensor.version++;
    tensor.dead?.restart();
    if (tensor.codes !== undefined) tensor.codes.way = PAIRS;
  }

  #free(it: CudaTensor | CudaGrads): void {
    if (it.freed) return;
    this.#held.delete(it);
    if (it instanceof CudaGrads) {
      it.free();
      return;
    }
    const { device } = this.#m;
    settleInflow(device, it.inflow);
    it.freed = true;
    for (const derived of [it.copy, it.centred]) if (derived !== undefined) device.free(derived.address, derived.size);
    it.dead?.free();
    if (it.inflow !== undefined) {
      for (const event of [it.inflow.used, it.inflow.written]) device.driver.attempt("cuEventDestroy_v2", event);
      device.free(it.inflow.flags, it.shape[0]!);
    }
    device.free(it.address, it.size);
  }
}
