/** On which tokens each latent fires: the heaviest of each, in bounded memory and one pass. */

/** A latent's use of one token. `energy` (sum of squared values) and `firings` are of this token at least; exact while a latent fires on no more than SLOTS tokens. */
export interface CountedToken {
  readonly token: number;
  readonly firings: number;
  readonly energy: number;
}

/** Tokens kept a latent. */
const SLOTS = 48;

/**
 * Space-Saving (Metwally, Agrawal, El Abbadi 2005) for each latent, weighted by energy: a token that is not among those kept takes the place of the lightest and inherits its
 * weight as a possible error. Every token with more than 1/SLOTS of a latent's energy is kept. 20 bytes a slot.
 */
export class TokenUses {
  readonly #used: Uint8Array;
  readonly #token: Int32Array;
  readonly #firings: Uint32Array;
  readonly #weight: Float64Array;
  readonly #error: Float32Array;

  constructor(latents: number) {
    this.#used = new Uint8Array(latents);
    this.#token = new Int32Array(latents * SLOTS);
    this.#firings = new Uint32Array(latents * SLOTS);
    this.#weight = new Float64Array(latents * SLOTS);
    this.#error = new Float32Array(latents * SLOTS);
  }

  add(latent: number, token: number, energy: number): void {
    const base = latent * SLOTS;
    const used = this.#used[latent];
    const tokens = this.#token;
    for (let slot = base; slot < base + used; slot++) {
      if (tokens[slot] !== token) continue;
      this.#firings[slot]++;
      this.#weight[slot] += energy;
      return;
    }
    if (used < SLOTS) {
      this.#used[latent] = used + 1;
      this.#put(base + used, token, energy, 0);
      return;
    }
    let lightest = base;
    for (let slot = base + 1; slot < base + SLOTS; slot++)
      if (this.#weight[slot] < this.#weight[lightest]) lightest = slot;
    this.#put(lightest, token, energy, this.#weight[lightest]);
  }

  /** The tokens of a latent, the heaviest first; those of which nothing is certain are left out. */
  of(latent: number): CountedToken[] {
    const found: CountedToken[] = [];
    for (let slot = latent * SLOTS; slot < latent * SLOTS + this.#used[latent]; slot++) {
      const energy = this.#weight[slot] - this.#error[slot];
      if (energy > 0) found.push({ token: this.#token[slot], firings: this.#firings[slot], energy });
    }
    return found.sort((a, b) => b.energy - a.energy || a.token - b.token);
  }

  #put(slot: number, token: number, energy: number, inherited: number): void {
    this.#token[slot] = token;
    this.#firings[slot] = 1;
    this.#weight[slot] = inherited + energy;
    this.#error[slot] = inherited;
  }
}
