// The openai-compat server: where it is, which models it has, and what its errors mean to a reader.

export const SERVER = (process.env.NEXT_PUBLIC_API_URL || "http://localhost:8000").replace(/\/+$/, "");

const KEY = "openai-compat.key";
const MOST_DESCRIBED = 20; // models; of a longer list, all are offered
const PATIENCE = 3000; // milliseconds for what is good to know of a model

/** The reader's API key, where the server asks for one. It is forgotten when the tab is closed. */
export const readKey = () => sessionStorage.getItem(KEY) ?? "";
export const keepKey = (key: string) => sessionStorage.setItem(KEY, key);

export function authorization(): Record<string, string> {
  const key = readKey();
  return key ? { Authorization: `Bearer ${key}` } : {};
}

/** The server wants a key, or another one. */
export class KeyNeeded extends Error {}

/** The names of the models that chat, as the server lists them. */
export async function fetchModels(signal: AbortSignal): Promise<string[]> {
  const response = await fetch(`${SERVER}/v1/models`, { headers: authorization(), signal });
  if (response.status === 401) throw new KeyNeeded();
  if (!response.ok) throw new Error(`The server returned status ${response.status} instead of its models.`);
  const { data } = (await response.json()) as { data: { id: string }[] };
  const names = data.map((model) => model.id);
  if (names.length > MOST_DESCRIBED) return names;
  const areFit = await Promise.all(names.map((name) => canChat(name, signal)));
  return names.filter((_, index) => areFit[index]);
}

/** False for a model that is known to do something else, such as embeddings. */
async function canChat(name: string, signal: AbortSignal): Promise<boolean> {
  const url = `${SERVER}/v1/models/${name.split("/").map(encodeURIComponent).join("/")}`;
  const patient = AbortSignal.any([signal, AbortSignal.timeout(PATIENCE)]);
  try {
    const { capabilities } = await (await fetch(url, { headers: authorization(), signal: patient })).json();
    return capabilities?.includes("chat") ?? true;
  } catch {
    return true;
  }
}

/**
 * An error as a sentence. The server says one in the stream, or in `content` of a refusal's JSON; everything else is the
 * network's.
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
