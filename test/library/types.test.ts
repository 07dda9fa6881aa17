/**
 * The types of the library's face. `npm run check` compiles this file: what is wrong in it, or an
 * error that is expected and does not come, is an error.
 */

import { describe, expectTypeOf, it } from "vitest";
import {
  type Activations,
  type Config,
  type Engine,
  FormatError,
  fromRows,
  loadSae,
  openActivations,
  type Report,
  resume,
  type Sae,
  SaettaError,
  type Source,
  type SparseCodes,
  type SweepReport,
  type SweepResult,
  type SweepRun,
  type selectEngine,
  sweep,
  type TrainOptions,
  type TrainResult,
  type TrainRun,
  train,
  UsageError,
} from "../../src/index.ts";

describe("types", () => {
  it("of a sweep", () => {
    expectTypeOf(sweep).parameters.toExtend<[Source, readonly TrainOptions[], object?]>();
    expectTypeOf(sweep).returns.resolves.toEqualTypeOf<SweepRun>();
    expectTypeOf<SweepRun>().toExtend<AsyncIterable<SweepReport> & AsyncDisposable>();
    expectTypeOf<SweepRun["finished"]>().resolves.toEqualTypeOf<SweepResult>();
    expectTypeOf<SweepResult["members"][number]["state"]>().toEqualTypeOf<"done" | "stopped" | "halved" | "failed">();
  });

  it("of activations", () => {
    expectTypeOf(openActivations).parameter(0).toEqualTypeOf<string | readonly string[]>();
    expectTypeOf(openActivations).returns.resolves.toEqualTypeOf<Activations>();
    expectTypeOf<Activations>().toExtend<Source & AsyncDisposable>();
    expectTypeOf(fromRows).returns.toEqualTypeOf<Activations>();
    const size = { dIn: 2, rows: 1 };
    expectTypeOf(fromRows).toBeCallableWith(() => [new Float32Array(2)], size);
    expectTypeOf(fromRows).toBeCallableWith([[1, 2]], size);
    expectTypeOf(fromRows).toBeCallableWith(async function* () {
      yield new Float64Array(2);
    }, size);
    const check = () => {
      // @ts-expect-error a Float32Array alone is numbers, not chunks of rows
      fromRows(new Float32Array(2), size);
      // @ts-expect-error bits of float16 are no numbers
      fromRows([new Uint16Array(2)], size);
      // @ts-expect-error the number of rows is needed
      fromRows([[1, 2]], { dIn: 2 });
    };
    expectTypeOf(check).toBeFunction();
  });

  it("of training", () => {
    expectTypeOf(train).returns.resolves.toEqualTypeOf<TrainRun>();
    expectTypeOf(resume).returns.resolves.toEqualTypeOf<TrainRun>();
    expectTypeOf<TrainRun>().toExtend<AsyncIterable<Report> & AsyncDisposable>();
    expectTypeOf<TrainRun["finished"]>().resolves.toEqualTypeOf<TrainResult>();
    expectTypeOf<TrainRun["stop"]>().returns.resolves.toEqualTypeOf<TrainResult>();
    expectTypeOf<TrainResult["reason"]>().toEqualTypeOf<"done" | "stopped">();
    expectTypeOf<TrainResult["sae"]>().toEqualTypeOf<Sae>();
    expectTypeOf<TrainResult["checkpoint"]>().toEqualTypeOf<string | undefined>();
    expectTypeOf<Report["fvu"]>().toEqualTypeOf<number>();
    expectTypeOf<Report["holdout_fvu"]>().toEqualTypeOf<number | undefined>();
    expectTypeOf<TrainOptions["engine"]>().toEqualTypeOf<"auto" | "cpu" | "cuda" | "reference" | undefined>();
    expectTypeOf<TrainOptions["dtype"]>().toEqualTypeOf<"auto" | "f32" | "bf16" | "fp16" | undefined>();
    expectTypeOf<TrainOptions["mseScale"]>().toEqualTypeOf<number | "auto" | undefined>();
    expectTypeOf<Config["latents"]>().toEqualTypeOf<number>();
    const check = async (acts: Activations, signal: AbortSignal) => {
      const run = await train(acts, { latents: 4096, k: 32, out: "runs/a", signal });
      for await (const s of run) if (s.fvu < 0.1) await run.stop();
      // @ts-expect-error a flag that does not exist
      await train(acts, { latens: 4096 });
      // @ts-expect-error a word that does not exist
      await train(acts, { engine: "gpu" });
      // @ts-expect-error true is no folder
      await train(acts, { out: true });
      // @ts-expect-error what was decided is not changed afterwards
      run.config.latents = 3;
      await resume("runs/a", { tokens: 1e7, data: acts });
      await resume("runs/a", { data: ["acts.h5"] });
    };
    expectTypeOf(check).toBeFunction();
  });

  it("of autoencoders", () => {
    expectTypeOf(loadSae).returns.resolves.toExtend<Sae & { readonly path: string }>();
    expectTypeOf<Sae["path"]>().toEqualTypeOf<string | undefined>();
    expectTypeOf<Sae["encode"]>().parameters.toEqualTypeOf<[Float32Array]>();
    expectTypeOf<Sae["encode"]>().returns.resolves.toEqualTypeOf<SparseCodes>();
    expectTypeOf<SparseCodes>().toExtend<{
      readonly k: number;
      readonly latent: Uint32Array;
      readonly value: Float32Array;
    }>();
    expectTypeOf<Sae["decode"]>().returns.resolves.toEqualTypeOf<Float32Array>();
  });

  it("of what is closed: close() and await using", () => {
    expectTypeOf<Awaited<ReturnType<typeof selectEngine>>>().toEqualTypeOf<Engine>();
    type Closed = AsyncDisposable & { close(): Promise<void> };
    expectTypeOf<Activations | Sae | Engine | TrainRun>().toExtend<Closed>();
  });

  it("of errors", () => {
    expectTypeOf(new UsageError("")).toExtend<SaettaError>();
    expectTypeOf(new FormatError("")).toExtend<SaettaError>();
    expectTypeOf(new SaettaError("").exitCode).toEqualTypeOf<number>();
    expectTypeOf(new SaettaError("").mend).toEqualTypeOf<string | undefined>();
  });
});
