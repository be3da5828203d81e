// Conversations in the browser's `localStorage`.

import { generateId } from "ai";
import { type Conversation, type Message, type Store, titleOf } from "./messages";

interface Stored extends Conversation {
  messages: Message[];
}

const STORAGE_KEY = "openai-compat.conversations";
const MAX_CONVERSATIONS = 50;
const NONE: Stored[] = [];

let raw: string | null = null;
let known: Stored[] = NONE;

/** Return the conversations, the latest first. The array stays the same until something changes, as React requires. */
export function readAll(): Stored[] {
  const found = localStorage.getItem(STORAGE_KEY);
  if (found !== raw) {
    raw = found;
    known = parse(found);
  }
  return known;
}

function parse(text: string | null): Stored[] {
  try {
    return JSON.parse(text ?? "[]");
  } catch {
    return NONE; // not this page's data, or incomplete
  }
}

function writeAll(conversations: Stored[]) {
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

/** Call `listener` after each change, also in another tab. Return a function that ends this. */
export function subscribe(listener: () => void) {
  listeners.add(listener);
  addEventListener("storage", listener);
  return () => {
    listeners.delete(listener);
    removeEventListener("storage", listener);
  };
}

const messagesOf = (id: string) => readAll().find((conversation) => conversation.id === id)?.messages;

/** Store the messages of a conversation, which becomes the latest. */
function write(id: string, messages: Message[]) {
  const [first] = messages;
  if (!first) return;
  writeAll([{ id, title: titleOf(first), messages }, ...readAll().filter((conversation) => conversation.id !== id)]);
}

/** Write what `change` returns for the messages. A conversation that was deleted meanwhile stays deleted. */
function update(id: string, change: (messages: Message[]) => Message[]) {
  const messages = messagesOf(id);
  if (messages) write(id, change(messages));
}

export const browserStore: Store = {
  async read(id) {
    return messagesOf(id) ?? [];
  },

  async addQuestion(id, question) {
    const place = id ?? generateId();
    write(place, [...(messagesOf(place) ?? []), question]);
    return place;
  },

  async putAnswer(id, answer) {
    update(id, (messages) => [...messages.filter((message) => message.id !== answer.id), answer]);
  },

  async removeAnswers(id, questionId) {
    update(id, (messages) => messages.slice(0, messages.findIndex((message) => message.id === questionId) + 1));
  },

  async remove(id) {
    writeAll(readAll().filter((conversation) => conversation.id !== id));
  },
};
