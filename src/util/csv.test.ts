import { expect, it } from "vitest";
import { csv } from "./csv.ts";

it("quotes what would be read otherwise, and leaves out what is not known", () => {
  expect(
    csv([
      ["run", "lr", "note"],
      ['a "b"', 1e-4, "x,y"],
      [null, undefined, "two\nlines"],
      [true, 0, ""],
    ]),
  ).toBe('run,lr,note\n"a ""b""",0.0001,"x,y"\n,,"two\nlines"\ntrue,0,');
});
