// The conversations, stored in the browser's `localStorage` only.

import type { UIMessage } from "ai";
import { useSyncExternalStore } from "react";

/** A message. `ending` marks an incomplete answer. */
export type Message = UIMessage<{ ending?: "stopped" | "broken" }>;

export interface Conversation {
  id: string;
  title: string;
  messages: Message[];
}

const STORAGE_KEY = "openai-compat.conversations";
const MAX_CONVERSATIONS = 50;
const NONE: Conversation[] = [];

let raw: string | null = null;
let known: Conversation[] = NONE;

/** Return the conversations, the latest first. The array stays the same until something changes, as React requires. */
function read(): Conversation[] {
  const found = localStorage.getItem(STORAGE_KEY);
  if (found !== raw) {
    raw = found;
    known = parse(found);
  }
  return known;
}

function parse(text: string | null): Conversation[] {
  try {
    return JSON.parse(text ?? "[]");
  } catch {
    return NONE; // not this page's data, or incomplete
  }
}

function write(conversations: Conversation[]) {
  for (let count = Math.min(conversations.length, MAX_CONVERSATIONS); count >= 0; count = Math.floor(count / 2)) {
    try {
      localStorage.setItem(STORAGE_KEY, JSON.stringify(conversations.slice(0, count)));
      break;
    } catch {
      if (count === 0) break; // the browser stores nothing for this page, which works without it
    }
  }
  listeners.forEach((listener) => listener());
}

const listeners = new Set<() => void>();

function subscribe(listener: () => void) {
  listeners.add(listener);
  addEventListener("storage", listener); // another tab's changes
  return () => {
    listeners.delete(listener);
    removeEventListener("storage", listener);
  };
}

export const useConversations = () => useSyncExternalStore(subscribe, read, () => NONE);

export const findConversation = (id: string) => read().find((conversation) => conversation.id === id);

export const textOf = (message: Message) =>
  message.parts.map((part) => (part.type === "text" ? part.text : "")).join("");

export function saveConversation(id: string, messages: Message[]) {
  const [first] = messages;
  if (!first) return;
  const title = textOf(first).trim().replace(/\s+/g, " ").slice(0, 80);
  write([{ id, title, messages }, ...read().filter((conversation) => conversation.id !== id)]);
}

export const removeConversation = (id: string) => write(read().filter((conversation) => conversation.id !== id));
