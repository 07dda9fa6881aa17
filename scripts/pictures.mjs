// docs/images/*.svg: the computation graph, the way of the data, one step, shards and replicas.

const INK = "#1f2328";
const QUIET = "#59636e";
const MAIN = "#0969da";
const AUX = "#bc4c00";
const CUT = "#cf222e";
const FILLS = { plain: "#f6f8fa", main: "#ddf4ff", aux: "#fff1e5", weights: "#fbefff", wide: "#ffffff" };

const escaped = (text) => String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

/** A line of text around (x, y). */
const words = (x, y, text, { size = 14, fill = INK, anchor = "middle", bold = false } = {}) =>
  `<text x="${x}" y="${y}" font-size="${size}" fill="${fill}" text-anchor="${anchor}"${bold ? ' font-weight="600"' : ""}>${escaped(text)}</text>`;

/** A box with a title and lines below it. */
function box(x, y, width, height, title, lines = [], { fill = "plain", stroke = "#8c959f", dashed = false } = {}) {
  const top = y + height / 2 - lines.length * 8 + 5;
  return [
    `<rect x="${x}" y="${y}" width="${width}" height="${height}" rx="6" fill="${FILLS[fill]}" stroke="${stroke}"${dashed ? ' stroke-dasharray="5 4"' : ""}/>`,
    words(x + width / 2, top, title, { bold: true }),
    ...lines.map((line, i) => words(x + width / 2, top + 17 * (i + 1), line, { size: 12.5, fill: QUIET })),
  ].join("\n");
}

/** A number in a circle, as fonts lack those above 10. */
const circled = (x, y, number) =>
  `<circle cx="${x}" cy="${y}" r="10.5" fill="#ffffff" stroke="#8c959f"/>\n${words(x, y + 4.5, number, { size: 12 })}`;

/** A line through points (x, y, x, y, ...) with a head at its end. */
function arrow(points, { color = QUIET, width = 1.6, dashed = false } = {}) {
  const path = points.map((at, i) => (i % 2 === 0 ? `${i === 0 ? "M" : "L"}${at}` : at)).join(" ");
  const name = color.slice(1);
  return `<path d="${path}" fill="none" stroke="${color}" stroke-width="${width}"${dashed ? ' stroke-dasharray="5 4"' : ""} marker-end="url(#head-${name})"/>`;
}

function picture(width, height, title, parts) {
  const heads = [QUIET, MAIN, AUX, CUT].map(
    (color) =>
      `<marker id="head-${color.slice(1)}" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" orient="auto-start-reverse"><path d="M0 0L10 5L0 10z" fill="${color}"/></marker>`,
  );
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" font-family="system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif" role="img">
<title>${escaped(title)}</title>
<defs>${heads.join("")}</defs>
<rect width="${width}" height="${height}" rx="8" fill="#ffffff"/>
${parts.join("\n")}
</svg>
`;
}

/** The forward pass downwards, gradients upwards: blue of the main loss, orange of AuxK. */
function graph() {
  const [left, right, wide] = [250, 560, 190];
  const at = (row) => 66 + row * 84;
  const node = (x, row, number, title, lines, fill) =>
    `${box(x - wide / 2, at(row), wide, 52, title, lines, { fill })}
${circled(x - wide / 2 + 17, at(row) + 17, number)}`;
  const down = (x, row, rows = 1) => arrow([x - 12, at(row) + 52, x - 12, at(row + rows) - 2]);
  const up = (x, row, color, rows = 1) =>
    arrow([x + 12, at(row + rows) - 1, x + 12, at(row) + 54], { color, width: 2.2 });
  const weights = (row, title) => box(14, at(row) + 6, 104, 40, title, [], { fill: "weights" });
  const uses = (row) => arrow([118, at(row) + 26, left - wide / 2 - 2, at(row) + 26]);
  return picture(740, 860, "The computation graph", [
    words(370, 34, "values go down, gradients go up", { fill: QUIET }),
    arrow([40, 30, 76, 30], { color: MAIN, width: 2.2 }),
    words(82, 34, "main loss", { anchor: "start", fill: MAIN }),
    arrow([586, 30, 622, 30], { color: AUX, width: 2.2 }),
    words(628, 34, "auxiliary loss", { anchor: "start", fill: AUX }),
    node(left, 0, 1, "x", ["rows of the batch"]),
    node(left, 1, 2, "E1 centre", ["x − b_pre"]),
    node(left, 2, 3, "E2 encode", ["the one dense product"]),
    node(left, 3, 4, "E3 TopK", ["k per row"], "main"),
    node(left, 4, 5, "E4 decode", ["k columns of W_dec"], "main"),
    node(left, 5, 6, "E5 add the bias", ["x̂ = … + b_pre"], "main"),
    node(left, 6, 7, "E6 MSE", ["x̂ against x"], "main"),
    node(left, 7, 8, "E7 scale", ["× α"], "main"),
    node(right, 3, 9, "E8 AuxK", ["auxk of the dead latents"], "aux"),
    node(right, 4, 11, "E10 decode", ["no bias"], "aux"),
    box(right - wide / 2, at(5), wide, 52, "E9 residual", ["r = x − x̂, held fixed"], {
      fill: "plain",
      stroke: CUT,
      dashed: true,
    }),
    node(right, 6, 12, "E11 AuxK loss", ["r̂ against r"], "aux"),
    box(310, at(8), 190, 52, "E12 total loss", ["gradients start here"], { fill: "plain" }),
    circled(right - wide / 2 + 17, at(5) + 17, 10),
    circled(327, at(8) + 17, 13),
    circled(327, at(8) + 38, 14),
    ...[0, 1, 2, 3, 4, 5, 6].map((row) => down(left, row)),
    ...[1, 2, 3, 4, 5, 6].map((row) => up(left, row, MAIN)),
    // From the encoder to the dead latents, and back.
    arrow([left + wide / 2, at(2) + 18, right - 12, at(2) + 18, right - 12, at(3) - 2]),
    arrow([right + 12, at(3) - 1, right + 12, at(2) + 34, left + wide / 2 + 2, at(2) + 34], { color: AUX, width: 2.2 }),
    arrow([left + 26, at(2) - 1, left + 26, at(1) + 54], { color: AUX, width: 2.2 }),
    down(right, 3),
    up(right, 3, AUX),
    // The auxiliary reconstruction goes past the residual.
    arrow([
      right + wide / 2,
      at(4) + 26,
      right + wide / 2 + 36,
      at(4) + 26,
      right + wide / 2 + 36,
      at(6) + 18,
      right + wide / 2 + 2,
      at(6) + 18,
    ]),
    arrow(
      [
        right + wide / 2,
        at(6) + 34,
        right + wide / 2 + 56,
        at(6) + 34,
        right + wide / 2 + 56,
        at(4) + 10,
        right + wide / 2 + 2,
        at(4) + 10,
      ],
      { color: AUX, width: 2.2 },
    ),
    // The residual: values pass, gradients do not.
    arrow([left + wide / 2, at(5) + 26, right - wide / 2 - 2, at(5) + 26]),
    down(right, 5),
    words(405, at(5) + 18, "no gradient", { size: 12.5, fill: CUT }),
    `<path d="M396 ${at(5) + 30}L412 ${at(5) + 44}M412 ${at(5) + 30}L396 ${at(5) + 44}" stroke="${CUT}" stroke-width="2.5"/>`,
    arrow([left - 12, at(7) + 52, left - 12, at(8) + 26, 308, at(8) + 26]),
    arrow([308, at(8) + 40, left + 12, at(8) + 40, left + 12, at(7) + 54], { color: MAIN, width: 2.2 }),
    arrow([right - 12, at(6) + 52, right - 12, at(8) + 26, 502, at(8) + 26]),
    arrow([502, at(8) + 40, right + 12, at(8) + 40, right + 12, at(6) + 54], { color: AUX, width: 2.2 }),
    weights(1, "b_pre"),
    uses(1),
    weights(2, "W_enc, b_lat"),
    uses(2),
    weights(4, "W_dec"),
    uses(4),
    weights(5, "b_pre"),
    uses(5),
    words(405, 812, "then the update:", { fill: QUIET }),
    ...["project, clip", "Adam", "decoder rows to norm 1"].flatMap((text, i) => [
      circled([200, 350, 442][i], 832, 15 + i),
      words([216, 366, 458][i], 837, text, { anchor: "start", fill: QUIET }),
    ]),
  ]);
}

/** From text or files to what an autoencoder is worth. */
function data() {
  const [gap, width, height] = [26, 150, 70];
  const left = (i) => 32 + i * (width + gap);
  const row = (y, boxes, fill) =>
    boxes.map(([title, line], i) => box(left(i), y, width, height, title, [line], { fill }));
  /** From each box of a row to the next. */
  const chain = (y) => [1, 2, 3, 4].map((i) => arrow([left(i) - gap, y + height / 2, left(i) - 2, y + height / 2]));
  /** From the end of one row to the beginning of the next. */
  const turn = (y) => {
    const [from, to] = [left(4) + width / 2, y + height + 38 + height / 2];
    return arrow([from, y + height, from, y + height + 19, 14, y + height + 19, 14, to, 30, to]);
  };
  const end = 236 + height;
  return picture(916, 372, "The way of the data", [
    ...row(
      20,
      [
        ["text and a model", "saetta harvest"],
        ["rows", "files, PyTorch, pipes"],
        ["source", "rows on demand"],
        ["order", "seed, epoch, position"],
        ["batches", "prefetched"],
      ],
      "main",
    ),
    ...chain(20),
    turn(20),
    ...row(
      128,
      [
        ["encode", "one dense product"],
        ["select", "codes: k per row"],
        ["decode", "residual, loss"],
        ["gradients", "sparse, not stored"],
        ["update", "clip, Adam, norm 1"],
      ],
      "aux",
    ),
    ...chain(128),
    turn(128),
    ...row(
      236,
      [
        ["run folder", "metrics, checkpoints"],
        ["dashboard", "saetta serve"],
        ["evaluation", "saetta eval"],
        ["explorer", "saetta report"],
        ["other programs", "saetta export, push"],
      ],
      "weights",
    ),
    ...[1, 2, 3, 4].map((i) =>
      arrow([
        left(0) + width / 2,
        end,
        left(0) + width / 2,
        end + 20,
        left(i) + width / 2,
        end + 20,
        left(i) + width / 2,
        end + 2,
      ]),
    ),
    words(458, 356, "everything after the selection is sparse", { fill: QUIET }),
  ]);
}

/** The matrices of one step, and what of them is touched. */
function step() {
  const cells = (x, y, columns, rows, size, on) => {
    const parts = [
      `<rect x="${x}" y="${y}" width="${columns * size}" height="${rows * size}" fill="${FILLS.wide}" stroke="#8c959f"/>`,
    ];
    for (const [column, r, color] of on)
      parts.push(
        `<rect x="${x + column * size}" y="${y + r * size}" width="${size}" height="${size}" fill="${color}"/>`,
      );
    return parts.join("\n");
  };
  const filled = (columns, rows, color) =>
    Array.from({ length: columns * rows }, (_, i) => [i % columns, Math.floor(i / columns), color]);
  // Which of 24 latents each of 6 rows has on.
  const codes = [
    [2, 9, 17],
    [5, 9, 21],
    [2, 13, 20],
    [7, 9, 17],
    [0, 13, 21],
    [5, 17, 22],
  ];
  const on = codes.flatMap((latents, r) => latents.map((latent) => [latent, r, MAIN]));
  const used = [...new Set(codes.flat())].toSorted((a, b) => a - b);
  return picture(900, 380, "One step: a dense product, lists, rows", [
    words(118, 34, "rows x W_enc", { bold: true }),
    words(118, 54, "dense: every latent", { size: 12.5, fill: QUIET }),
    cells(38, 74, 8, 6, 20, filled(8, 6, "#b6e3ff")),
    words(118, 216, "[B, d] × [d, n]", { size: 12.5, fill: QUIET }),
    arrow([206, 134, 246, 134]),
    words(402, 34, "codes", { bold: true }),
    words(402, 54, "k per row, selected as the product is made", { size: 12.5, fill: QUIET }),
    cells(254, 74, 24, 6, 12.5, on),
    words(402, 174, "[B, n], of which k B are on", { size: 12.5, fill: QUIET }),
    arrow([562, 110, 602, 110]),
    words(740, 34, "decode", { bold: true }),
    words(740, 54, "reads k rows of W_dec per row", { size: 12.5, fill: QUIET }),
    cells(612, 74, 20, 6, 12.5, filled(20, 6, "#ddf4ff")),
    words(740, 174, "x̂ [B, d], residual, loss", { size: 12.5, fill: QUIET }),
    arrow([740, 186, 740, 226]),
    words(740, 250, "gradient of each code", { bold: true }),
    words(740, 270, "decoder row · residual", { size: 12.5, fill: QUIET }),
    arrow([640, 256, 584, 256]),
    words(402, 232, "lists per latent", { bold: true }),
    words(402, 252, "codes turned round: which rows have it on", { size: 12.5, fill: QUIET }),
    ...used.slice(0, 6).map((latent, i) => {
      const rows = codes.flatMap((latents, r) => (latents.includes(latent) ? [r] : []));
      const y = 270 + i * 16;
      return [
        words(330, y + 11, `latent ${latent}`, { size: 12, anchor: "end" }),
        ...rows.map(
          (r, at) =>
            `<rect x="${340 + at * 34}" y="${y}" width="30" height="13" rx="3" fill="#fff1e5" stroke="${AUX}"/>\n${words(355 + at * 34, y + 10.5, `row ${r}`, { size: 9.5 })}`,
        ),
      ].join("\n");
    }),
    arrow([246, 300, 206, 300]),
    words(118, 250, "update", { bold: true }),
    words(118, 270, "one gradient row at a time:", { size: 12.5, fill: QUIET }),
    words(118, 288, "form, project, clip, Adam, norm 1", { size: 12.5, fill: QUIET }),
    cells(38, 304, 8, 3, 20, filled(8, 3, "#fff1e5")),
  ]);
}

/** A grid of two replicas and two shards. */
function grid() {
  const rank = (replica, shard) => {
    const [x, y] = [190 + shard * 300, 96 + replica * 150];
    return box(
      x,
      y,
      220,
      92,
      `rank ${replica * 2 + shard}`,
      [
        replica === 0 ? "first half of the batch" : "second half of the batch",
        shard === 0 ? "latents 0 to n/2 − 1" : "latents n/2 to n − 1",
        "their weights and moments",
      ],
      { fill: shard === 0 ? "main" : "aux" },
    );
  };
  const both = (from, to, color) =>
    `${arrow([...from, ...to], { color, width: 2.2 })}\n${arrow([...to, ...from], { color, width: 2.2 })}`;
  return picture(740, 430, "Shards and replicas", [
    words(300, 40, "shard 0", { bold: true }),
    words(600, 40, "shard 1", { bold: true }),
    words(450, 70, "shards share the latents", { fill: QUIET }),
    words(92, 136, "replica 0", { bold: true }),
    words(92, 286, "replica 1", { bold: true }),
    words(92, 205, "replicas share", { fill: QUIET }),
    words(92, 223, "the rows", { fill: QUIET }),
    rank(0, 0),
    rank(0, 1),
    rank(1, 0),
    rank(1, 1),
    both([412, 142], [488, 142], MAIN),
    both([412, 292], [488, 292], MAIN),
    both([300, 190], [300, 244], AUX),
    both([600, 190], [600, 244], AUX),
    words(370, 376, "across shards: values of the top k, then the sum of the partial reconstructions", { fill: MAIN }),
    words(370, 402, "across replicas: sums of the losses, which latents fired, gradients or rows of weights", {
      fill: AUX,
    }),
  ]);
}

/** Name of the file -> its text. */
export const PICTURES = { "graph.svg": graph(), "data.svg": data(), "step.svg": step(), "grid.svg": grid() };
