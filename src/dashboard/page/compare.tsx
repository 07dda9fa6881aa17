/** All runs compared: a point for each, and a table that can be sorted, filtered and grouped. */

import { useId, useState } from "preact/hooks";
import type { RunSummary } from "../api.ts";
import {
  type Column,
  columnsOf,
  groupOf,
  groupsOf,
  hasFront,
  passes,
  pointsOf,
  sorted,
  suitsLog,
  type Value,
} from "./compare-data.ts";
import { figure, formatDuration } from "./format.ts";
import { MOST_SHOWN, type Model } from "./model.ts";
import { PALETTE } from "./palette.ts";
import { STATES } from "./runs.tsx";
import { type Mark, Scatter, SHAPES, shapeAt } from "./scatter.tsx";

/** Rows of the table before the reader asks for all. */
const FIRST_ROWS = 50;
const ERRORS = ["holdout_fvu", "fvu", "loss", "dead_fraction", "dead"];

interface Sort {
  readonly name: string;
  readonly descending: boolean;
}

export function Compare({ model, theme }: { model: Model; theme: "light" | "dark" }) {
  const all = Array.from(model.runs.values());
  const columns = columnsOf(all);
  const numeric = columns.filter(({ of }) => all.some((run) => typeof of(run) === "number"));
  const [filter, setFilter] = useState("");
  const [chosen, setChosen] = useState<{ x?: string; y?: string; group?: string }>({});
  const [sort, setSort] = useState<Sort>({ name: "holdout_fvu", descending: false });
  const [every, setEvery] = useState(false);
  const named = (name: string | undefined) => columns.find((column) => column.name === name);
  const y = named(chosen.y) ?? numeric.find(({ name }) => ERRORS.includes(name));
  const x = named(chosen.x) ?? named("l0") ?? numeric[0];
  const runs = all.filter((run) => passes(run, filter, columns));
  const options = columns.filter(({ option }) => option);
  const group = chosen.group === "" ? undefined : (named(chosen.group) ?? firstGroup(options, all, x));
  const marks = new Map(groupsOf(all, group).map((name, i) => [name, markAt(i, theme)]));
  const markOf = (run: RunSummary) => (group && marks.get(groupOf(run, group))) ?? markAt(0, theme);
  if (all.length < 2 || x === undefined || y === undefined) return null;
  const log = { x: suitsLog(runs.map(x.of)), y: suitsLog(runs.map(y.of)) };
  const shown = new Set(model.shown.map(({ id }) => id));
  const toggle = (run: RunSummary) => model.show(run.id, !shown.has(run.id));
  const inOrder = sorted(runs, orderOf(named(sort.name), sort), sort.descending);
  const rows = every ? inOrder : inOrder.slice(0, FIRST_ROWS);
  return (
    <details class="compare card" open={all.some(({ sweep }) => sweep !== null)}>
      <summary>
        <h2>All runs compared</h2>
        <span class="muted">
          {runs.length === all.length ? `${all.length} runs` : `${runs.length} of ${all.length} runs`}
        </span>
      </summary>
      <div class="choices">
        <Select label="up" value={y.name} of={numeric} onChange={(name) => setChosen({ ...chosen, y: name })} />
        <Select label="across" value={x.name} of={numeric} onChange={(name) => setChosen({ ...chosen, x: name })} />
        <Select
          label="group by"
          value={group?.name ?? ""}
          of={options}
          none="nothing"
          onChange={(name) => setChosen({ ...chosen, group: name })}
        />
        <label class="filter">
          filter{" "}
          <input
            type="search"
            value={filter}
            placeholder="k=32 lr<1e-3"
            onInput={(event) => setFilter(event.currentTarget.value)}
          />
        </label>
      </div>
      <Scatter
        points={pointsOf(runs, x, y, log)}
        x={x}
        y={y}
        log={log}
        front={hasFront(x)}
        markOf={({ run }) => markOf(run)}
        isShown={({ run }) => shown.has(run.id)}
        onPick={({ run }) => toggle(run)}
      />
      {group !== undefined && <Legend label={group.label} marks={marks} />}
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: a table that is too wide is scrolled by keys */}
      <section class="scroll" tabIndex={0} aria-label="all runs">
        <table>
          <thead>
            <tr>
              <Head name="" label="run" sort={sort} onSort={setSort} />
              <Head name="state" label="state" sort={sort} onSort={setSort} />
              {columns.map(({ name, label }) => (
                <Head key={name} name={name} label={label} sort={sort} onSort={setSort} number />
              ))}
            </tr>
          </thead>
          <tbody>
            {rows.map((run) => (
              <tr key={run.id}>
                <th scope="row">
                  <label>
                    <input
                      type="checkbox"
                      checked={shown.has(run.id)}
                      disabled={!shown.has(run.id) && shown.size >= MOST_SHOWN}
                      onChange={() => toggle(run)}
                      aria-label={`show the curves of ${run.name}`}
                    />
                    <Shape mark={markOf(run)} />
                    {run.name}
                  </label>
                </th>
                <td>
                  <span class={`state ${run.state}`}>{STATES[run.state]}</span>
                </td>
                {columns.map((column) => (
                  <td class="number" key={column.name}>
                    {cellOf(column, run)}
                  </td>
                ))}
              </tr>
            ))}
          </tbody>
        </table>
      </section>
      {inOrder.length > rows.length && (
        <button type="button" class="small" onClick={() => setEvery(true)}>
          all {inOrder.length}
        </button>
      )}
    </details>
  );
}

/** What the table is sorted by: a column, the state, or else the name. */
function orderOf(column: Column | undefined, { name }: Sort): (run: RunSummary) => Value {
  if (column !== undefined) return column.of;
  return name === "state" ? (run) => run.state : (run) => run.name;
}

/** An option with few values, that the axis does not show already. */
function firstGroup(
  options: readonly Column[],
  runs: readonly RunSummary[],
  x: Column | undefined,
): Column | undefined {
  const fits = ({ name }: Column, values: number) =>
    values > 1 && values <= SHAPES && name !== x?.name && !(name === "k" && x?.name === "l0");
  return options.find((column) => fits(column, groupsOf(runs, column).length));
}

function markAt(place: number, theme: "light" | "dark"): Mark {
  const colors = PALETTE[theme];
  return { color: colors[place % colors.length]!, shape: place + Math.floor(place / colors.length) };
}

function cellOf({ name, of }: Column, run: RunSummary): string {
  const value = of(run);
  if (value === null) return "–";
  if (name === "elapsed_s") return formatDuration(Number(value));
  return typeof value === "number" ? figure(value) : String(value);
}

interface SelectProps {
  readonly label: string;
  readonly value: string;
  readonly of: readonly Column[];
  readonly none?: string;
  readonly onChange: (name: string) => void;
}

function Select({ label, value, of, none, onChange }: SelectProps) {
  const id = useId();
  return (
    <span class="select">
      <label for={id}>{label}</label>{" "}
      <select id={id} value={value} onChange={(event) => onChange(event.currentTarget.value)}>
        {none !== undefined && <option value="">{none}</option>}
        {of.map(({ name, label: words }) => (
          <option key={name} value={name}>
            {words}
          </option>
        ))}
      </select>
    </span>
  );
}

function Head(props: {
  readonly name: string;
  readonly label: string;
  readonly sort: Sort;
  readonly onSort: (sort: Sort) => void;
  readonly number?: boolean;
}) {
  const { name, label, sort, onSort, number = false } = props;
  const by = sort.name === name;
  const order = by ? (sort.descending ? "descending" : "ascending") : "none";
  return (
    <th scope="col" class={number ? "number" : ""} aria-sort={order}>
      <button type="button" class="sort" onClick={() => onSort({ name, descending: by && !sort.descending })}>
        {label}
        <span aria-hidden="true">{by ? (sort.descending ? " ▾" : " ▴") : ""}</span>
      </button>
    </th>
  );
}

function Legend({ label, marks }: { readonly label: string; readonly marks: ReadonlyMap<string, Mark> }) {
  return (
    <ul class="legend" aria-label={`groups by ${label}`}>
      {Array.from(marks, ([name, mark]) => (
        <li key={name}>
          <Shape mark={mark} /> {label} {name}
        </li>
      ))}
    </ul>
  );
}

function Shape({ mark }: { readonly mark: Mark }) {
  return (
    <svg class="swatch" width="14" height="14" viewBox="0 0 14 14" aria-hidden="true">
      <path d={shapeAt(mark.shape, 7, 7)} fill={mark.color} />
    </svg>
  );
}
