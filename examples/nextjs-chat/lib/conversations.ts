// The conversations of this browser, in `localStorage`. Nothing of them is kept anywhere else.

import type { UIMessage } from "ai";
import { useSyncExternalStore } from "react";

/** A message, and whether it is all of what was to come: a part must never pass for the whole. */
export type Message = UIMessage<{ ending?: "stopped" | "broken" }>;

export interface Conversation {
  id: string;
  title: string;
  messages: Message[];
}

const PLACE = "openai-compat.conversations";
const MOST = 50;
const NONE: Conversation[] = [];

let raw: string | null = null;
let known: Conversation[] = NONE;

/** The conversations, the latest first; the same array as long as nothing has changed, as React wants it. */
function read(): Conversation[] {
  const found = localStorage.getItem(PLACE);
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
    return NONE; // not ours, or half written: nothing to show is better than nothing that works
  }
}

function write(conversations: Conversation[]) {
  for (let count = Math.min(conversations.length, MOST); count >= 0; count = Math.floor(count / 2)) {
    try {
      localStorage.setItem(PLACE, JSON.stringify(conversations.slice(0, count)));
      break;
    } catch {
      if (count === 0) break; // the browser keeps nothing for this page: it works without
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
