/**
 * More threads for reads of files than the four that libuv has by itself: two of them may wait for
 * a card. Imported before all else, for the first read fixes their number (where Node reads its
 * modules with the same threads, as Node 20 does, it is too late, and reads are somewhat slower).
 */
process.env.UV_THREADPOOL_SIZE ??= "16";
