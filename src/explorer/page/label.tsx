/** The name and note of a latent: shown, and changed where a server keeps them. */

import { useEffect, useRef, useState } from "preact/hooks";
import { type Label, MOST_NAME, MOST_NOTE, NO_LABEL, SCORINGS } from "../shared/labels.ts";
import type { ExplorerSource, Latent } from "../shared/source.ts";
import { percent, visible } from "./words.ts";

/** A name in front of other words; nothing where there is none. */
export function Name({ name = "" }: { readonly name?: string | undefined }) {
  if (name === "") return null;
  return (
    <>
      <span class="name">{visible(name)}</span>{" "}
    </>
  );
}

interface Shown {
  readonly latent: Latent;
  readonly relabel: ExplorerSource["relabel"];
  readonly onLabel: (latent: number, label: Label) => void;
}

export function LabelView({ latent, relabel, onLabel }: Shown) {
  const label = latent.label ?? NO_LABEL;
  const [isOpen, open] = useState(false);
  if (isOpen && relabel !== undefined) {
    return (
      <LabelForm
        label={label}
        save={async (name, note) => {
          // What was not touched here may have been changed elsewhere meanwhile.
          const change = { ...(name !== label.name && { name }), ...(note !== label.note && { note }) };
          if (Object.keys(change).length > 0) onLabel(latent.latent, await relabel(latent.latent, change));
          open(false);
        }}
        close={() => open(false)}
      />
    );
  }
  if (label.name === "" && label.note === "" && relabel === undefined) return null;
  return (
    <div class="label">
      <p class="line">
        <Name name={label.name} />
        {relabel !== undefined && (
          <button type="button" onClick={() => open(true)}>
            {label.name === "" && label.note === "" ? "Name it" : "Edit"}
          </button>
        )}
      </p>
      {label.note !== "" && <p class="noted">{linesOf(label.note)}</p>}
      <Scores label={label} />
    </div>
  );
}

function linesOf(note: string) {
  return note.split("\n").map((line, i) => (
    <span key={i}>
      {i > 0 && <br />}
      {visible(line)}
    </span>
  ));
}

function Scores({ label: { scores } }: { readonly label: Label }) {
  const known = SCORINGS.flatMap((scoring) => {
    const score = scores?.[scoring];
    return score === undefined ? [] : [`${scoring} ${percent(score.accuracy)}`];
  });
  if (known.length === 0) return null;
  return <p class="note">Balanced accuracy of a reader that has only the name: {known.join(", ")}; 50 % is chance.</p>;
}

interface Form {
  readonly label: Label;
  readonly save: (name: string, note: string) => Promise<void>;
  readonly close: () => void;
}

function LabelForm({ label, save, close }: Form) {
  const [name, setName] = useState(label.name);
  const [note, setNote] = useState(label.note);
  const first = useRef<HTMLInputElement>(null);
  useEffect(() => first.current?.focus(), []);
  const [state, setState] = useState<"open" | "saving" | { readonly failed: string }>("open");
  const submit = (event: SubmitEvent) => {
    event.preventDefault();
    setState("saving");
    save(name, note).catch((thrown: unknown) =>
      setState({ failed: thrown instanceof Error ? thrown.message : String(thrown) }),
    );
  };
  return (
    <form class="label" onSubmit={submit} onKeyDown={({ key }) => key === "Escape" && close()}>
      <label>
        Name
        <input
          type="text"
          maxLength={MOST_NAME}
          autocomplete="off"
          value={name}
          ref={first}
          onInput={({ currentTarget }) => setName(currentTarget.value)}
        />
      </label>
      <label>
        Note
        <textarea
          maxLength={MOST_NOTE}
          rows={3}
          value={note}
          onInput={({ currentTarget }) => setNote(currentTarget.value)}
        />
      </label>
      <p class="line">
        <button type="submit" disabled={state === "saving"}>
          Save
        </button>
        <button type="button" onClick={close}>
          Cancel
        </button>
        {typeof state === "object" && <span role="alert">{state.failed}</span>}
      </p>
    </form>
  );
}
