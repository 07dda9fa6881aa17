import { describe, expect, it } from "vitest";
import { FormatError, messageOf, SaettaError, UsageError } from "./errors.ts";

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
