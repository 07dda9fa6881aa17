/** What a repo holds: its commit, and its files without their content. */

import { FormatError } from "../util/errors.ts";
import { asObject, type Json, parseJson } from "../util/json.ts";
import { type HubAddress, hubPath } from "./address.ts";
import { type Answer, apiUrl, ask, escapedPath, type Hub } from "./hub.ts";
import { isCommit, isSafePath } from "./safe-path.ts";

export interface HubFile {
  /** In the repo, with "/" between its parts. */
  readonly path: string;
  readonly bytes: number;
}

/** The commit that the revision is now. */
export async function commitOf(hub: Hub, address: HubAddress): Promise<string> {
  if (isCommit(address.revision)) return address.revision;
  const url = apiUrl(hub, address, "revision", address.revision);
  // Of what the repo holds, only its commit is asked.
  const { sha } = asObject(
    await json(await ask(hub, url, { address: { ...address, path: "" } }), url),
    "the answer",
    url,
  );
  if (typeof sha === "string" && isCommit(sha)) return sha;
  throw notAHub(address, "names no commit");
}

export interface Tree {
  readonly files: readonly HubFile[];
  /** How many names were left out since they would not stay in the folder that they are put in. */
  readonly unsafe: number;
}

const MOST_FILES = 200_000;
const MOST_PAGES = 2000;
const MOST_PAGE = 64 * 1024 * 1024;

/**
 * The files below the address' path, in the order of the Hub; those of the folder alone where not
 * `recursive`. The path must be a folder. Throws HubError where there is none.
 */
export async function treeOf(hub: Hub, address: HubAddress, recursive = true): Promise<Tree> {
  const { path, revision } = address;
  const files: HubFile[] = [];
  let unsafe = 0;
  const start = apiUrl(hub, address, "tree", revision) + (path === "" ? "" : `/${escapedPath(path)}`);
  let url: string | undefined = `${start}?recursive=${recursive}&limit=1000`;
  for (let page = 1; url !== undefined; page++) {
    if (page > MOST_PAGES) throw notAHub(address, `has more than ${MOST_PAGES} pages`);
    const answer: Answer = await ask(hub, url, { address });
    const entries = await json(answer, url);
    if (!Array.isArray(entries)) throw notAHub(address, "lists no files");
    for (const entry of entries) {
      const file = fileOf(entry, url);
      if (file === undefined) continue;
      if (isSafePath(file.path)) files.push(file);
      else unsafe++;
    }
    if (files.length > MOST_FILES) throw notAHub(address, `lists more than ${MOST_FILES} files`);
    url = nextOf(answer.response.headers.get("link"), url, hub);
  }
  return { files, unsafe };
}

/** undefined for a folder. */
function fileOf(entry: Json, url: string): HubFile | undefined {
  const { type, path, size, lfs } = asObject(entry, "an entry", url);
  if (type !== "file") return undefined;
  const linked = typeof lfs === "object" && lfs !== null ? asObject(lfs, "lfs", url).size : undefined;
  const bytes = linked ?? size;
  if (typeof path === "string" && typeof bytes === "number" && Number.isSafeInteger(bytes) && bytes >= 0)
    return { path, bytes };
  throw new FormatError("a file has no path or no size", { where: url });
}

/** RFC 8288: `<https://...>; rel="next"`. Only pages of the same host are asked for. */
function nextOf(link: string | null, url: string, hub: Hub): string | undefined {
  const [, next] = /<([^>]*)>\s*;[^,]*\brel="?next"?/.exec(link ?? "") ?? [];
  if (next === undefined || !URL.canParse(next, url)) return undefined;
  const at = new URL(next, url);
  const home = new URL(hub.endpoint);
  // A mirror passes on the addresses of the Hub that it mirrors.
  return at.origin === home.origin ? at.href : `${home.origin}${at.pathname}${at.search}`;
}

async function json(answer: Answer, url: string): Promise<Json> {
  const length = Number(answer.response.headers.get("content-length") ?? 0);
  if (length > MOST_PAGE) {
    await answer.close();
    throw new FormatError(`an answer of ${length} bytes`, { where: url });
  }
  return parseJson(new Uint8Array(await answer.response.arrayBuffer()), url);
}

function notAHub(address: HubAddress, what: string): FormatError {
  return new FormatError(`the answer ${what}`, {
    where: hubPath(address),
    mend: "check that HF_ENDPOINT names a Hugging Face Hub",
  });
}
