// Talks with the service: keys, waiting when it is busy, and its sentences when it refuses.

const TRIES = 5;
const LONGEST = 15; // seconds between two tries
const KEPT = "metaformer-key";

/** No answer. `again` says whether the same may be answered later; `request` is the id under which the service logged it. */
export class Refused extends Error {
  constructor(message, { status = 0, code = null, request = null, again = false, after = null } = {}) {
    super(message);
    Object.assign(this, { status, code, request, again, after });
  }
}

let askForKey = async () => null;
let asking = null;

/** What asks the user for a key: a function of whether the last one was wrong, to a promise of a key or null. */
export const setKeyAsker = (asker) => {
  askForKey = asker;
};

export const address = (path, options = {}) => {
  const url = new URL(path, document.baseURI);
  for (const [name, value] of Object.entries(options)) if (value !== null) url.searchParams.set(name, value);
  return url;
};

/**
 * JSON of a path and the request's id. While the service is busy it is tried again: `waiting({ seconds, attempt, of, code })`
 * is told of a pause and why, `waiting(null)` of its end.
 */
export async function ask(path, { options = {}, body = null, signal = null, waiting = () => {} } = {}) {
  for (let attempt = 1; ; attempt++) {
    try {
      return await withKey(() => once(address(path, options), body, signal));
    } catch (error) {
      if (!(error instanceof Refused) || !error.again || error.status !== 503 || attempt === TRIES) throw error;
      const pause = Math.min(error.after ?? 2 ** (attempt - 1), LONGEST);
      waiting({ seconds: pause, attempt: attempt + 1, of: TRIES, code: error.code });
      await sleep(pause, signal);
      waiting(null);
    }
  }
}

/** Asks for a key as often as one is wanted; several who need it at a time share one question. */
async function withKey(request) {
  for (let wrong = sessionStorage.getItem(KEPT) !== null; ; wrong = true) {
    const used = sessionStorage.getItem(KEPT);
    try {
      return await request();
    } catch (error) {
      if (!(error instanceof Refused) || error.status !== 401) throw error;
      if (used !== sessionStorage.getItem(KEPT)) continue; // another request brought a key meanwhile
      asking ??= askForKey(wrong).finally(() => (asking = null));
      const key = await asking;
      if (key === null) throw error;
      sessionStorage.setItem(KEPT, key);
    }
  }
}

async function once(url, body, signal) {
  const headers = { Accept: "application/json" };
  const key = sessionStorage.getItem(KEPT);
  if (key !== null) headers.Authorization = `Bearer ${key}`;
  let response;
  let told;
  try {
    response = await fetch(url, { method: body === null ? "GET" : "POST", body, headers, signal, cache: "no-store" });
    told = await response.json().catch((error) => {
      if (error.name === "AbortError") throw error;
      return null;
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused("The service cannot be reached. It may have stopped, or the connection is gone.", { again: true });
  }
  const request = response.headers.get("X-Request-ID") ?? told?.error?.request_id ?? null;
  if (response.ok && told !== null) return { told, request };
  const after = Number.parseFloat(response.headers.get("Retry-After"));
  throw new Refused(told?.error?.message ?? `The service answered ${response.status} without a reason.`, {
    status: response.status,
    code: told?.error?.code ?? null,
    request,
    again: response.status === 503 || response.status === 408,
    after: Number.isFinite(after) ? Math.max(0, after) : null,
  });
}

function sleep(seconds, signal) {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(new DOMException("cancelled", "AbortError"));
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      resolve();
    }, 1000 * seconds);
    if (signal?.aborted) stop();
    signal?.addEventListener("abort", stop, { once: true });
  });
}

/** A request's body of several files. */
export function form(files) {
  const body = new FormData();
  for (const { blob, name } of files) body.append("images", blob, name);
  return body;
}

/** The command that asks the same about a file. A key is left to a variable. */
export function curl(model, name, type, options, key) {
  const quoted = (text) => `'${text.replaceAll("'", `'\\''`)}'`;
  const file = /^[-<]/.test(name) ? `./${name}` : name;
  const parts = ["curl"];
  if (key) parts.push(`-H "Authorization: Bearer $METAFORMER_KEY"`);
  parts.push(`-H ${quoted(`Content-Type: ${/^image\/[\w.+-]+$/.test(type) ? type : "application/octet-stream"}`)}`);
  parts.push(`--data-binary ${quoted(`@${file}`)}`, quoted(address("predict", { model, ...options }).href));
  return parts.join(" \\\n  ");
}
