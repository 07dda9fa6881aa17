/**
 * An SVG of lines, both axes logarithmic: { title, lines: [{ name, points: [[x, y]] }], x, y }, an
 * axis being { title, ticks }. What is outside the ticks is left out. `dots`: points are marked.
 * `legend`: width of the names.
 */
export function drawLines({ title, lines, x, y, dots = false, legend = 240 }) {
  const [width, height, left, top, right, bottom] = [520 + legend, 420, 64, 20, legend, 48];
  const scale = ({ ticks }, from, to) => {
    const [low, high] = [Math.log(ticks[0] * 0.95), Math.log(ticks.at(-1) * 1.05)];
    return (value) => from + ((Math.log(value) - low) / (high - low)) * (to - from);
  };
  const [atX, atY] = [scale(x, left, width - right), scale(y, height - bottom, top)];
  const within = ([a, b]) => a >= x.ticks[0] * 0.95 && a <= x.ticks.at(-1) * 1.05 && b <= y.ticks.at(-1) * 1.05;
  const text = (a, b, words, more = "") => `<text x="${a.toFixed(1)}" y="${b.toFixed(1)}" ${more}>${words}</text>`;
  const rule = (a, b, c, d) =>
    `<line x1="${a.toFixed(1)}" y1="${b.toFixed(1)}" x2="${c.toFixed(1)}" y2="${d.toFixed(1)}" stroke="#ddd"/>`;
  const parts = [
    ...x.ticks.flatMap((tick) => [
      rule(atX(tick), top, atX(tick), height - bottom),
      text(atX(tick), height - bottom + 18, tick, 'text-anchor="middle"'),
    ]),
    ...y.ticks.flatMap((tick) => [
      rule(left, atY(tick), width - right, atY(tick)),
      text(left - 8, atY(tick) + 4, tick, 'text-anchor="end"'),
    ]),
    text((left + width - right) / 2, height - 10, x.title, 'text-anchor="middle"'),
    text(
      14,
      (top + height - bottom) / 2,
      y.title,
      `text-anchor="middle" transform="rotate(-90 14 ${(top + height - bottom) / 2})"`,
    ),
  ];
  for (const [i, { name, points }] of lines.entries()) {
    const colour = `hsl(${(360 * i) / lines.length} 60% 45%)`;
    const shown = points.filter(within).map(([a, b]) => `${atX(a).toFixed(1)},${atY(b).toFixed(1)}`);
    parts.push(`<polyline points="${shown.join(" ")}" fill="none" stroke="${colour}" stroke-width="1.5"/>`);
    for (const [cx, cy] of dots ? shown.map((at) => at.split(",")) : [])
      parts.push(`<circle cx="${cx}" cy="${cy}" r="4" fill="${colour}"/>`);
    const at = top + 12 + 20 * i;
    parts.push(`<rect x="${width - right + 16}" y="${at - 8}" width="10" height="3" fill="${colour}"/>`);
    parts.push(text(width - right + 32, at - 2, name, 'font-size="11"'));
  }
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" font-family="system-ui, sans-serif" font-size="13" fill="#333">
<title>${title}</title>
<rect width="${width}" height="${height}" fill="#fff"/>
${parts.join("\n")}
</svg>
`;
}
