/**
 * What a user types for something on the Hugging Face Hub: `hf://org/repo/path@revision`, or the
 * address of the page. Nothing here asks the network.
 */

import { UsageError } from "../util/errors.ts";
import { isSafePath } from "./safe-path.ts";

export type RepoKind = "model" | "dataset";

export interface Repo {
  readonly kind: RepoKind;
  /** "org/name". */
  readonly name: string;
}

export interface HubAddress extends Repo {
  /** A file or folder in the repo, with "/" between its parts; "" for the root. */
  readonly path: string;
  /** A branch, a tag, a commit, or `refs/pr/N`. */
  readonly revision: string;
}

const SCHEME = "hf://";
const PAGES = ["https://huggingface.co/", "https://hf.co/"];
export const DEFAULT_REVISION = "main";

export function isHubPath(path: string): boolean {
  return path.startsWith(SCHEME) || PAGES.some((page) => path.startsWith(page));
}

const FORM = "write hf://org/repo/path@revision, for a dataset hf://datasets/org/repo/path";

/**
 * Takes an address apart. `@revision` may follow the name of the repo or the path. Throws
 * UsageError where it is no address of a repo.
 */
export function parseHubPath(text: string): HubAddress {
  const page = PAGES.find((each) => text.startsWith(each));
  const refuse = (what: string): UsageError => new UsageError(what, { where: text, mend: FORM });
  const parts = text
    .slice((page ?? SCHEME).length)
    .replace(/\/+$/, "")
    .split("/");
  const kind = parts[0] === "datasets" ? "dataset" : "model";
  if (parts[0] === "datasets" || parts[0] === "models") parts.shift();
  if (parts[0] === "spaces" || parts[0] === "buckets") throw refuse(`is of ${parts[0]}, which hold no such files`);
  const [org, second, ...rest] = parts;
  if (org === undefined || org === "" || second === undefined || second === "") throw refuse("names no repo");
  const [repo, ...afterAt] = second.split("@");
  const name = `${org}/${repo}`;
  if (!isRepoName(name)) throw refuse(`"${name}" cannot be the name of a repo`);
  let path = rest;
  let revision = afterAt.join("@");
  if (page !== undefined && ["tree", "blob", "resolve", "raw"].includes(rest[0] ?? "")) {
    revision = unescaped(rest[1] ?? "", refuse);
    path = rest.slice(2).map((each) => unescaped(each.split("?")[0]!, refuse));
  } else if (afterAt.length > 0) {
    // A reference has slashes itself: hf://org/repo@refs/pr/1/path.
    if (revision === "refs" && path.length >= 2) revision = ["refs", ...path.splice(0, 2)].join("/");
    revision = unescaped(revision, refuse);
    if (revision === "") throw refuse("names no revision after the @");
  } else {
    const joined = rest.join("/");
    const at = joined.lastIndexOf("@");
    if (at >= 0) {
      revision = unescaped(joined.slice(at + 1), refuse);
      path = joined.slice(0, at).split("/");
      if (revision === "") throw refuse("names no revision after the @");
    }
  }
  const joined = path.filter((part, i) => part !== "" || i < path.length - 1).join("/");
  if (joined !== "" && !isSafePath(joined)) throw refuse(`"${joined}" is no path in a repo`);
  if (revision !== "" && !isSafePath(revision)) throw refuse(`"${revision}" cannot be a revision`);
  return { kind, name, path: joined, revision: revision || DEFAULT_REVISION };
}

/** The names that the Hub gives: one "/" in them, 96 characters, and "--" and ".." left out. */
function isRepoName(name: string): boolean {
  return (
    name.length <= 96 &&
    name.split("/").every((part) => /^[A-Za-z0-9_]([\w.-]*\w)?$/.test(part)) &&
    !/--|\.\.|\.git$/.test(name)
  );
}

function unescaped(text: string, refuse: (what: string) => UsageError): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw refuse(`"${text}" is not written as in an address`);
  }
}

/** As a user writes it. */
export function hubPath({ kind, name, path, revision }: HubAddress): string {
  const at = revision === DEFAULT_REVISION && !path.includes("@") ? "" : `@${revision}`;
  return `${SCHEME}${kind === "dataset" ? "datasets/" : ""}${name}${path === "" ? "" : `/${path}`}${at}`;
}
