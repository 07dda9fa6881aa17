import { once } from "node:events";
import type { Command } from "commander";
import { note } from "./note.ts";
import { addPortFlag } from "./page.ts";
import { catchSignals } from "./signals.ts";

export function serveCommand(program: Command): void {
  const command = program
    .command("serve")
    .description("show runs in the browser: live charts, compared")
    .argument("[runs...]", "run folders, or folders of them (default: runs)");
  addPortFlag(command)
    .option("--host <address>", "address to listen at; others than this machine can then look (default: 127.0.0.1)")
    .addHelpText("after", "\nExample:\n  saetta serve runs\n")
    .action(async (folders: readonly string[], { port, host }: { readonly port?: number; readonly host?: string }) => {
      const [{ serveDashboard }, { explorerApi }] = await Promise.all([
        import("../dashboard/server.ts"),
        import("../explorer/api.ts"),
      ]);
      const ending = catchSignals("closing the page");
      await using api = explorerApi();
      const page = await serveDashboard({
        folders: folders.length > 0 ? folders : ["runs"],
        port,
        host,
        features: api.answer,
        posts: api.post,
      });
      process.stdout.write(`${page.url}\n`);
      if (host !== undefined)
        note("all who reach this machine can look at these runs and name latents: there is no password");
      if (!ending.signal.aborted) await once(ending.signal, "abort");
      await page.close();
      ending.close();
      process.exitCode = ending.exitCode();
    });
}
