/** A value that changes, for readers that want the newest one and never slow its writer. */
export class Newest<T> {
  #value: T | undefined;
  #over = false;
  #waiting: (() => void)[] = [];

  publish(value: T): void {
    this.#value = value;
    this.#wake();
  }

  /** No value comes after this: readers end after the last. */
  end(): void {
    this.#over = true;
    this.#wake();
  }

  /** The values as they come, without those that were replaced before they were read. */
  async *read(): AsyncGenerator<T, void, void> {
    let seen: T | undefined;
    while (true) {
      const value = this.#value;
      if (value !== undefined && value !== seen) {
        seen = value;
        yield value;
      } else if (this.#over) {
        return;
      } else {
        await new Promise<void>((resolve) => {
          this.#waiting.push(resolve);
        });
      }
    }
  }

  #wake(): void {
    for (const resolve of this.#waiting.splice(0)) resolve();
  }
}
