import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { homedir, tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { hubSettings } from "./settings.ts";

let home: string;
beforeAll(async () => {
  home = await mkdtemp(join(tmpdir(), "saetta-hf-home-"));
  await writeFile(join(home, "token"), "hf_of_file\n");
});
afterAll(() => rm(home, { recursive: true }));

describe("the environment", () => {
  it.each([
    [{ HF_HOME: "/x" }, "/x/hub"],
    [{ HF_HOME: "/x", HF_HUB_CACHE: "/y" }, "/y"],
    [{ HF_HOME: "/x", HUGGINGFACE_HUB_CACHE: "/z" }, "/z"],
    [{ HF_HOME: "~/x" }, join(homedir(), "x/hub")],
    [{ HF_HOME: "$BASE/x", BASE: "/b" }, "/b/x/hub"],
    [{ XDG_CACHE_HOME: "/c" }, "/c/huggingface/hub"],
    [{}, join(homedir(), ".cache/huggingface/hub")],
  ])("names the cache: %j", (env, cache) => {
    expect(hubSettings({ HF_TOKEN: "a", ...env }).cache).toBe(cache);
  });

  it("names the token: HF_TOKEN, else the file of HF_TOKEN_PATH, else that in HF_HOME", async () => {
    const other = join(home, "other");
    await writeFile(other, "hf_of_path");
    expect(hubSettings({ HF_HOME: home, HF_TOKEN: " hf_a\r\n" }).token).toBe("hf_a");
    expect(hubSettings({ HF_HOME: home, HF_TOKEN_PATH: other }).token).toBe("hf_of_path");
    expect(hubSettings({ HF_HOME: home }).token).toBe("hf_of_file");
    expect(hubSettings({ HF_HOME: join(home, "none") }).token).toBeUndefined();
    expect(() => hubSettings({ HF_TOKEN: "a\u00e4b" })).toThrow("HF_TOKEN: the token has characters that no token has");
  });

  it("names the endpoint and whether it may be asked", () => {
    const of = (env: Record<string, string>) => hubSettings({ HF_HOME: home, ...env });
    expect(of({}).endpoint).toBe("https://huggingface.co");
    expect(of({ HF_ENDPOINT: "https://mirror.example/hf/" }).endpoint).toBe("https://mirror.example/hf");
    expect(() => of({ HF_ENDPOINT: "mirror.example" })).toThrow('HF_ENDPOINT: "mirror.example" is no address');
    for (const value of ["1", "true", "ON", "yes"]) expect(of({ HF_HUB_OFFLINE: value }).offline).toBe(true);
    for (const value of ["0", "", "false"]) expect(of({ HF_HUB_OFFLINE: value }).offline).toBe(false);
  });
});
