/**
 * Selection rules: which pre-activations of a row become active latents. A rule is data. What it
 * means is its function in math.ts; every engine implements it, and conformance compares them.
 *
 * Whatever the rule, a latent that is not above 0 is off, and among equal values the lower latent
 * comes first.
 */

export type Rule =
  /** The k highest of each row. */
  | { readonly kind: "topk"; readonly k: number }
  /**
   * Every latent whose pre-activation is above its own threshold (parameter `threshold`; plain
   * ReLU: zeros).
   */
  | { readonly kind: "threshold" };

/** Slots per row that hold everything the rule may select among `n` latents. */
export function slotsFor(rule: Rule, n: number): number {
  return rule.kind === "topk" ? Math.min(rule.k, n) : n;
}
