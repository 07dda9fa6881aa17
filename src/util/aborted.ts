/** Waiting and work that a signal ends. */

import { SaettaError } from "./errors.ts";

/** What the promise settles to, or the signal's reason as soon as it is aborted. */
export function unlessAborted<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return promise;
  return new Promise<T>((resolve, reject) => {
    const abort = () => reject(signal.reason);
    if (signal.aborted) abort();
    signal.addEventListener("abort", abort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", abort));
  });
}

/** Throws SaettaError when the signal is aborted before `out` is whole. */
export function stopIf(signal: AbortSignal | undefined, out: string): void {
  if (signal?.aborted)
    throw new SaettaError("stopped before the end; nothing was written", { where: out, cause: signal.reason });
}
