/**
 * `python3 -m saetta.harvest` writes what we read.
 */

import { execFile } from "node:child_process";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { rowsToFloat32 } from "../../src/data/convert.ts";
import { excludedRows } from "../../src/data/mask.ts";
import { openSource } from "../../src/data/open.ts";
import { openHdf5 } from "../../src/formats/hdf5-read.ts";
import { PYTHON, python } from "../support/python.ts";

const missing = (await python("torch")) ?? (await python("h5py"));
const PACKAGE = fileURLToPath(new URL("../../python", import.meta.url));

describe.skipIf(missing !== undefined)(
  `activations of a Hugging Face model as HDF5${missing === undefined ? "" : ` (${missing})`}`,
  () => {
    let folder: string;
    beforeAll(async () => {
      folder = await mkdtemp(join(tmpdir(), "saetta-harvest-"));
    });
    afterAll(() => rm(folder, { recursive: true }));

    it("packs documents after start tokens, and writes contiguous rows with tokens and attributes, or nothing", async () => {
      const code = `
import sys
sys.path.insert(0, sys.argv[1])
import torch
from saetta.harvest import contexts, harvest
rows = list(contexts([[1, 2], [3, 4, 5, 6], [7]], 0, 4))
assert rows == [[0, 1, 2, 0], [0, 3, 4, 5], [0, 6, 0, 7]], rows
assert list(contexts([[1]], 0, 4)) == []
table = torch.arange(24.0).reshape(8, 3) / 4
harvest(lambda ids: table[ids], rows, "acts.h5", {"start_token": 0, "model": "gpt2", "tensor": "hidden_states[6]"}, batch=2)
harvest(lambda ids: table[ids] * 1e5, rows, "wide.h5", {}, dtype="float32")
for wrong in (lambda: harvest(lambda ids: table[ids] * 1e5, rows, "never.h5", {}), lambda: harvest(lambda ids: table[ids], [], "never.h5", {})):
    try:
        wrong()
    except SystemExit as end:
        print(end)
`;
      const { stdout } = await promisify(execFile)(PYTHON, ["-c", code, PACKAGE], { cwd: folder });
      expect(stdout).toBe(
        "a value is not finite or beyond the range of float16: use --dtype float32\nthe text does not fill one context: lower --context\n",
      );
      expect(await readdir(folder)).not.toContain("never.h5");

      const source = await openSource([join(folder, "acts.h5")]);
      expect(source).toMatchObject({
        rows: 12,
        dIn: 3,
        dtype: "f16",
        sequence: 4,
        origin: { model: "gpt2", tensor: "hidden_states[6]", startToken: 0 },
      });
      expect([...(await source.tokens!(0, 12))]).toEqual([0, 1, 2, 0, 0, 3, 4, 5, 0, 6, 0, 7]);
      const bytes = new Uint8Array(3 * 2);
      await source.read(7, 1, bytes);
      expect([...rowsToFloat32(bytes, "f16", 3)]).toEqual([15 / 4, 16 / 4, 17 / 4]);
      const excluded = await excludedRows(source, "start");
      expect([...Array(12).keys()].filter((row) => excluded.has(row))).toEqual([0, 3, 4, 8, 10]);
      await source.close();
      const file = await openHdf5(join(folder, "acts.h5"));
      expect(file.datasets.map(({ name, layout }) => [name, layout])).toEqual(
        expect.arrayContaining([["hidden_states", "contiguous"]]),
      );
      await file.close();
      const wide = await openSource([join(folder, "wide.h5")]);
      expect(wide.dtype).toBe("f32");
      await wide.close();
    });

    it("says where the tokenizer and a model's folder are from the file's own folder, so that all can be moved", async () => {
      const code = `
import os, sys
sys.path.insert(0, sys.argv[1])
import torch
from saetta.harvest import harvest, located
os.makedirs("here/acts.h5.tokenizer")
os.makedirs("model")
open("here/acts.h5.tokenizer/tokenizer.json", "w").close()
where = located("model", "model", "here/acts.h5") | located("tokenizer", "here/acts.h5.tokenizer/tokenizer.json", "here/acts.h5")
harvest(lambda ids: ids[..., None].float(), [[0, 1]], "here/acts.h5", where)
assert located("tokenizer", "model", "acts.h5")["tokenizer_relative"] == "model"
os.mkdir("there")
os.rename("here", "there/here")
os.rename("model", "there/model")
`;
      await promisify(execFile)(PYTHON, ["-c", code, PACKAGE], { cwd: folder });
      const source = await openSource([join(folder, "there/here/acts.h5")]);
      const { model, modelPlaces, tokenizer, tokenizerPlaces } = source.origin;
      await source.close();
      expect(model).toBe(join(folder, "model"));
      expect(modelPlaces![0]).toBe(`${folder}/there/here/../model`);
      expect(tokenizer).toBe(join(folder, "here/acts.h5.tokenizer/tokenizer.json"));
      expect(tokenizerPlaces![0]).toBe(join(folder, "there/here/acts.h5.tokenizer/tokenizer.json"));
    });
  },
);
