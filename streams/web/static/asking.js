// Asks the API, with the key of this tab where there is one.
const KEY = "sluice-read-key";

export const key = () => sessionStorage.getItem(KEY);
export const keep = (value) => sessionStorage.setItem(KEY, value.trim());

/** The JSON that the API answers; an error carries its status and what the API says about it. */
export async function ask(path, options = {}) {
  const headers = { ...(key() ? { Authorization: `Bearer ${key()}` } : {}), ...(options.body ? { "Content-Type": "application/json" } : {}) };
  const answer = await fetch(path, { ...options, headers, signal: AbortSignal.timeout(10_000) });
  const body = await answer.json();
  if (!answer.ok) throw Object.assign(new Error(body.detail ?? answer.statusText), { status: answer.status });
  return body;
}
