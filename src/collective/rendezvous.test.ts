/** The hub and its members in one process: what they tell each other, and who is gone. */

import { once } from "node:events";
import { connect } from "node:net";
import { afterEach, describe, expect, it } from "vitest";
import { POLL_MS } from "../../test/support/limits.ts";
import { Hub, type HubOptions } from "./hub.ts";
import { Member, type MemberOptions } from "./member.ts";

interface End {
  readonly text: string;
  readonly told: boolean;
}

/** A clock for a hub: `step` milliseconds pass each time the hub reads it. */
class Clock {
  at = 0;
  step = 0;
  readonly now = () => {
    this.at += this.step;
    return this.at;
  };
}

const open: { close(): Promise<void> | void }[] = [];

afterEach(async () => {
  for (const each of open.splice(0)) await each.close();
});

async function hubOf(size: number, options: Partial<HubOptions> = {}): Promise<{ hub: Hub; end: Promise<End> }> {
  let ended: (end: End) => void = () => undefined;
  const end = new Promise<End>((resolve) => {
    ended = resolve;
  });
  const onEnd = (text: string, told: boolean) => ended({ text, told });
  const hub = await Hub.open({ size, token: "t", deadline: 1, patience: 60, onEnd, ...options }, 0);
  open.push({ close: () => hub.close(0) });
  return { hub, end };
}

async function memberOf(
  hub: Hub,
  rank: number,
  options: Partial<MemberOptions> = {},
): Promise<{ member: Member; end: Promise<End> }> {
  let ended: (end: End) => void = () => undefined;
  const end = new Promise<End>((resolve) => {
    ended = resolve;
  });
  const onEnd = (text: string, told: boolean) => ended({ text, told });
  const about = {
    rank,
    hosts: ["127.0.0.1"],
    port: hub.port,
    hub: "rank 0",
    token: "t",
    deadline: 1,
    patience: 60,
    onEnd,
  };
  const member = await Member.join({ ...about, ...options });
  open.push({ close: () => member.leave() });
  return { member, end };
}

describe("ranks that meet", () => {
  it("get everybody's values, in the order of the ranks, also when some are ahead", async () => {
    const { hub } = await hubOf(3);
    const members = await Promise.all([2, 0, 1].map((rank) => memberOf(hub, rank)));
    const [two, zero, one] = members.map(({ member }) => member);
    const first = [two!.exchange("0", "c"), zero!.exchange("0", null)];
    const second = two!.exchange("1", { c: 2 });
    expect(await Promise.all([one!.exchange("0", [1]), ...first])).toEqual([1, 2, 3].map(() => [null, [1], "c"]));
    expect(await Promise.all([zero!.exchange("1", 0), one!.exchange("1", 1), second])).toEqual(
      [1, 2, 3].map(() => [0, 1, { c: 2 }]),
    );
  });

  it("leave in good order without anybody being missed", async () => {
    const clock = new Clock();
    const { hub, end } = await hubOf(2, { now: clock.now });
    const [a, b] = [await memberOf(hub, 0), await memberOf(hub, 1)];
    await b.member.leave();
    await a.member.leave();
    clock.step = 100;
    await expect.poll(() => clock.at).toBeGreaterThan(1500);
    expect(await Promise.race([end, a.end, b.end, "nobody is missed"])).toBe("nobody is missed");
  });
});

describe("a rank that is gone", () => {
  it("is missed by all at once when its connection closes", async () => {
    const { hub, end } = await hubOf(2);
    const { end: other } = await memberOf(hub, 0);
    const socket = connect(hub.port, "127.0.0.1");
    socket.write(`${JSON.stringify({ hello: 1, host: "far", pid: 42, token: "t" })}\n`);
    await once(socket, "data"); // the hub has let it in
    socket.destroy();
    const text = "rank 1 (host far, process 42) ended without a word: it was killed (out of memory?), or it crashed";
    expect(await end).toEqual({ text, told: false });
    // The hub is on the other's host and shows it there.
    expect(await other).toEqual({ text, told: true });
  });

  it("is missed when it is silent, within the deadline", async () => {
    const clock = new Clock();
    const { hub, end } = await hubOf(1, { now: clock.now });
    const socket = connect(hub.port, "127.0.0.1");
    open.push({ close: () => void socket.destroy() });
    socket.write(`${JSON.stringify({ hello: 0, host: "far", pid: 42, token: "t" })}\n`);
    await once(socket, "data"); // the hub has let it in
    clock.step = 40;
    expect((await end).text).toMatch(
      /^rank 0 \(host far, process 42\) has not shown a sign of life for 1 s: it is stopped/,
    );
    expect(clock.at).toBeGreaterThan(600);
    expect(clock.at).toBeLessThan(1000);
  });

  it("is not missed by a hub that was stopped itself, and has heard nobody meanwhile", async () => {
    const clock = new Clock();
    const { hub, end } = await hubOf(1, { now: clock.now });
    const socket = connect(hub.port, "127.0.0.1");
    open.push({ close: () => void socket.destroy() });
    socket.write(`${JSON.stringify({ hello: 0, host: "far", pid: 42, token: "t" })}\n`);
    await once(socket, "data");
    clock.at += 3_600_000;
    for (let looks = 0; looks < 3; looks++) await once(socket, "data");
    expect(await Promise.race([end, "nobody is missed"])).toBe("nobody is missed");
  });

  it("ends all with what it has to say; where all say so, rank 0 says it", async () => {
    const { hub, end } = await hubOf(2);
    const [, b] = [await memberOf(hub, 0), await memberOf(hub, 1)];
    await b.member.fail("no room for 8 bytes", false);
    expect((await end).text).toMatch(/^rank 1 \(host .+, process \d+\): no room for 8 bytes$/);

    const again = await hubOf(2, { grace: POLL_MS });
    const [c, d] = [await memberOf(again.hub, 0), await memberOf(again.hub, 1)];
    await d.member.fail("step 3 is not finite", false);
    await c.member.fail("step 3 is not finite", true);
    expect(await again.end).toEqual({ text: "step 3 is not finite", told: true });
  });

  it("is the hub: the first of the others says so", async () => {
    const { hub } = await hubOf(3);
    const [zero, one, two] = [await memberOf(hub, 0), await memberOf(hub, 1), await memberOf(hub, 2)];
    // Whoever has an answer has heard the name of the hub's host before.
    await Promise.all([zero, one, two].map(({ member }) => member.exchange("0", 1)));
    await hub.close(0);
    const ends = await Promise.all([one.end, two.end]);
    for (const { text } of ends) expect(text).toMatch(/^rank 0 \(host .+\) ended without a word/);
    expect(ends.map(({ told }) => told)).toEqual([false, true]);
  });

  it("has never come, and is named", async () => {
    const clock = new Clock();
    const { hub, end } = await hubOf(4, { patience: 30, now: clock.now });
    await memberOf(hub, 2);
    await expect.poll(() => hub.processes).toHaveLength(1);
    clock.at += 30_001;
    expect((await end).text).toBe("ranks 0, 1, 3 of 4 did not come within 30 s");
  });
});

describe("who is no rank of this run", () => {
  it.each([
    ["another run's", { hello: 0, host: "a", pid: 1, token: "other" }],
    ["a rank that there is not", { hello: 2, host: "a", pid: 1, token: "t" }],
    ["no rank at all", { hello: "0", host: "a", pid: 1, token: "t" }],
  ])("is sent away: %s", async (_what, hello) => {
    const { hub } = await hubOf(2);
    const socket = connect(hub.port, "127.0.0.1");
    socket.write(`${JSON.stringify(hello)}\n`);
    await new Promise((resolve) => socket.once("close", resolve));
    expect(hub.processes).toEqual([]);
  });

  it.each([
    "GET / HTTP/1.1\r\n\r\n",
    "[1]\n",
    "nul\n",
    `${"x".repeat(17 * 2 ** 20)}`,
  ])("is sent away: %#", async (text) => {
    const { hub } = await hubOf(2);
    const socket = connect(hub.port, "127.0.0.1");
    socket.on("error", () => undefined);
    socket.write(text);
    await new Promise((resolve) => socket.once("close", resolve));
    expect(hub.processes).toEqual([]);
  });

  it("is a second process with the rank of another: the run ends, for nobody knows which is right", async () => {
    const { hub, end } = await hubOf(2);
    await memberOf(hub, 1);
    await memberOf(hub, 1);
    expect((await end).text).toMatch(/^two processes say that they are rank 1: \d+ on .+ and \d+ on /);
  });
});

it("a hub that is not there is waited for, and then named", async () => {
  const { hub } = await hubOf(1);
  const { port } = hub;
  await hub.close(0);
  const about = {
    rank: 1,
    hosts: ["127.0.0.1"],
    port,
    hub: "rank 0",
    token: "t",
    deadline: 1,
    patience: 0.3,
    onEnd: () => undefined,
  };
  await expect(Member.join(about)).rejects.toThrow(
    new RegExp(`rank 0 cannot be reached at 127.0.0.1:${port} \\(.*nobody listens there`),
  );
});
