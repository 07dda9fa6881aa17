/** One engine for several runs, each of which closes it. */

import type { Codes, Engine, Grads, Tensor } from "../../engine/engine.ts";

type Held = Tensor | Codes | Grads;

/**
 * The engine for one of several users: all it does is done by `engine`, but `close` only gives back
 * what was allocated through the loan and not freed.
 */
export function lendEngine(engine: Engine): Engine {
  const held = new Set<Held>();
  const hold = <T extends Held>(it: T): T => {
    held.add(it);
    return it;
  };
  let closed = false;
  const close = async () => {
    if (closed) return;
    closed = true;
    for (const it of held) engine.free(it);
    held.clear();
  };
  const own: Partial<Engine> = {
    alloc: (...given) => hold(engine.alloc(...given)),
    codes: (...given) => hold(engine.codes(...given)),
    grads: (...given) => hold(engine.grads(...given)),
    free: (it) => {
      held.delete(it);
      engine.free(it);
    },
    close,
    [Symbol.asyncDispose]: close,
  };
  // Operations are called on the engine itself, whose fields are private.
  const bound = new Map<PropertyKey, unknown>();
  return new Proxy(engine, {
    get(target, name) {
      if (Object.hasOwn(own, name)) return own[name as keyof Engine];
      if (bound.has(name)) return bound.get(name);
      const value: unknown = Reflect.get(target, name, target);
      if (typeof value !== "function") return value;
      const operation: unknown = value.bind(target);
      bound.set(name, operation);
      return operation;
    },
  });
}
