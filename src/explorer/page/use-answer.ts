/** The answer to a question that changes while one types: only the newest is waited for. */

import { useEffect, useRef, useState } from "preact/hooks";

export interface Answered<Q, A> {
  /** The newest answer, and the question that it is of. */
  readonly last: { readonly question: Q; readonly answer: A } | undefined;
  /** What is wrong with the newest question. */
  readonly failure: string | undefined;
  /** The answer to the newest question is still to come. */
  readonly isBusy: boolean;
}

/** Asks `wait` milliseconds after the last change. undefined: there is no question. */
export function useAnswer<Q, A>(
  question: Q | undefined,
  ask: (question: Q, signal: AbortSignal) => Promise<A>,
  wait: number,
): Answered<Q, A> {
  const [state, setState] = useState<Answered<Q, A>>({ last: undefined, failure: undefined, isBusy: false });
  const isFirst = useRef(true);
  const key = JSON.stringify(question);
  useEffect(() => {
    if (question === undefined) {
      setState({ last: undefined, failure: undefined, isBusy: false });
      return;
    }
    const stop = new AbortController();
    setState(({ last }) => ({ last, failure: undefined, isBusy: true }));
    const begin = () =>
      ask(question, stop.signal).then(
        (answer) => stop.signal.aborted || setState({ last: { question, answer }, failure: undefined, isBusy: false }),
        (thrown: unknown) =>
          stop.signal.aborted ||
          setState(({ last }) => ({
            last,
            failure: thrown instanceof Error ? thrown.message : String(thrown),
            isBusy: false,
          })),
      );
    const timer = setTimeout(() => void begin(), isFirst.current ? 0 : wait);
    isFirst.current = false;
    return () => {
      clearTimeout(timer);
      stop.abort();
    };
  }, [key]);
  return state;
}
