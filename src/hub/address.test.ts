import { describe, expect, it } from "vitest";
import { hubPath, isHubPath, parseHubPath } from "./address.ts";

const COMMIT = "1234567890abcdef1234567890abcdef12345678";

describe("an address", () => {
  it.each([
    ["hf://org/repo", "model", "org/repo", "", "main"],
    ["hf://org/repo/", "model", "org/repo", "", "main"],
    ["hf://models/org/repo/a", "model", "org/repo", "a", "main"],
    ["hf://org/repo/a/b.npz", "model", "org/repo", "a/b.npz", "main"],
    ["hf://org/repo/a/b.npz@v1.0", "model", "org/repo", "a/b.npz", "v1.0"],
    ["hf://org/repo@v1.0", "model", "org/repo", "", "v1.0"],
    ["hf://org/repo@v1.0/a/b", "model", "org/repo", "a/b", "v1.0"],
    ["hf://org/repo@refs/pr/12/a", "model", "org/repo", "a", "refs/pr/12"],
    ["hf://org/repo@refs%2Fpr%2F12/a", "model", "org/repo", "a", "refs/pr/12"],
    ["hf://org/repo/a@refs/pr/12", "model", "org/repo", "a", "refs/pr/12"],
    ["hf://org/repo/a@feature/x", "model", "org/repo", "a", "feature/x"],
    ["hf://org/repo@main/a@b", "model", "org/repo", "a@b", "main"],
    [`hf://org/repo/a@${COMMIT}`, "model", "org/repo", "a", COMMIT],
    ["hf://datasets/org/acts/x/*.npy", "dataset", "org/acts", "x/*.npy", "main"],
    ["hf://datasets/org/acts/x@v2", "dataset", "org/acts", "x", "v2"],
    ["https://huggingface.co/org/repo", "model", "org/repo", "", "main"],
    ["https://huggingface.co/org/repo/tree/main/layer_1/a%20b", "model", "org/repo", "layer_1/a b", "main"],
    ["https://huggingface.co/datasets/org/repo/blob/v2/a.npy", "dataset", "org/repo", "a.npy", "v2"],
    [
      "https://huggingface.co/org/repo/resolve/refs%2Fpr%2F1/a.npz?download=true",
      "model",
      "org/repo",
      "a.npz",
      "refs/pr/1",
    ],
  ])("%s", (text, kind, name, path, revision) => {
    expect(isHubPath(text)).toBe(true);
    const address = parseHubPath(text);
    expect(address).toEqual({ kind, name, path, revision });
    expect(parseHubPath(hubPath(address))).toEqual(address);
  });

  it.each([
    ["hf://", "names no repo"],
    ["hf://gpt2", "names no repo"],
    ["hf://org/", "names no repo"],
    ["hf://datasets/org", "names no repo"],
    ["hf://spaces/org/demo", "is of spaces, which hold no such files"],
    ["hf://../repo/a", 'hf://../repo/a: "../repo" cannot be the name of a repo; write hf://org/repo/path@revision'],
    ["hf://org/a--b", "cannot be the name of a repo"],
    ["hf://org/a..b", "cannot be the name of a repo"],
    ["hf://org/a b", "cannot be the name of a repo"],
    ["hf://org/repo/../../etc", "is no path in a repo"],
    ["hf://org/repo/a//b", "is no path in a repo"],
    ["hf://org/repo/a@../x", "cannot be a revision"],
    ["hf://org/repo/a@", "names no revision after the @"],
    ["hf://org/repo@/a", "names no revision after the @"],
  ])("refuses %s", (text, message) => {
    expect(() => parseHubPath(text)).toThrow(message);
  });

  it.each([
    "org/repo",
    "./hf:/x",
    "hf:/org/repo",
    "http://huggingface.co.evil.org/a/b",
    "acts.h5",
  ])("is not %s", (text) => {
    expect(isHubPath(text)).toBe(false);
  });
});
