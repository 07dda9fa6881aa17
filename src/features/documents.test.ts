import { expect, it } from "vitest";
import { documentsOfLatents } from "./documents.ts";

it("lists for each latent the documents in which it is strongest", () => {
  const documents = [
    { latents: [0, 1, 0], values: [1, 5, 1] },
    { latents: [0], values: [3] },
    { latents: [1, 1], values: [2, 2] },
  ];
  expect(documentsOfLatents(documents, 3, 2)).toEqual([[1, 0], [0, 2], []]);
  expect(documentsOfLatents(documents, 2, 1)).toEqual([[1], [0]]);
});
