/** A table in Markdown; columns from `numbers` on are aligned to the right. */
export function markdownTable(head: readonly string[], rows: readonly (readonly string[])[], numbers = 1): string {
  const line = (cells: readonly string[]) => `| ${cells.map((cell) => cell.replaceAll("|", "\\|")).join(" | ")} |`;
  return [line(head), line(head.map((_, i) => (i < numbers ? "---" : "---:"))), ...rows.map(line)].join("\n");
}
