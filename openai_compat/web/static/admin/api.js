// Client of the endpoints of this page. The session is in a cookie, which scripts cannot read.

const ROOT = new URL("admin/", document.baseURI).href;
let csrfToken = "";

export class APIError extends Error {
  constructor(status, error) {
    super(error?.message ?? `The server returned status ${status}.`);
    this.status = status;
    this.code = error?.code ?? error?.type ?? "";
  }
}

async function request(method, path, body, signal) {
  const headers = method === "GET" ? {} : { "x-csrf-token": csrfToken };
  if (body) headers["content-type"] = "application/json";
  return fetch(ROOT + path, { method, headers, body: body && JSON.stringify(body), signal, cache: "no-store" });
}

async function read(response) {
  const value = await response.json().catch(() => ({}));
  if (!response.ok) throw new APIError(response.status, value.error);
  return value;
}

/** Call an endpoint below /admin/api and return the JSON of its answer. A lost session shows the form to sign in. */
export async function call(method, path, { body, signal } = {}) {
  const response = await request(method, `api/${path}`, body, signal);
  if (response.status === 401) dispatchEvent(new Event("signed-out"));
  return read(response);
}

export const get = (path, signal) => call("GET", path, { signal });

/** Make a small call to a model. A status of its upstream says nothing about the session. */
export async function testModel(model, target) {
  const startedAt = performance.now();
  const body = target === model ? { model } : { model, target };
  const response = await request("POST", "api/models/test", body);
  const answer = await read(response);
  return {
    ms: performance.now() - startedAt,
    servedBy: response.headers.get("x-openai-compat-upstream"),
    text: answer.choices?.[0]?.message?.content ?? `${answer.data?.[0]?.embedding?.length ?? 0} dimensions`,
  };
}

async function keepSession(response) {
  const session = await read(response);
  csrfToken = session.csrf_token;
  return session;
}

export const openSession = async () => keepSession(await request("GET", "session"));
export const signIn = async (key) => keepSession(await request("POST", "session", { admin_api_key: key }));
export const signOut = async () => read(await request("DELETE", "session"));

/** Return the message of an error for the administrator. */
export function errorMessage(error) {
  if (error.name === "TimeoutError") return "The server did not respond in time.";
  if (error instanceof TypeError) return "The server cannot be reached.";
  return error.message;
}
