/**
 * The C++ and CUDA headers of the contracts: enums, constants, structs and what each function or
 * kernel takes.
 */

import { type Contract, type Fields, sizeOfStruct } from "./layout.ts";

/**
 * `source`: the file that the header is made from. `open`, `close`: lines before and after the
 * contract's own; `after`: more.
 */
export interface HeaderParts {
  readonly source: string;
  readonly contract: Contract;
  readonly open: readonly string[];
  readonly after: readonly string[];
}

export function headerOf({ source, contract, open, after }: HeaderParts): string {
  const lines = [
    `// Made from ${source} by npm run build. Change it there: what each field means is written there too.`,
    "",
    "#pragma once",
    "",
    ...open,
    ...Object.entries(contract.constants).map(([name, value]) => `constexpr ${constant(name, value)};`),
    "",
    ...Object.entries(contract.enums).map(
      ([name, { values, prefix = "", count }]) =>
        `enum ${name} : u32 { ${[...values.map((value) => prefix + upper(value)), ...(count ? [count] : [])].join(", ")} };`,
    ),
    ...Object.entries(contract.structs).flatMap(([name, fields]) => struct(name, fields, contract)),
    ...after,
  ];
  return `${lines.join("\n")}\n`;
}

/** "const float* x" for each field. */
export function parametersOf(fields: Fields): string {
  return Object.entries(fields)
    .map(([name, type]) => declaration(name, type))
    .join(", ");
}

function struct(name: string, fields: Fields, contract: Contract): readonly string[] {
  return [
    "",
    `struct ${name} {`,
    ...Object.entries(fields).map(([field, type]) => `  ${declaration(field, type)};`),
    "};",
    `static_assert(sizeof(${name}) == ${sizeOfStruct(fields, contract)}, "");`,
  ];
}

function declaration(name: string, type: string): string {
  const array = /^(.*)(\[\d+\])$/.exec(type);
  return array === null ? `${type} ${name}` : `${array[1]} ${name}${array[2]}`;
}

function constant(name: string, value: number): string {
  if (Number.isInteger(value) && value >= 0 && value < 2 ** 32) return `u32 ${name} = ${value}u`;
  const text = String(value);
  return `double ${name} = ${/[.e]/.test(text) ? text : `${text}.0`}`;
}

/** "auxErr2" is AUX_ERR2 there. */
function upper(name: string): string {
  return name.replace(/([a-z\d])([A-Z])/g, "$1_$2").toUpperCase();
}
