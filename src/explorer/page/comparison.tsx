/** Two autoencoders next to each other: how many latents are the same, and which. */

import { useMemo, useState } from "preact/hooks";
import {
  CLASSES,
  COMPARISON_DEFINITIONS,
  type Comparison,
  countsOf,
  MEASURES,
  type Measure,
  type Side,
} from "../shared/comparison.ts";
import type { LatentName } from "../shared/format.ts";
import { Bars } from "./charts.tsx";
import { Name } from "./label.tsx";
import { Tokens } from "./latent.tsx";
import { count, counted, figure, percent, visible } from "./words.ts";

const PER_PAGE = 50;
const BARS = 20;
const SIDES: readonly Side[] = ["a", "b"];
const ORDERS = ["largest", "smallest", "number"] as const;
type Order = (typeof ORDERS)[number];

interface Shown {
  readonly comparison: Comparison;
  readonly names: Readonly<Record<Side, readonly LatentName[]>>;
}

export function ComparisonView({ comparison, names }: Shown) {
  const measures = MEASURES.filter((measure) => comparison.a.by[measure] !== undefined);
  const [measure, setMeasure] = useState<Measure>("cosine");
  return (
    <div class="explorer comparison">
      <header class="head">
        <p class="brand">
          <strong>Saetta</strong> comparison
        </p>
        <p class="muted">
          {visible(comparison.names.a)} and {visible(comparison.names.b)}
          {comparison.rows !== null && `, activations on ${counted(comparison.rows, "row")}`}
        </p>
      </header>
      <main class="body">
        <h1>Which latents are the same</h1>
        {measures.length > 1 && (
          <p class="row">
            <label for="measure">Compared by</label>
            <select
              id="measure"
              value={measure}
              onChange={({ currentTarget }) => setMeasure(currentTarget.value as Measure)}
            >
              {measures.map((each) => (
                <option key={each} value={each}>
                  {each === "cosine" ? "cosine of decoder rows" : "correlation of activations"}
                </option>
              ))}
            </select>
          </p>
        )}
        <div class="columns">
          {SIDES.map((side) => (
            <Summary key={side} side={side} measure={measure} comparison={comparison} />
          ))}
        </div>
        <Table comparison={comparison} names={names} measure={measure} />
        <Definitions least={comparison.least} hasRows={comparison.rows !== null} />
      </main>
    </div>
  );
}

interface OfSide {
  readonly side: Side;
  readonly measure: Measure;
  readonly comparison: Comparison;
}

function Summary({ side, measure, comparison }: OfSide) {
  const { latents, by } = comparison[side];
  const column = by[measure]!;
  const heights = Array.from({ length: BARS }, () => 0);
  for (const value of column.value) heights[Math.min(BARS - 1, Math.floor(value * BARS))]!++;
  const bars = heights.map((value, i) => ({
    value,
    title: `${(i / BARS).toFixed(2)} to ${((i + 1) / BARS).toFixed(2)}: ${counted(value, "latent")}`,
    class: (i + 0.5) / BARS >= comparison.least ? "plain" : "dead",
  }));
  const label = `Latents by the ${measure} of their best: ${bars.map(({ title }) => title).join("; ")}`;
  return (
    <section aria-labelledby={`side-${side}`}>
      <h2 id={`side-${side}`}>
        {side.toUpperCase()}: {visible(comparison.names[side])}
      </h2>
      <table>
        <thead>
          <tr>
            <th scope="col">class</th>
            <th scope="col">latents</th>
            <th scope="col">share</th>
          </tr>
        </thead>
        <tbody>
          {Object.entries(countsOf(side, column)).map(([name, number]) => (
            <tr key={name}>
              <th scope="row">{name}</th>
              <td>{count(number)}</td>
              <td>{percent(number / latents)}</td>
            </tr>
          ))}
        </tbody>
      </table>
      <h3>
        {measure === "cosine" ? "Cosine" : "Correlation"} of each latent of {side.toUpperCase()} with its best
      </h3>
      <Bars bars={bars} label={label} ends={["0", "1"]} />
    </section>
  );
}

function Table({ comparison, names, measure }: Shown & { readonly measure: Measure }) {
  const [side, setSide] = useState<Side>("a");
  const [kind, setKind] = useState("");
  const [search, setSearch] = useState("");
  const [order, setOrder] = useState<Order>("largest");
  const [page, setPage] = useState(0);
  const other = side === "a" ? "b" : "a";
  const column = comparison[side].by[measure]!;
  const otherMeasure = MEASURES.find((each) => each !== measure && comparison[side].by[each] !== undefined);
  const found = useMemo(() => {
    const wanted = search.trim().toLowerCase();
    const textOf = ({ name, on }: LatentName) => visible(`${name} ${on.join(" ")}`).toLowerCase();
    const latents = column.best.flatMap((best, latent) => {
      if (kind !== "" && CLASSES[side][column.class[latent]!] !== kind) return [];
      const isNumber = wanted === String(latent) || wanted === `#${latent}`;
      const fits =
        wanted === "" ||
        isNumber ||
        [names[side][latent], names[other][best]].some((each) => each && textOf(each).includes(wanted));
      return fits ? [latent] : [];
    });
    if (order === "number") return latents;
    const sign = order === "largest" ? 1 : -1;
    return latents.sort((a, b) => sign * (column.value[b]! - column.value[a]!) || a - b);
  }, [side, kind, search, order, column, names]);
  const pages = Math.ceil(found.length / PER_PAGE);
  const change = (set: () => void) => {
    set();
    setPage(0);
  };
  return (
    <section aria-labelledby="latents">
      <h2 id="latents">Latents</h2>
      <search class="row">
        <label for="side">Latents of</label>
        <select
          id="side"
          value={side}
          onChange={({ currentTarget }) =>
            change(() => {
              setSide(currentTarget.value as Side);
              setKind("");
            })
          }
        >
          {SIDES.map((each) => (
            <option key={each} value={each}>
              {each.toUpperCase()}
            </option>
          ))}
        </select>
        <label for="class">Class</label>
        <select id="class" value={kind} onChange={({ currentTarget }) => change(() => setKind(currentTarget.value))}>
          <option value="">all</option>
          {CLASSES[side].map((each) => (
            <option key={each} value={each}>
              {each}
            </option>
          ))}
        </select>
        <label for="order">Order</label>
        <select
          id="order"
          value={order}
          onChange={({ currentTarget }) => change(() => setOrder(currentTarget.value as Order))}
        >
          {ORDERS.map((each) => (
            <option key={each} value={each}>
              {each === "number" ? "by number" : `${each} ${measure} first`}
            </option>
          ))}
        </select>
        <label for="search">Search</label>
        <input
          id="search"
          type="search"
          autocomplete="off"
          placeholder="words, names, or a number"
          value={search}
          onInput={({ currentTarget }) => change(() => setSearch(currentTarget.value))}
        />
      </search>
      <p class="found" role="status">
        {counted(found.length, "latent")}
      </p>
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: a wide table is scrolled by keys, too */}
      <section class="wide" tabIndex={0} aria-label="Latents and their best">
        <table class="pairs">
          <thead>
            <tr>
              <th scope="col">{side.toUpperCase()}</th>
              <th scope="col">best of {other.toUpperCase()}</th>
              <th scope="col">{measure}</th>
              {otherMeasure && <th scope="col">best {otherMeasure}</th>}
              <th scope="col">class</th>
            </tr>
          </thead>
          <tbody>
            {found.slice(page * PER_PAGE, (page + 1) * PER_PAGE).map((latent) => {
              const best = column.best[latent]!;
              return (
                <tr key={latent}>
                  <th scope="row">
                    <Called latent={latent} of={names[side][latent]} />
                  </th>
                  <td>{column.value[latent]! > 0 ? <Called latent={best} of={names[other][best]} /> : "none"}</td>
                  <td>{figure(column.value[latent]!)}</td>
                  {otherMeasure && <td>{figure(comparison[side].by[otherMeasure]!.value[latent]!)}</td>}
                  <td>{CLASSES[side][column.class[latent]!]}</td>
                </tr>
              );
            })}
          </tbody>
        </table>
      </section>
      {pages > 1 && (
        <nav class="row" aria-label="Pages of latents">
          <button type="button" disabled={page === 0} onClick={() => setPage(page - 1)}>
            Previous
          </button>
          <span>
            page {count(page + 1)} of {count(pages)}
          </span>
          <button type="button" disabled={page + 1 >= pages} onClick={() => setPage(page + 1)}>
            Next
          </button>
        </nav>
      )}
    </section>
  );
}

function Called({ latent, of }: { readonly latent: number; readonly of: LatentName | undefined }) {
  return (
    <>
      <span class="number">{latent}</span> <Name name={of?.name} />
      <Tokens texts={of?.on.slice(0, 4) ?? []} />
    </>
  );
}

function Definitions({ least, hasRows }: { readonly least: number; readonly hasRows: boolean }) {
  return (
    <section aria-labelledby="definitions">
      <h2 id="definitions">What the words mean</h2>
      <dl class="about">
        <div>
          <dt>least value</dt>
          <dd>{least}</dd>
        </div>
        {Object.entries(COMPARISON_DEFINITIONS)
          .filter(([name]) => hasRows || name !== "correlation")
          .map(([name, meaning]) => (
            <div key={name}>
              <dt>{name}</dt>
              <dd>{meaning}</dd>
            </div>
          ))}
      </dl>
    </section>
  );
}
