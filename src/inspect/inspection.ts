/**
 * `kind` in words; `facts` as plain JSON. Lists of objects are tables. `advice`: what is off, a
 * sentence each.
 */
export interface Inspection {
  readonly path: string;
  readonly kind: string;
  readonly bytes?: number;
  readonly facts: Facts;
  readonly advice?: readonly string[];
}
/** What a reader of one kind of file says of it. */
export type FileContents = Omit<Inspection, "path" | "bytes">;
export type Fact = string | number | boolean | undefined | readonly (string | number)[];
export interface Facts {
  readonly [name: string]: Fact | Facts | readonly Facts[];
}
