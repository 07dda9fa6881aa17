/**
 * Cross-entropy and Kullback-Leibler divergence of many rows of logits, computed by the runtime: with a vocabulary of 262,144 each row takes a million exponentials, which
 * JavaScript does one at a time. The formulas are those of eval/loss-math.ts, in float32.
 */

import { integer, string, wrap } from "../util/protobuf.ts";
import { loadRuntime, runtimeOptions } from "./session.ts";

/** What `compare` needs of the logits that others are compared with: of its rows, ln p and p [rows, vocabulary]. */
export interface LogProbabilities {
  readonly logP: Float32Array;
  readonly p: Float32Array;
  /** Sum of p of each row: 1 but for the rounding of exponentials, which is not random and is divided out. */
  readonly mass: Float32Array;
}

export interface LogitSums {
  /** logits [rows, vocabulary] -> the logarithms of their softmax, and the softmax. */
  probabilities(logits: Float32Array): Promise<LogProbabilities>;
  /**
   * Per row, -ln q(token), and KL(p || q) = sum_v p (ln p - ln q), where q is the softmax of `logits` [rows, vocabulary]. NaN where a logit is not finite.
   */
  compare(
    p: LogProbabilities,
    logits: Float32Array,
    tokens: Int32Array,
  ): Promise<{ readonly crossEntropy: Float32Array; readonly divergence: Float32Array }>;
  close(): Promise<void>;
}

/** Values of onnx.proto: TensorProto.DataType and AttributeProto.AttributeType. */
const [FLOAT, INT64, INT, INTS] = [1, 7, 2, 7];

interface Operation {
  readonly op: string;
  readonly inputs: readonly string[];
  readonly output: string;
  /** Integer attributes. */
  readonly attributes?: Readonly<Record<string, number | readonly number[]>>;
}

/** A model of float matrices. `inputs`: their names, with the type and the columns, which are open where undefined. */
function modelOf(
  operations: readonly Operation[],
  inputs: readonly { readonly name: string; readonly type: number; readonly columns: number }[],
  outputs: readonly string[],
): Uint8Array {
  const attribute = ([name, value]: readonly [string, number | readonly number[]]) =>
    typeof value === "number"
      ? wrap(5, [...string(1, name), ...integer(3, value), ...integer(20, INT)])
      : wrap(5, [...string(1, name), ...value.flatMap((each) => integer(8, each)), ...integer(20, INTS)]);
  const nodes = operations.flatMap(({ op, inputs: from, output, attributes = {} }) =>
    wrap(1, [
      ...from.flatMap((name) => string(1, name)),
      ...string(2, output),
      ...string(4, op),
      ...Object.entries(attributes).flatMap(attribute),
    ]),
  );
  const infos = inputs.flatMap(({ name, type, columns }) => {
    const shape = wrap(2, [...wrap(1, string(2, "rows")), ...wrap(1, integer(1, columns))]);
    return wrap(11, [...string(1, name), ...wrap(2, wrap(1, [...integer(1, type), ...shape]))]);
  });
  const graph = [...nodes, ...string(2, "sums"), ...infos, ...outputs.flatMap((name) => wrap(12, string(1, name)))];
  return Buffer.concat([...integer(1, 7), ...wrap(7, graph), ...wrap(8, integer(2, 12))]);
}

const NAME = "sums of logits";

export async function openLogitSums(vocabulary: number, threads: number): Promise<LogitSums> {
  const { InferenceSession, Tensor } = await loadRuntime();
  const matrix = (name: string) => ({ name, type: FLOAT, columns: vocabulary });
  const logSoftmax = (from: string, output: string): Operation => ({
    op: "LogSoftmax",
    inputs: [from],
    output,
    attributes: { axis: 1 },
  });
  const sum = (from: string, output: string): Operation => ({
    op: "ReduceSum",
    inputs: [from],
    output,
    attributes: { axes: [1], keepdims: 0 },
  });
  const start = (bytes: Uint8Array) => InferenceSession.create(bytes, runtimeOptions(NAME, threads));
  const whole = await start(
    modelOf(
      [logSoftmax("logits", "logP"), { op: "Exp", inputs: ["logP"], output: "p" }, sum("p", "mass")],
      [matrix("logits")],
      ["logP", "p", "mass"],
    ),
  );
  const other = await start(
    modelOf(
      [
        logSoftmax("logits", "logQ"),
        { op: "GatherElements", inputs: ["logQ", "token"], output: "chosen", attributes: { axis: 1 } },
        { op: "Sub", inputs: ["logP", "logQ"], output: "difference" },
        { op: "Mul", inputs: ["p", "difference"], output: "terms" },
        sum("terms", "divergence"),
      ],
      [matrix("logits"), matrix("logP"), matrix("p"), { name: "token", type: INT64, columns: 1 }],
      ["chosen", "divergence"],
    ),
  );
  const of = (values: Float32Array) => new Tensor("float32", values, [values.length / vocabulary, vocabulary]);
  return {
    async probabilities(logits) {
      const { logP, p, mass } = await whole.run({ logits: of(logits) });
      return { logP: logP!.data as Float32Array, p: p!.data as Float32Array, mass: mass!.data as Float32Array };
    },
    async compare({ logP, p, mass }, logits, tokens) {
      const token = new Tensor("int64", BigInt64Array.from(tokens, BigInt), [tokens.length, 1]);
      const found = await other.run({ logits: of(logits), logP: of(logP), p: of(p), token });
      const chosen = found.chosen!.data as Float32Array;
      const total = found.divergence!.data as Float32Array;
      return { crossEntropy: chosen.map((value) => -value), divergence: total.map((value, row) => value / mass[row]!) };
    },
    async close() {
      await whole.release();
      await other.release();
    },
  };
}
