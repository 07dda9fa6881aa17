/** Where the Hub and its cache are, and who asks: the environment that every tool of it reads. */

import { readFileSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { hasCode, messageOf, SaettaError, UsageError } from "../util/errors.ts";

export interface HubSettings {
  /** Without a slash at its end. */
  readonly endpoint: string;
  /** The folder of the repos' folders. */
  readonly cache: string;
  readonly token: string | undefined;
  /** Only what is in the cache. */
  readonly offline: boolean;
}

type Env = Readonly<Record<string, string | undefined>>;

/** Throws UsageError for an HF_ENDPOINT that is no address. */
export function hubSettings(env: Env = process.env): HubSettings {
  const given = (name: string): string | undefined => (env[name] ? expanded(env[name]!, env) : undefined);
  const home = given("HF_HOME") ?? join(given("XDG_CACHE_HOME") ?? join(homedir(), ".cache"), "huggingface");
  return {
    endpoint: endpointOf(env.HF_ENDPOINT || "https://huggingface.co"),
    cache: given("HF_HUB_CACHE") ?? given("HUGGINGFACE_HUB_CACHE") ?? join(home, "hub"),
    token: tokenOf(env, given("HF_TOKEN_PATH") ?? join(home, "token")),
    offline: isTrue(env.HF_HUB_OFFLINE || env.TRANSFORMERS_OFFLINE),
  };
}

function endpointOf(text: string): string {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined || !/^https?:$/.test(url.protocol) || url.username !== "" || url.search !== "")
    throw new UsageError(`"${text}" is no address`, { where: "HF_ENDPOINT", mend: "write https://HOST" });
  return url.href.replace(/\/+$/, "");
}

/** What is pasted or read from a file may end in a line break, which a header cannot have. */
function tokenOf(env: Env, path: string): string | undefined {
  const token = (env.HF_TOKEN || env.HUGGING_FACE_HUB_TOKEN || readToken(path)).replace(/[\r\n]/g, "").trim();
  if (token === "") return undefined;
  if (/^[\x21-\x7e]+$/.test(token)) return token;
  throw new UsageError("the token has characters that no token has", {
    where: env.HF_TOKEN ? "HF_TOKEN" : path,
    mend: "copy it again from https://huggingface.co/settings/tokens",
  });
}

function readToken(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch (cause) {
    if (hasCode(cause, "ENOENT", "ENOTDIR")) return "";
    throw new SaettaError(`the token cannot be read (${messageOf(cause)})`, {
      where: path,
      cause,
      mend: "set HF_TOKEN",
    });
  }
}

function isTrue(value: string | undefined): boolean {
  return ["1", "ON", "YES", "TRUE"].includes((value ?? "").toUpperCase());
}

/** "~" and "$NAME" as a shell reads them. */
function expanded(path: string, env: Env): string {
  const named = path.replace(
    /\$(?:\{(\w+)\}|(\w+))/g,
    (whole, braced?: string, plain?: string) => env[braced ?? plain ?? ""] ?? whole,
  );
  return named === "~" || named.startsWith("~/") ? join(homedir(), named.slice(1)) : named;
}
