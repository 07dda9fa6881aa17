/** POSTs to the server of this page. */

export type Post = (address: string, body: unknown, signal?: AbortSignal) => Promise<Response>;

/**
 * Sends JSON with the token of the server, which is another when it was started again. Rejects
 * where the server takes no POST. `tokens`: where the server gives its token.
 */
export function poster(tokens = "/api/token"): Post {
  let token: string | undefined;
  const send = async (address: string, body: unknown, signal?: AbortSignal): Promise<Response> => {
    const isOld = token !== undefined;
    if (token === undefined) {
      const held = await fetch(tokens);
      if (!held.ok) throw new Error("This server changes nothing.");
      ({ token } = (await held.json()) as { readonly token: string });
    }
    const headers = { accept: "application/json", "content-type": "application/json", "x-saetta-token": token };
    const given = signal === undefined ? {} : { signal };
    const answer = await fetch(address, { method: "POST", headers, body: JSON.stringify(body), ...given });
    if (answer.status !== 403 || !isOld) return answer;
    token = undefined;
    return send(address, body, signal);
  };
  return send;
}
