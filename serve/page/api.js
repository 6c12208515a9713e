/** Requests to the server: errors with one line, the API key, and patience with a busy server. */

const KEY = "sed-trt-key";
// How often a request that the server is too busy for is sent again.
const RETRIES = 3;

/** What a request failed with: `status` is 0 where the server could not be reached. */
export class RequestError extends Error {
  constructor(message, status, retryAfter = 1) {
    super(message);
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

/** Keep the API key until the tab is closed. */
export function setKey(key) {
  sessionStorage.setItem(KEY, key);
}

/**
 * Send a request and return its response; anything but success is thrown as a RequestError.
 * @param {string} path relative to the page, so that the server may lie below any address
 * @param {RequestInit} options those of fetch; an abort of its signal is thrown as it is
 */
export async function request(path, options = {}) {
  const headers = new Headers(options.headers);
  const key = sessionStorage.getItem(KEY);
  if (key) headers.set("X-API-Key", key);
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new RequestError("The server cannot be reached; check that it runs, then try again.", 0);
  }
  if (!response.ok) {
    const seconds = Number(response.headers.get("Retry-After") ?? 1);
    throw new RequestError(await errorLine(response), response.status, seconds || 0);
  }
  return response;
}

async function errorLine(response) {
  try {
    const { error } = await response.json();
    if (error) return error;
  } catch {
    // A proxy in between answers in its own words.
  }
  return `The server answered ${response.status} ${response.statusText}`.trim() + ".";
}

/** The JSON that the server answers to GET. */
export async function getJson(path) {
  return (await request(path)).json();
}

/** The JSON that the server answers to a JSON body. */
export async function postJson(path, content, signal) {
  const headers = { "Content-Type": "application/json" };
  const response = await request(path, { method: "POST", body: JSON.stringify(content), headers, signal });
  return response.json();
}

/**
 * The result of `send`, which is called again after a while as long as the server is too busy for it.
 * @param {() => Promise} send
 * @param {AbortSignal} signal ends the waiting
 * @param {(seconds: number) => void} waiting told how long the next wait is
 */
export async function patiently(send, signal, waiting) {
  for (let attempt = 0; ; attempt += 1) {
    try {
      return await send();
    } catch (error) {
      if (error.status !== 429 || attempt === RETRIES) throw error;
      waiting(error.retryAfter);
      await pause(1000 * error.retryAfter, signal);
    }
  }
}

function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    signal.throwIfAborted();
    const timer = setTimeout(resolve, milliseconds);
    const stop = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    signal.addEventListener("abort", stop, { once: true });
  });
}
