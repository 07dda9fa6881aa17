import { describe, expect, it } from "vitest";
import { chooseGrid, deadlineOf, launchEnvOf } from "./launch-env.ts";

describe("the environment says which rank this is", () => {
  it("nobody has started others", () => {
    expect(launchEnvOf({})).toBeUndefined();
    expect(launchEnvOf({ RANK: "0", WORLD_SIZE: "1" })).toBeUndefined();
    // A batch script of Slurm knows of tasks, but is none of them.
    expect(launchEnvOf({ SLURM_PROCID: "0", SLURM_NTASKS: "4", SLURM_JOB_ID: "7" })).toBeUndefined();
  });

  it("mpirun, also beside what a batch system has set", () => {
    const env = {
      OMPI_COMM_WORLD_RANK: "3",
      OMPI_COMM_WORLD_SIZE: "8",
      OMPI_COMM_WORLD_LOCAL_RANK: "1",
      OMPI_COMM_WORLD_LOCAL_SIZE: "2",
      RANK: "0",
      WORLD_SIZE: "2",
      SLURM_JOB_ID: "77",
    };
    expect(launchEnvOf(env)).toEqual({
      rank: 3,
      size: 8,
      localRank: 1,
      localSize: 2,
      launcher: "mpirun",
      master: undefined,
      token: "77",
    });
  });

  it("torchrun, whose own store has MASTER_PORT", () => {
    const env = {
      RANK: "1",
      WORLD_SIZE: "2",
      LOCAL_RANK: "1",
      LOCAL_WORLD_SIZE: "2",
      MASTER_ADDR: "n1",
      MASTER_PORT: "29400",
    };
    expect(launchEnvOf(env)).toMatchObject({
      rank: 1,
      size: 2,
      localRank: 1,
      localSize: 2,
      master: { host: "n1", port: 29400 },
      token: "",
    });
    const torchrun = { ...env, TORCHELASTIC_RUN_ID: "abc" };
    expect(launchEnvOf(torchrun)).toMatchObject({ master: { host: "n1", port: 29401 }, token: "abc" });
    expect(launchEnvOf({ ...torchrun, SAETTA_PORT: "5000" })).toMatchObject({ master: { port: 5000 } });
  });

  it("srun, whose first node is the master unless another is named", () => {
    const env = {
      SLURM_PROCID: "5",
      SLURM_STEP_NUM_TASKS: "6",
      SLURM_LOCALID: "2",
      SLURM_STEP_NODELIST: "node[03-04,9],other",
      SLURM_JOB_ID: "7",
    };
    expect(launchEnvOf(env)).toMatchObject({
      rank: 5,
      size: 6,
      localRank: 2,
      launcher: "srun",
      master: { host: "node03", port: 29500 },
      token: "7",
    });
    expect(launchEnvOf({ ...env, SLURM_STEP_NODELIST: "big" })).toMatchObject({ master: { host: "big" } });
    expect(launchEnvOf({ ...env, MASTER_ADDR: "login", MASTER_PORT: "1234" })).toMatchObject({
      master: { host: "login", port: 1234 },
    });
  });

  it.each([
    [
      { RANK: "2", WORLD_SIZE: "2", MASTER_ADDR: "a" },
      /environment: RANK must be below WORLD_SIZE, which is 2, but is 2$/,
    ],
    [
      { RANK: "-1", WORLD_SIZE: "2", MASTER_ADDR: "a" },
      /environment: RANK must be a whole number of at least 0, but is "-1"$/,
    ],
    [
      { RANK: "0", WORLD_SIZE: "two", MASTER_ADDR: "a" },
      /environment: WORLD_SIZE must be a whole number of at least 0, but is "two"$/,
    ],
    [{ RANK: "0", WORLD_SIZE: "2" }, /but not MASTER_ADDR; set MASTER_ADDR to the host of rank 0/],
    [
      { RANK: "0", WORLD_SIZE: "2", MASTER_ADDR: "a", MASTER_PORT: "x" },
      /environment: MASTER_PORT must be a whole number of at least 0, but is "x"$/,
    ],
  ])("%o is refused", (env, message) => {
    expect(() => launchEnvOf(env)).toThrow(message);
  });
});

describe("the grid", () => {
  it("has what is asked for, and the rest as replicas", () => {
    expect(chooseGrid(5, 6, { shards: 2, replicas: 3 })).toEqual({
      rank: 5,
      size: 6,
      shards: 2,
      replicas: 3,
      shard: 1,
      replica: 2,
    });
    expect(chooseGrid(3, 4, { shards: 2 })).toMatchObject({ shards: 2, replicas: 2, shard: 1, replica: 1 });
    expect(chooseGrid(3, 4, { replicas: 1 })).toMatchObject({ shards: 4, replicas: 1, shard: 3, replica: 0 });
    expect(chooseGrid(3, 4, {})).toMatchObject({ shards: 1, replicas: 4, shard: 0, replica: 3 });
  });

  it.each([
    [4, { shards: 3 }, /--shards 3 do not make up 4 ranks; start shards x replicas processes/],
    [4, { shards: 2, replicas: 3 }, /--shards 2 and --replicas 3 do not make up 4 ranks/],
    [1, { replicas: 2 }, /--replicas 2 do not make up 1 rank;/],
  ])("of %i ranks is not %o", (size, asked, message) => {
    expect(() => chooseGrid(0, size, asked)).toThrow(message);
  });
});

it("the deadline is a number of seconds", () => {
  expect(deadlineOf({})).toBe(30);
  expect(deadlineOf({ SAETTA_DEADLINE: "2.5" })).toBe(2.5);
  for (const text of ["0", "-1", "soon", "1e9"])
    expect(() => deadlineOf({ SAETTA_DEADLINE: text })).toThrow(
      /^environment: SAETTA_DEADLINE must be a number from 1 to 86400 \(seconds\), but is/,
    );
});
