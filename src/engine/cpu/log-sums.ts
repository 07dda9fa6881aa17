/** Sums over rows of logits by kernels/log_sums.cc, which reads them where they are. */

import { bytesOf } from "../../util/bytes.ts";
import { SaettaError } from "../../util/errors.ts";
import type { LogSums } from "../log-sums.ts";
import type { Address, Native } from "./native.ts";

const WHERE = "cpu engine";

/** `stream` is closed with it. */
export function logSumsOf(calls: Native, stream: Address): LogSums {
  // Once its bytes are a view of a buffer, an array is not moved.
  const at = (values: Float32Array | Float64Array | Uint32Array) => calls.addressOf(bytesOf(values));
  return {
    async of(logits, vocabulary, rows, from) {
      const end = (rows.reduce((most, row) => Math.max(most, row), -1) + 1) * vocabulary;
      const short = from !== undefined && (from.logits.length < end || from.logSums.length !== rows.length);
      if (logits.length < end || short)
        throw new SaettaError(`${logits.length} logits where ${end} are needed`, { where: WHERE });
      const logSums = new Float64Array(rows.length);
      const divergence = new Float64Array(from === undefined ? 0 : rows.length);
      calls.logSums(stream, {
        logits: at(logits),
        from: from === undefined ? 0 : at(from.logits),
        fromSums: from === undefined ? 0 : at(from.logSums),
        rows: at(rows),
        B: rows.length,
        v: vocabulary,
        sums: at(logSums),
        divergence: from === undefined ? 0 : at(divergence),
      });
      const ticket = calls.read(stream, at(logSums), at(logSums), 0);
      // When the process exits these arrays are given back, so the kernel must be done with them.
      const settle = () => calls.block(stream, ticket);
      process.once("exit", settle);
      await calls.wait(stream, ticket);
      process.off("exit", settle);
      const error = calls.error(stream);
      if (error !== "") throw new SaettaError(error, { where: WHERE });
      return { logSums, divergence };
    },
    close: () => calls.close(stream),
  };
}
