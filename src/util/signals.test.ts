import { afterEach, expect, it, vi } from "vitest";
import { debuggerAsked, type EndingSignal, holdSignals, onSignals } from "./signals.ts";

// The process of the tests has listeners of its own; signals are emitted, not sent.
const emit = (name: EndingSignal) => process.emit(name, name);
afterEach(() => vi.restoreAllMocks());

it("what comes before anybody listens is heard by the first who does, in order, once", () => {
  holdSignals();
  emit("SIGUSR1");
  emit("SIGTERM");
  const heard: string[] = [];
  const close = onSignals((name) => heard.push(name));
  expect(heard).toEqual(["SIGUSR1", "SIGTERM"]);
  emit("SIGUSR1");
  expect(heard).toEqual(["SIGUSR1", "SIGTERM", "SIGUSR1"]);
  close();
  const again: string[] = [];
  onSignals((name) => again.push(name))();
  expect(again).toEqual([]);
});

it("a second Ctrl-C ends the process at once, also before anybody listens", () => {
  const exit = vi.spyOn(process, "exit").mockImplementation((code) => {
    throw new Error(`exit ${code}`);
  });
  holdSignals();
  emit("SIGINT");
  expect(() => emit("SIGINT")).toThrow("exit 130");
  expect(exit).toHaveBeenCalledOnce();
  onSignals(() => undefined)();
});

it("SIGUSR1 has a listener to the end, so that it never reaches the debugger", () => {
  holdSignals();
  onSignals(() => undefined)();
  expect(process.listenerCount("SIGUSR1")).toBeGreaterThan(0);
  expect(() => emit("SIGUSR1")).not.toThrow();
});

it("a debugger that was asked for, or that a preloaded module may have opened, is not taken for a signal", () => {
  for (const words of ["--inspect", "--inspect=0", "--inspect-brk=9230", "--inspect-wait", "-r", "--import=./a.mjs"])
    expect(debuggerAsked([words]), words).toBe(true);
  expect(debuggerAsked([], '--no-warnings --require "/vs code/bootloader.js"')).toBe(true);
  expect(debuggerAsked([], "--inspect")).toBe(true);
  expect(debuggerAsked(["--inspect-port=0"], "--max-old-space-size=4096 --no-warnings")).toBe(false);
  expect(debuggerAsked([])).toBe(false);
});
