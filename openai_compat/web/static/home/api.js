// The server's API, as this page uses it.

export const ROOT = new URL("v1", document.baseURI).href;

const KEY = "openai-compat.key";

/** The reader's key: in this tab, until it is closed. */
export const key = {
  read: () => sessionStorage.getItem(KEY) ?? "",
  keep: (text) => sessionStorage.setItem(KEY, text),
  forget: () => sessionStorage.removeItem(KEY),
};

export class APIError extends Error {
  constructor(status, error) {
    super(error?.message ?? `The server answered with status ${status}.`);
    this.status = status;
  }
}

async function call(path, options = {}) {
  const authorization = key.read() && { authorization: `Bearer ${key.read()}` };
  const response = await fetch(`${ROOT}/${path}`, { ...options, headers: { ...options.headers, ...authorization } });
  if (response.ok) return response;
  const body = await response.json().catch(() => ({}));
  throw new APIError(response.status, body.error);
}

export const listModels = async () => (await (await call("models")).json()).data;

export const describeModel = async (id) =>
  (await call(`models/${id.split("/").map(encodeURIComponent).join("/")}`)).json();

/** The pieces of an answer. Throws where it is not whole: after an error event, or an end without `[DONE]`. */
export async function* chat(model, messages, signal) {
  const response = await call("chat/completions", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ model, messages, stream: true }),
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
  throw new Error("The answer broke off before it was complete.");
}

/** The data of server-sent events; this server writes each on one line. */
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

/** An error as a sentence for the reader. */
export function sentence(error) {
  if (error instanceof TypeError) {
    return /network|load failed/i.test(error.message)
      ? "The connection broke before the answer was complete."
      : "The server cannot be reached.";
  }
  return error.message;
}
