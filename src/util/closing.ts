/** What must not stay open. */

/** What `use` returns; `file` stays open for it. When it throws, `file` is closed first. */
export async function closedOnFailure<T>(file: { close(): Promise<void> }, use: () => T | Promise<T>): Promise<T> {
  try {
    return await use();
  } catch (thrown) {
    await file.close();
    throw thrown;
  }
}
