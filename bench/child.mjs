// A program that measures when it is asked: it says one line of JSON when it is ready, then answers
// each line on its stdin with one line of JSON on its stdout.
import { spawn } from "node:child_process";
import { createInterface } from "node:readline";

export class Child {
  /** What it said when it was ready. */
  hello;
  #process;
  #lines;
  #errors = "";

  /**
   * Starts it with so many threads for OpenMP and the BLAS libraries. Rejects, with the last line
   * of its stderr, when it ends before it is ready.
   */
  static async start(command, words, threads) {
    const child = new Child();
    const { OMP_PROC_BIND: _bind, OMP_PLACES: _places, GOMP_CPU_AFFINITY: _affinity, ...env } = process.env;
    for (const name of ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"]) env[name] = String(threads);
    child.#process = spawn(command, words, { stdio: ["pipe", "pipe", "pipe"], env });
    const started = new Promise((resolve, reject) => child.#process.once("spawn", resolve).once("error", reject));
    child.#process.stdin.on("error", () => undefined);
    child.#process.stderr.on("data", (text) => {
      child.#errors += text;
    });
    child.#lines = createInterface({ input: child.#process.stdout })[Symbol.asyncIterator]();
    await started;
    child.hello = await child.#answer();
    return child;
  }

  ask(line) {
    this.#process.stdin.write(`${line}\n`);
    return this.#answer();
  }

  close() {
    this.#process.stdin.end();
  }

  async #answer() {
    const { value, done } = await this.#lines.next();
    if (!done) return JSON.parse(value);
    throw new Error(this.#errors.trim().split("\n").at(-1) || `${this.#process.spawnfile} ended`);
  }
}
