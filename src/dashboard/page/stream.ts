/**
 * The live connection to the server. It is the browser that connects again when it was lost;
 * whatever comes then begins anew.
 */

import type { Events, Scale } from "../api.ts";

export type Connection = "connecting" | "live" | "lost";

export interface StreamRequest {
  readonly shown: readonly string[];
  readonly points: number;
  readonly scale: Scale;
}

export type Listeners = { readonly [Name in keyof Events]: (data: Events[Name]) => void } & {
  readonly connection: (state: Connection) => void;
};

/**
 * Without a word for so long the connection is dead, in milliseconds: the server says something
 * every 15 s.
 */
const SILENCE = 40_000;
const RETRY = 2000;

/** Listens until the returned function is called. */
export function listen({ shown, points, scale }: StreamRequest, listeners: Listeners): () => void {
  const query = new URLSearchParams([...shown.map((id) => ["run", id]), ["points", String(points)], ["scale", scale]]);
  let source: EventSource | undefined;
  let timer = 0;
  const again = (after: number) => {
    window.clearTimeout(timer);
    timer = window.setTimeout(connect, after);
  };
  const connect = () => {
    source?.close();
    source = new EventSource(`/api/events?${query}`);
    again(SILENCE);
    source.onopen = () => listeners.connection("live");
    source.onerror = () => {
      listeners.connection("lost");
      if (source?.readyState === EventSource.CLOSED) again(RETRY); // refused: the browser does not try again by itself
    };
    on(source, "hello", listeners.hello);
    on(source, "runs", listeners.runs);
    on(source, "details", listeners.details);
    on(source, "series", listeners.series);
    on(source, "append", listeners.append);
  };
  const on = <Name extends keyof Events>(from: EventSource, name: Name, tell: (data: Events[Name]) => void) => {
    from.addEventListener(name, (event: MessageEvent<string>) => {
      again(SILENCE);
      tell(JSON.parse(event.data) as Events[Name]);
    });
  };
  connect();
  return () => {
    window.clearTimeout(timer);
    source?.close();
  };
}
