import { expect, it } from "vitest";
import { keepPage } from "./page.ts";
import { catchSignals } from "./signals.ts";

const page = { url: "http://127.0.0.1:7232/" };

it("stays in a terminal until a signal, which does not change how the run ended", async () => {
  const ending = catchSignals("saving", true);
  let over = false;
  const kept = keepPage(page, ending, false, true).then(() => {
    over = true;
  });
  await new Promise((resolve) => {
    setImmediate(resolve);
  });
  expect(over).toBe(false);
  process.emit("SIGINT", "SIGINT");
  await kept;
  expect(over).toBe(true);
  ending.close();
});

it("does not stay for a script, for JSON, without a page, or after a signal", async () => {
  const ending = catchSignals("saving", true);
  await keepPage(page, ending, false, false);
  await keepPage(page, ending, true, true);
  await keepPage({ url: undefined }, ending, false, true);
  process.emit("SIGTERM", "SIGTERM");
  await keepPage(page, ending, false, true);
  ending.close();
});
