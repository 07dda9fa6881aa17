/**
 * The thread of a rank that keeps the connection to the hub, and the hub itself in rank 0. It is a
 * thread of its own so that it speaks and hears while the program computes or waits in MPI; and so
 * it can end the process, which it does when the run is over for a reason elsewhere.
 */

import { writeSync } from "node:fs";
import { parentPort, workerData } from "node:worker_threads";
import koffi from "koffi";
import { messageOf } from "../util/errors.ts";
import { Hub } from "./hub.ts";
import { Member } from "./member.ts";

/** What the thread is started with. */
export interface WatcherOptions {
  readonly rank: number;
  readonly size: number;
  readonly token: string;
  readonly deadline: number;
  readonly patience: number;
  /** The port to listen on, 0 for any; undefined: the hub is elsewhere. */
  readonly listen: number | undefined;
  /** Who the hub is, for people. */
  readonly hub: string;
}

export type ToWatcher =
  | { readonly connect: { readonly hosts: readonly string[]; readonly port: number } }
  | { readonly exchange: string; readonly value: unknown }
  | { readonly fail: string; readonly told: boolean; readonly code: number }
  | { readonly leave: true };

export type FromWatcher =
  | { readonly listening: number }
  | { readonly joined: true }
  | { readonly exchange: string; readonly values: readonly unknown[] }
  | { readonly failed: string }
  | { readonly left: true };

// A thread's process.exit ends the thread only, and the main thread may be in native code.
const exitProcess = koffi.load(null).func("void _exit(int code)") as (code: number) => void;

let code = 1;

function end(text: string, told: boolean): void {
  try {
    if (!told) writeSync(2, `saetta: ${text}\n`);
  } catch {
    // nobody reads
  }
  exitProcess(code);
}

function post(message: FromWatcher): void {
  parentPort?.postMessage(message);
}

async function watch({ rank, size, token, deadline, patience, listen, hub: hubName }: WatcherOptions): Promise<void> {
  const hub =
    listen === undefined ? undefined : await Hub.open({ size, token, deadline, patience, onEnd: end }, listen);
  if (hub !== undefined) post({ listening: hub.port });
  let member: Member | undefined;

  const hear = async (message: ToWatcher): Promise<void> => {
    if ("connect" in message) {
      // Beside the hub, it is the hub that ends the process: it has others to tell first.
      const onEnd = hub === undefined ? end : () => undefined;
      member = await Member.join({ rank, ...message.connect, hub: hubName, token, deadline, patience, onEnd });
      post({ joined: true });
    } else if ("exchange" in message) {
      const values = await member!.exchange(message.exchange, message.value);
      post({ exchange: message.exchange, values });
    } else if ("fail" in message) {
      code = message.code;
      if (hub !== undefined) hub.end(message.fail, message.told);
      else if (member !== undefined) await member.fail(message.fail, message.told);
      else end(message.fail, message.told);
    } else {
      await member?.leave();
      await hub?.close();
      post({ left: true });
    }
  };
  parentPort?.on("message", (message: ToWatcher) => {
    hear(message).catch((error: unknown) => post({ failed: messageOf(error) }));
  });
}

watch(workerData as WatcherOptions).catch((error: unknown) => post({ failed: messageOf(error) }));
