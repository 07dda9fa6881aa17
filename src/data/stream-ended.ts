import { SaettaError } from "../util/errors.ts";

/** Thrown by a read where a stream ended before; training ends there, with a checkpoint. */
export class StreamEnded extends SaettaError {
  override readonly name = "StreamEnded";
  /** Rows that the read has written before the end. */
  readonly rows: number;

  constructor(where: string, rows: number) {
    super("the rows ended", { where });
    this.rows = rows;
  }
}
