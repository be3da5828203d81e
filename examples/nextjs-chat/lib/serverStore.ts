// Conversations on the server, by its conversations API. They belong to the user's API key.

import { type Item, toItems, toMessages } from "./items";
import { type Conversation, type Store, titleOf } from "./messages";
import { callServer, ServerError } from "./server";
import { forget, remember, unstoredIn } from "./unstored";

export const PREFIX = "conv_"; // of the ids of conversations on the server

const TIMEOUT = 10_000; // milliseconds
const PAGE_SIZE = 100; // entries, the server's maximum

interface Page<T> {
  data: T[];
  last_id: string | null;
  has_more: boolean;
}

interface ServerConversation {
  id: string;
  created_at: number;
  metadata: { title?: string; first_item?: string };
}

export interface List {
  conversations: Conversation[];
  hasMore: boolean;
}

/**
 * Return at least `count` conversations, the newest first, or null if the server stores none for its callers.
 * (404: an older server, 501: they are passed through to an upstream, 503: the database is away.)
 */
export async function listConversations(count: number, signal: AbortSignal): Promise<List | null> {
  try {
    const { entries, hasMore } = await readPages<ServerConversation>("conversations?order=desc", count, signal);
    return { conversations: entries.map(toConversation), hasMore };
  } catch (error) {
    if (error instanceof ServerError && [404, 501, 503].includes(error.status)) return null;
    throw error;
  }
}

/** Read pages of a list until it ends, or until there are `count` entries. */
async function readPages<T>(path: string, count: number, signal: AbortSignal) {
  const entries: T[] = [];
  let after = "";
  for (;;) {
    const page = await callServer<Page<T>>(`${path}&limit=${PAGE_SIZE}${after}`, { signal });
    entries.push(...page.data);
    if (!page.has_more || entries.length >= count) return { entries, hasMore: page.has_more };
    after = `&after=${page.last_id}`;
  }
}

/** Return a conversation for the list. Those of other programs may have no title. */
function toConversation({ id, created_at, metadata }: ServerConversation): Conversation {
  const created = new Date(created_at * 1000).toLocaleString("en", { dateStyle: "medium", timeStyle: "short" });
  return { id, title: metadata.title || `Untitled, ${created}` };
}

const listeners = new Set<() => void>();
const otherTabs = typeof BroadcastChannel === "undefined" ? null : new BroadcastChannel("openai-compat.conversations");

/** Call `listener` after each change of the list, also by another tab. Return a function that ends this. */
export function subscribe(listener: () => void) {
  listeners.add(listener);
  otherTabs?.addEventListener("message", listener);
  return () => {
    listeners.delete(listener);
    otherTabs?.removeEventListener("message", listener);
  };
}

function announceChange() {
  otherTabs?.postMessage("changed");
  listeners.forEach((listener) => listener());
}

const itemsOf = (id: string) => `conversations/${encodeURIComponent(id)}/items`;

/** Send a change. It arrives even if the page is closed meanwhile. */
const change = <T>(method: "POST" | "DELETE", path: string, body?: unknown) =>
  callServer<T>(path, { method, body, keepalive: true, signal: AbortSignal.timeout(TIMEOUT) });

/** Delete something, which may be deleted already. */
async function removeAt(path: string) {
  await change("DELETE", path).catch((error) => {
    if (!(error instanceof ServerError && error.status === 404)) throw error;
  });
}

/** Add items at the end, in place of those with the same ids. */
async function putItems(id: string, items: Item[]) {
  try {
    await change("POST", itemsOf(id), { items });
  } catch (error) {
    if (!(error instanceof ServerError && error.code === "duplicate_item")) throw error;
    for (const item of items) await removeAt(`${itemsOf(id)}/${encodeURIComponent(item.id)}`);
    await change("POST", itemsOf(id), { items });
  }
}

/** Store an answer. Until the server has confirmed it, it is remembered, and sent again when the page opens it. */
async function putAnswer(id: string, items: Item[]) {
  remember(id, items);
  try {
    await putItems(id, items);
  } catch (error) {
    if (error instanceof ServerError && error.status === 404) forget(items); // the conversation was deleted
    throw error;
  }
  forget(items);
}

const unclear = new Set<string>(); // ids of first questions whose conversation may exist, as no response arrived

async function create(items: Item[], title: string): Promise<string> {
  const first = items[0]?.id ?? "";
  if (unclear.has(first)) {
    const { data } = await callServer<Page<ServerConversation>>("conversations", {});
    const made = data.find(({ metadata }) => metadata.first_item === first);
    if (made) return made.id;
  }
  unclear.add(first);
  try {
    const metadata = { title, first_item: first };
    return (await change<ServerConversation>("POST", "conversations", { items, metadata })).id;
  } catch (error) {
    if (error instanceof ServerError && error.status < 500) unclear.delete(first);
    throw error;
  }
}

export const serverStore: Store = {
  async read(id, signal) {
    for (const { items } of unstoredIn(id)) await putAnswer(id, items);
    const { entries } = await readPages<Item>(`${itemsOf(id)}?order=asc`, Infinity, signal);
    return toMessages(entries);
  },

  async addQuestion(id, question) {
    const items = toItems(question);
    if (id) {
      await putItems(id, items);
      return id;
    }
    const created = await create(items, titleOf(question));
    announceChange();
    return created;
  },

  putAnswer: (id, answer) => putAnswer(id, toItems(answer)),

  async removeAnswers(id, questionId) {
    const { entries } = await readPages<Item>(`${itemsOf(id)}?order=desc`, Infinity, AbortSignal.timeout(TIMEOUT));
    const count = entries.findIndex((item) => item.id === questionId);
    for (const item of entries.slice(0, Math.max(count, 0))) {
      await removeAt(`${itemsOf(id)}/${encodeURIComponent(item.id)}`);
    }
  },

  async remove(id) {
    await removeAt(`conversations/${encodeURIComponent(id)}`);
    announceChange();
  },
};
