import { describe, expect, it } from "vitest";
import { otherOrigin } from "./origin.ts";

const of = (rows: object, trained?: object) => otherOrigin("acts.h5", rows, "runs/a", trained);

describe("rows of another origin", () => {
  it("are one sentence with both names", () => {
    expect(of({ tensor: "h.3", model: "/m/gpt2/model.onnx" }, { tensor: "h.4", model: "/m/gpt2/model.onnx" })).toBe(
      "acts.h5 is of the tensor 'h.3', but runs/a was trained on the tensor 'h.4': its latents may mean nothing there",
    );
    expect(of({ tensor: "a", model: "/m/pythia/model.onnx" }, { tensor: "b", model: "/m/gpt2/model.onnx" })).toBe(
      "acts.h5 is of the tensor 'a' and the model /m/pythia/model.onnx, but runs/a was trained on the tensor 'b' and the model /m/gpt2/model.onnx: its latents may mean nothing there",
    );
  });

  it("are not guessed: what is moved or not said agrees", () => {
    expect(
      of({ tensor: "a", model: "/old/gpt2/model.onnx" }, { tensor: "a", model: "/new/gpt2/model.onnx" }),
    ).toBeUndefined();
    expect(of({ tensor: "a" }, {})).toBeUndefined();
    expect(of({}, { tensor: "a" })).toBeUndefined();
    expect(of({ tensor: "a" })).toBeUndefined();
  });
});
