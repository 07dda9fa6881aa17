/** The options in which the shown runs differ; the others on demand. */

import { useState } from "preact/hooks";
import type { ShownRun } from "./chart-data.ts";
import { type ConfigRow, configRows, shownValue } from "./config-rows.ts";
import type { Model } from "./model.ts";
import { Swatch } from "./swatch.tsx";

export function Config({ model, runs }: { model: Model; runs: readonly Pick<ShownRun, "id" | "name" | "style">[] }) {
  const [all, setAll] = useState(false);
  const known = runs.filter(({ id }) => model.details.has(id));
  if (known.length === 0) return null;
  const rows = configRows(known.map(({ id }) => model.details.get(id)!));
  const different = rows.filter(({ differs }) => differs);
  const one = known.length === 1;
  const shown = all || one ? rows : different;
  return (
    <section class="config card" aria-labelledby="config-heading">
      <header>
        <h2 id="config-heading">{one ? "Options" : "Options in which they differ"}</h2>
        {!one && (
          <button type="button" class="small" aria-pressed={all} onClick={() => setAll(!all)}>
            all {rows.length}
          </button>
        )}
      </header>
      {shown.length === 0 ? (
        <p class="muted">None: they were started with the same options.</p>
      ) : one ? (
        <List rows={shown} />
      ) : (
        <Table rows={shown} runs={known} />
      )}
    </section>
  );
}

function List({ rows }: { rows: readonly ConfigRow[] }) {
  return (
    <dl class="options">
      {rows.map(({ name, values }) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>{shownValue(values[0]!)}</dd>
        </div>
      ))}
    </dl>
  );
}

function Table({
  rows,
  runs,
}: {
  rows: readonly ConfigRow[];
  runs: readonly Pick<ShownRun, "id" | "name" | "style">[];
}) {
  return (
    // biome-ignore lint/a11y/noNoninteractiveTabindex: a table that is too wide is scrolled by keys
    <section class="scroll" tabIndex={0} aria-label="options of the runs">
      <table>
        <thead>
          <tr>
            <th scope="col">option</th>
            {runs.map(({ id, name, style }) => (
              <th scope="col" key={id}>
                <Swatch style={style} /> {name}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {rows.map(({ name, values, differs }) => (
            <tr key={name} class={differs ? "differs" : ""}>
              <th scope="row">{name}</th>
              {values.map((value, i) => (
                <td key={runs[i]!.id}>{shownValue(value)}</td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  );
}
