/** Where the pages of learned features come in: what is mounted at /features/RUN. */

export { mountFeatures } from "../../explorer/page/mount.tsx";
