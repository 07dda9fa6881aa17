import { readFile } from "node:fs/promises";
import { createServer } from "node:net";
import { describe, expect, it } from "vitest";
import { FormatError, messageOf, SaettaError, systemError, UsageError } from "./errors.ts";

describe("a message", () => {
  it("is one line of where, what and how to mend", () => {
    const error = new SaettaError("not\n  a file", { where: "a.h5", mend: "name a file" });
    expect(error.message).toBe("a.h5: not a file; name a file");
    expect([error.exitCode, new FormatError("x").exitCode, new UsageError("x").exitCode]).toEqual([1, 1, 2]);
    expect(new FormatError("x")).toBeInstanceOf(SaettaError);
  });

  it("spells out what a terminal would obey", () => {
    const name = "\u001b[2J\u0000\u2028\u009b31m\u202egnp.exe";
    const spelled = "\\u001b[2J\\u0000\\u2028\\u009b31m\\u202egnp.exe";
    expect(new FormatError(`no tensor ${name}!`, { where: name }).message).toBe(`${spelled}: no tensor ${spelled}!`);
    expect(messageOf(new Error(name))).toBe(spelled);
    expect(new FormatError("modèle 日本 🦊").message).toBe("modèle 日本 🦊");
  });

  it("keeps file and mend whatever the length of what a file held", () => {
    const { message } = new FormatError(`the name ${"a".repeat(100_000)} ends here`, {
      where: "a.json",
      mend: "write it again",
    });
    expect(message.length).toBeLessThan(1100);
    expect(message).toMatch(/^a\.json: the name aaa.* \.\.\. a+ ends here; write it again$/);
    expect(new FormatError("\u0000".repeat(1000)).message.length, "with what is spelled out").toBeLessThan(1100);
  });
});

describe("an error of the operating system", () => {
  const thrown = (doing: Promise<unknown>) => doing.catch((each: unknown) => each);

  it("is said in plain words, with its path apart", async () => {
    const missing = await thrown(readFile("/nowhere/at\u001b all"));
    expect(messageOf(missing)).toBe("no such file or folder");
    expect(systemError(missing)).toEqual({ what: "no such file or folder", path: "/nowhere/at\\u001b all" });
    expect(messageOf(await thrown(readFile("/dev/null/x")))).toBe("a part of the path is a file, not a folder");
    expect(messageOf(await thrown(readFile("/")))).toBe("it is a folder");
    const refused = new Promise((_, reject) => createServer().on("error", reject).listen(1, "203.0.113.1"));
    expect(messageOf(await thrown(refused))).toBe("this machine has no such address");
  });

  it("without words of ours keeps what the system says, and no more", () => {
    const odd = Object.assign(new Error("EMULTIHOP: multihop attempted, open '/x'"), {
      code: "EMULTIHOP",
      syscall: "open",
    });
    expect(messageOf(odd)).toBe("multihop attempted");
  });

  it("is no error of ours or of the program", () => {
    for (const other of [new SaettaError("x"), new TypeError("y"), Object.assign(new Error("z"), { code: "ERR_X" })])
      expect([systemError(other), messageOf(other)]).toEqual([undefined, other.message]);
  });
});
