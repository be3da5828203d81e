// Client of the server's API.

export const ROOT = new URL("v1", document.baseURI).href;

const STORAGE_KEY = "openai-compat.key";

/** The user's API key. It is stored until the tab is closed. */
export const key = {
  read: () => sessionStorage.getItem(STORAGE_KEY) ?? "",
  store: (text) => sessionStorage.setItem(STORAGE_KEY, text),
  remove: () => sessionStorage.removeItem(STORAGE_KEY),
};

export class APIError extends Error {
  constructor(status, error) {
    super(error?.message ?? `The server returned status ${status}.`);
    this.status = status;
    this.code = error?.code;
  }
}

async function request(path, options = {}) {
  const authorization = key.read() && { authorization: `Bearer ${key.read()}` };
  const response = await fetch(`${ROOT}/${path}`, { ...options, headers: { ...options.headers, ...authorization } });
  if (response.ok) return response;
  const body = await response.json().catch(() => ({}));
  throw new APIError(response.status, body.error);
}

const MAX_KEEPALIVE = 60_000; // bytes; browsers permit 64 KiB at once

/** Call the API and return the JSON of its answer. With `keepalive` a short body outlives the page. */
export async function call(method, path, { body, keepalive = false, signal } = {}) {
  const json = body && JSON.stringify(body);
  const isShort = new Blob([json ?? ""]).size <= MAX_KEEPALIVE;
  const headers = json && { "content-type": "application/json" };
  return (await request(path, { method, body: json, headers, keepalive: keepalive && isShort, signal })).json();
}

export const listModels = async (signal) => (await (await request("models", { signal })).json()).data;

export const describeModel = async (id) =>
  (await request(`models/${id.split("/").map(encodeURIComponent).join("/")}`)).json();

/** Yield the text of a streamed answer. Throw an error if it is incomplete, which is an error event or no `[DONE]`. */
export async function* chat(model, messages, signal) {
  const response = await request("chat/completions", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ model, messages: messages.map(({ role, content }) => ({ role, content })), stream: true }),
    signal,
  });
  for await (const data of events(response.body)) {
    if (data === "[DONE]") return;
    const chunk = JSON.parse(data);
    if (chunk.error) throw new APIError(response.status, chunk.error);
    const delta = chunk.choices?.[0]?.delta ?? {};
    const text = (delta.content ?? "") + (delta.refusal ?? "");
    if (text) yield text;
  }
  throw new Error("The answer ended before it was complete.");
}

/** Yield the data of server-sent events, which this server always writes on one line. */
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (line.startsWith("data:")) yield line.slice(5).trim();
    }
  }
}

/** Return the message of an error for the user. */
export function errorMessage(error) {
  if (error.name === "TimeoutError") return "The server did not respond in time.";
  if (error instanceof TypeError) {
    return /network|load failed/i.test(error.message)
      ? "The connection was lost before the answer was complete."
      : "The server cannot be reached.";
  }
  return error.message;
}
