/**
 * Lets signals, timers and readers in, for which work that computes at the call leaves no gap.
 */
export function macrotask(): Promise<void> {
  return new Promise((resolve) => {
    setImmediate(resolve);
  });
}
