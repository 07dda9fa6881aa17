/**
 * The page in a thread of its own, beside a run: what it costs and what goes wrong in it stays
 * here.
 */

import { parentPort, workerData } from "node:worker_threads";
import { explorerApi } from "../explorer/api.ts";
import { messageOf } from "../util/errors.ts";
import { type DashboardOptions, serveDashboard } from "./server.ts";

/** What it says once: where the page is, or why there is none. */
export type WorkerMessage = { readonly url: string } | { readonly failed: string };

try {
  const { answer, post } = explorerApi();
  const { url } = await serveDashboard({ ...(workerData as DashboardOptions), features: answer, posts: post });
  parentPort?.postMessage({ url } satisfies WorkerMessage);
} catch (thrown) {
  parentPort?.postMessage({ failed: messageOf(thrown) } satisfies WorkerMessage);
}
