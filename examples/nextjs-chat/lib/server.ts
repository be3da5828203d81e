// The openai-compat server: its address, its models, and messages for its errors.

import { authorization } from "./apiKey";

export const SERVER = (process.env.NEXT_PUBLIC_API_URL || "http://localhost:8000").replace(/\/+$/, "");

const MAX_DESCRIBED = 20; // models; of a longer list, all are shown
const DESCRIBE_TIMEOUT = 3000; // milliseconds

/** An error response of the server, with OpenAI's code of the error. */
export class ServerError extends Error {
  readonly status: number;
  readonly code: string | null;

  constructor(status: number, code: string | null, message: string) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

const MAX_KEEPALIVE = 60_000; // bytes; browsers permit 64 KiB at once

interface Call {
  method?: "POST" | "DELETE";
  body?: unknown;
  keepalive?: boolean;
  signal?: AbortSignal;
}

/** Call the server's API and return the JSON of its answer. With `keepalive` a short body outlives the page. */
export async function callServer<T>(path: string, { body, keepalive = false, ...options }: Call): Promise<T> {
  const json = body === undefined ? undefined : JSON.stringify(body);
  const response = await fetch(`${SERVER}/v1/${path}`, {
    ...options,
    body: json,
    keepalive: keepalive && new Blob([json ?? ""]).size <= MAX_KEEPALIVE,
    headers: { ...authorization(), ...(json && { "Content-Type": "application/json" }) },
  });
  if (response.ok) return response.json();
  const { error } = await response.json().catch(() => ({ error: null }));
  const message = error?.message ?? `The server returned status ${response.status}.`;
  throw new ServerError(response.status, error?.code ?? null, message);
}

/** The server requires an API key, or rejected this one. */
export class KeyNeeded extends Error {}

/** Return the names of the models that support chat, in the server's order. */
export async function fetchModels(signal: AbortSignal): Promise<string[]> {
  const response = await fetch(`${SERVER}/v1/models`, { headers: authorization(), signal });
  if (response.status === 401) throw new KeyNeeded();
  if (!response.ok) throw new Error(`The server returned status ${response.status} instead of its models.`);
  const { data } = (await response.json()) as { data: { id: string }[] };
  const names = data.map((model) => model.id);
  if (names.length > MAX_DESCRIBED) return names;
  const supportChat = await Promise.all(names.map((name) => canChat(name, signal)));
  return names.filter((_, index) => supportChat[index]);
}

/** Return false for a model that is known not to support chat, such as an embedding model. */
async function canChat(name: string, signal: AbortSignal): Promise<boolean> {
  const url = `${SERVER}/v1/models/${name.split("/").map(encodeURIComponent).join("/")}`;
  const limited = AbortSignal.any([signal, AbortSignal.timeout(DESCRIBE_TIMEOUT)]);
  try {
    const { capabilities } = await (await fetch(url, { headers: authorization(), signal: limited })).json();
    return capabilities?.includes("chat") ?? true;
  } catch {
    return true;
  }
}

/**
 * Return a message for the user. The server sends one in the stream, or as `content` in the JSON of an error response.
 * Other errors come from the network.
 */
export function toSentence(error: Error): string {
  if (error.name === "TimeoutError") return `The server at ${SERVER} did not respond in time.`;
  if (error instanceof TypeError) {
    return error.message.toLowerCase().includes("fetch") || error.message === "Load failed"
      ? `The server at ${SERVER} cannot be reached.`
      : "The connection broke before the answer was complete.";
  }
  try {
    return JSON.parse(error.message).content ?? error.message;
  } catch {
    return error.message;
  }
}
