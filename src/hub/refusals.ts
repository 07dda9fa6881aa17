/** What the Hub says when it refuses, told apart: repo, path, revision, permission. */

import { SaettaError } from "../util/errors.ts";
import { type HubAddress, hubPath } from "./address.ts";

/** What was asked for. */
export interface Asked {
  readonly address: HubAddress;
  readonly endpoint: string;
  readonly hasToken: boolean;
  /** "write": the token must be allowed to change the repo. */
  readonly to?: "read" | "write";
}

/** A refusal of the Hub. */
export class HubError extends SaettaError {
  /** What is missing or not allowed; "other" for what no retry and no spelling helps. */
  readonly kind: "repo" | "revision" | "path" | "gated" | "permission" | "other";

  constructor(kind: HubError["kind"], what: string, context: { readonly where: string; readonly mend?: string }) {
    super(what, context);
    this.kind = kind;
  }
}

/** The page of a repo, to be opened in a browser. */
export function pageOf({ kind, name }: HubAddress, endpoint: string): string {
  return `${endpoint}/${kind === "dataset" ? "datasets/" : ""}${name}`;
}

/**
 * The error for an answer that is no success. `body` is shown where the Hub gives no other reason.
 */
export function refusalOf(status: number, headers: Headers, body: string, asked: Asked): HubError {
  const { address, endpoint, hasToken, to = "read" } = asked;
  const code = headers.get("x-error-code");
  const message = headers.get("x-error-message") ?? "";
  const { kind: repoKind, name, path, revision } = address;
  const repo = `hf://${repoKind === "dataset" ? "datasets/" : ""}${name}`;
  const page = pageOf(address, endpoint);
  const noun = repoKind === "dataset" ? "dataset" : "repo";
  const refuse = (kind: HubError["kind"], where: string, what: string, mend?: string) =>
    new HubError(kind, what, mend === undefined ? { where } : { where, mend });

  if (code === "GatedRepo" || /gated/i.test(message)) {
    return hasToken
      ? refuse("gated", repo, "gated", `accept its terms at ${page} with the account of your token`)
      : refuse("gated", repo, "gated", `accept its terms at ${page} and set HF_TOKEN`);
  }
  if (code === "RevisionNotFound")
    return refuse("revision", repo, `has no revision "${revision}"`, "name a branch, tag or commit, or leave out @");
  if (code === "EntryNotFound" || (status === 404 && code === null && path !== ""))
    return refuse("path", hubPath(address), "there is no such file or folder in the repo", `saetta inspect ${repo}`);
  if (/disabled/i.test(message)) return refuse("permission", repo, "the Hub disabled access to it");
  if (/invalid (credentials|username|user access token)/i.test(message) || (status === 401 && hasToken && !code))
    return refuse(
      "permission",
      repo,
      "the Hub does not know the token",
      "set HF_TOKEN to one of https://huggingface.co/settings/tokens",
    );
  if (code === "RepoNotFound" || status === 401 || status === 404) {
    const other = repoKind === "dataset" ? `hf://${name}` : `hf://datasets/${name}`;
    const hidden = hasToken ? "give the token access if it is private" : "set HF_TOKEN if it is private";
    return refuse(
      "repo",
      repo,
      `there is no such ${noun}, or it is private`,
      `check its name (${repoKind === "dataset" ? "a model" : "a dataset"} is ${other}), or ${hidden}`,
    );
  }
  if (status === 403) {
    const may = to === "write" ? "write to it" : "read it";
    return refuse(
      "permission",
      repo,
      `the token may not ${may}${said(message || body)}`,
      `set HF_TOKEN to one that may`,
    );
  }
  return refuse("other", hubPath(address), `the Hub refuses it with status ${status}${said(message || body)}`);
}

/** The Hub's own words, shortened; JSON answers say it under "error". */
function said(text: string): string {
  let words = text;
  try {
    const { error, message } = JSON.parse(text) as { readonly error?: unknown; readonly message?: unknown };
    words = [error, message].find((each): each is string => typeof each === "string") ?? "";
  } catch {
    if (/^\s*</.test(text)) words = ""; // a page for people
  }
  const plain = words.replace(/\s+/g, " ").trim();
  return plain === "" ? "" : ` ("${plain.slice(0, 160)}")`;
}
