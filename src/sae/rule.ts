/**
 * Selection rules: which pre-activations become active latents. A rule is data. What it means is
 * its function in math.ts; every engine implements it, and conformance compares them.
 */

export type Rule =
  /**
   * The k highest of each row that are above 0, highest first, the lower latent first among equals.
   */
  | { readonly kind: "topk"; readonly k: number }
  /**
   * The `kept` (hyper) highest of the whole batch of all ranks that are above 0; among equals those
   * of the lower row, then of the lower latent. In a row as "topk". `k`: mean per row, may be
   * fractional.
   */
  | { readonly kind: "batchtopk"; readonly k: number }
  /**
   * Every latent whose pre-activation is above 0 and above the parameter: `threshold`, its own, or
   * `cut`, the same for all. In ascending order of latents.
   */
  | { readonly kind: "threshold"; readonly param: "threshold" | "cut" }
  /**
   * Every latent whose pre-activation is within half a bandwidth (hyper) of its `threshold`,
   * wherever 0 is. In ascending order of latents. Selected next to "threshold", for the gradient of
   * the thresholds.
   */
  | { readonly kind: "band" };

/** Rules of which a row may select more than its codes have room for; `bad` says so. */
export function mayOverflow(rule: Rule): boolean {
  return rule.kind !== "topk";
}

/**
 * Slots per row to start with, among `n` latents. Only "topk" can never need more; the others get
 * more when a row needs them.
 */
export function slotsFor(rule: Rule, n: number): number {
  switch (rule.kind) {
    case "topk":
      return Math.min(rule.k, n);
    case "batchtopk":
      return Math.min(n, Math.max(16, 2 ** Math.ceil(Math.log2(3 * rule.k))));
    default:
      return Math.min(n, 256);
  }
}
