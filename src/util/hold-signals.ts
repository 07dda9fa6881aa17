/**
 * Imported before all that takes time to load: what a scheduler sends in the first second must not
 * be lost.
 */

import { holdSignals } from "./signals.ts";

/** Commands that end in good order at a signal. */
const COMMANDS = ["train", "resume", "harvest"];

if (COMMANDS.includes(process.argv[2] ?? "")) holdSignals();
