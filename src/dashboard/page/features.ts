/** Where the pages of learned features come in: what is mounted at /features/RUN. */

/** Fills the element with the features that `source` tells of. Returns what takes them away again. */
export type MountFeatures = (element: HTMLElement, api: string) => () => void;

/** Undefined: this build has none. `api`: the prefix of addresses to ask, "/api/features/RUN". */
export const mountFeatures: MountFeatures | undefined = undefined as MountFeatures | undefined;
