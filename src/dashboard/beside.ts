/**
 * The page of a run that goes on in this process. Whatever becomes of it, the run is not touched.
 */

import { Worker } from "node:worker_threads";
import { messageOf } from "../util/errors.ts";
import type { DashboardOptions } from "./server.ts";
import type { WorkerMessage } from "./worker.ts";

export interface Beside {
  /** Undefined when there is no page; `onNote` was told why. */
  readonly url: string | undefined;
  /** Takes the page away. Never rejects. */
  close(): Promise<void>;
}

/** As built: a thread is started from JavaScript. */
const WORKER = new URL("../../dist/dashboard/worker.js", import.meta.url);

/** Serves the page in a thread. Never rejects: without it a run is as good. */
export async function serveBeside(
  options: Omit<DashboardOptions, "features" | "posts">,
  onNote: (note: string) => void,
): Promise<Beside> {
  let worker: Worker;
  try {
    worker = new Worker(WORKER, { workerData: options });
  } catch (thrown) {
    onNote(`there is no page: ${messageOf(thrown)}`);
    return { url: undefined, close: () => Promise.resolve() };
  }
  const url = await new Promise<string | undefined>((resolve) => {
    worker.once("message", (message: WorkerMessage) => {
      if ("failed" in message) onNote(`there is no page: ${message.failed}`);
      resolve("url" in message ? message.url : undefined);
    });
    worker.on("error", (thrown: unknown) => {
      onNote(`the page is gone: ${messageOf(thrown)}`);
      resolve(undefined);
    });
    worker.once("exit", () => resolve(undefined));
  });
  worker.unref(); // it holds nobody up
  return {
    url,
    close: async () => {
      await worker.terminate().catch(() => undefined);
    },
  };
}
