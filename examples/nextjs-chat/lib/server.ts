// The openai-compat server: its address, its models, and messages for its errors.

export const SERVER = (process.env.NEXT_PUBLIC_API_URL || "http://localhost:8000").replace(/\/+$/, "");

const KEY = "openai-compat.key";
const MAX_DESCRIBED = 20; // models; of a longer list, all are shown
const DESCRIBE_TIMEOUT = 3000; // milliseconds

/** The user's API key, if the server requires one. It is deleted when the tab is closed. */
export const readKey = () => sessionStorage.getItem(KEY) ?? "";
export const keepKey = (key: string) => sessionStorage.setItem(KEY, key);

export function authorization(): Record<string, string> {
  const key = readKey();
  return key ? { Authorization: `Bearer ${key}` } : {};
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
