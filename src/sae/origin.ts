/** Whether activations are of the tensor and model that an autoencoder was trained on. */

/** What a file says of where its rows are from; both optional. */
export interface RowsOrigin {
  readonly model?: string | undefined;
  readonly tensor?: string | undefined;
}

/**
 * One sentence where the rows of `data` are of another tensor or model than those that the
 * autoencoder `sae` was trained on; undefined where they agree or do not say. Models are told apart
 * by the last two parts of their paths, since files are moved.
 */
export function otherOrigin(data: string, rows: RowsOrigin, sae: string, trained: RowsOrigin = {}): string | undefined {
  const [now, then]: string[][] = [[], []];
  if (differ(rows.tensor, trained.tensor)) {
    now.push(`the tensor '${rows.tensor}'`);
    then.push(`the tensor '${trained.tensor}'`);
  }
  if (differ(end(rows.model), end(trained.model))) {
    now.push(`the model ${rows.model}`);
    then.push(`the model ${trained.model}`);
  }
  if (now.length === 0) return undefined;
  return `${data} is of ${now.join(" and ")}, but ${sae} was trained on ${then.join(" and ")}: its latents may mean nothing there`;
}

function differ(a: string | undefined, b: string | undefined): boolean {
  return a !== undefined && b !== undefined && a !== b;
}

function end(path: string | undefined): string | undefined {
  return path?.split(/[\\/]/).slice(-2).join("/");
}
