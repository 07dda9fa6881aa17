/**
 * Limits of time in tests, in milliseconds. They end what hangs and nothing else: a machine that is
 * busy with other work never reaches them. vitest.config.ts sets TEST_MS and POLL_MS for all tests,
 * so no test has a limit itself.
 */

/** `npm run torture`, which tries thousands of cases in one test. */
const LONG = process.env.SAETTA_TORTURE === "long";

/** A test or a hook. */
export const TEST_MS = LONG ? 7_200_000 : 600_000;
/** A child process: less, so that the test can report what the process wrote. */
export const CHILD_MS = TEST_MS / 2;
/** `expect.poll`, and what a page in a browser shows. */
export const POLL_MS = 120_000;
