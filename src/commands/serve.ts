import { once } from "node:events";
import type { Command } from "commander";
import type { AskServer } from "../ask/ask-server.ts";
import type { WeightsKind } from "../inference/weights.ts";
import { UsageError } from "../util/errors.ts";
import { parseCount } from "../util/numbers.ts";
import { weightsFlag } from "./flags.ts";
import { note } from "./note.ts";
import { addPortFlag } from "./page.ts";
import { catchSignals } from "./signals.ts";

/** Flags of the model that answers questions about texts. */
interface ModelFlags {
  readonly model?: string;
  readonly tensor?: string;
  readonly tokenizer?: string;
  readonly context?: number;
  readonly weights?: WeightsKind;
  readonly threads?: number;
}

interface Flags extends ModelFlags {
  readonly port?: number;
  readonly host?: string;
}

export function serveCommand(program: Command): void {
  const command = program
    .command("serve")
    .description("show runs in the browser: live charts, compared; with --model also what latents do on your own text")
    .argument(
      "[runs...]",
      "run folders, or folders of them (default: runs); with --model also any autoencoder that Saetta reads",
    );
  addPortFlag(command)
    .option("--host <address>", "address to listen at; others than this machine can then look (default: 127.0.0.1)")
    .option("--model <path>", "the ONNX model: type text on the page, see its latents, steer them")
    .option("--tensor <name>", "the tensor in it (default: the one that the autoencoder was trained on)")
    .option("--tokenizer <path>", "its tokenizer.json (default: the one next to the model)")
    .option("--context <N>", "tokens per context (default: what the model takes, at most 1024)", (text) =>
      parseCount(text, "--context", 2),
    )
    .addOption(weightsFlag())
    .option("--threads <N>", "threads of the model (default: all processors)", (text) => parseCount(text, "--threads"))
    .addHelpText(
      "after",
      "\nExamples:\n  saetta serve runs\n  saetta serve runs/first --model examples/brown-gpt\n  saetta serve sae-folder --model model/ --tensor NAME\n",
    )
    .action(async (paths: readonly string[], { port, host, ...flags }: Flags) => {
      const [{ serveDashboard }, { explorerApi }] = await Promise.all([
        import("../dashboard/server.ts"),
        import("../explorer/api.ts"),
      ]);
      const ending = catchSignals("closing the page");
      await using api = explorerApi();
      const named = await sorted(paths, flags.model !== undefined);
      await using ask = await startModel(flags);
      const page = await serveDashboard({
        ...named,
        port,
        host,
        features: api.answer,
        posts: api.post,
        ask,
      });
      process.stdout.write(`${page.url}\n`);
      if (host !== undefined) {
        const more = ask === undefined ? "" : " and use the model";
        note(`all who reach this machine can look at these runs, name latents${more}: there is no password`);
      }
      if (!ending.signal.aborted) await once(ending.signal, "abort");
      await page.close();
      ending.close();
      process.exitCode = ending.exitCode();
    });
}

/** Which paths are of runs, and which of other autoencoders, that only a model can ask about. */
async function sorted(
  paths: readonly string[],
  hasModel: boolean,
): Promise<{ readonly folders: readonly string[]; readonly autoencoders: readonly string[] }> {
  if (paths.length === 0) return { folders: ["runs"], autoencoders: [] };
  if (!hasModel) return { folders: paths, autoencoders: [] };
  const [{ isRunFolder }, { namesSae }] = await Promise.all([
    import("../dashboard/run.ts"),
    import("../inference/weights.ts"),
  ]);
  const folders: string[] = [];
  const autoencoders: string[] = [];
  for (const path of paths) {
    const isOther = !(await isRunFolder(path, false)) && (await namesSae(path));
    (isOther ? autoencoders : folders).push(path);
  }
  return { folders, autoencoders };
}

/** Opens the model in a process; undefined where none is named. */
async function startModel({ model, ...flags }: ModelFlags): Promise<AskServer | undefined> {
  if (model !== undefined) {
    const { AskServer: server } = await import("../ask/ask-server.ts");
    return server.start({ ...flags, model });
  }
  const [lone] = Object.keys(flags);
  if (lone === undefined) return undefined;
  throw new UsageError(`--${lone} is of the model that reads your text`, { mend: "name it with --model" });
}
