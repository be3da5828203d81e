// Answers that the server has not confirmed yet, in `sessionStorage`, which outlives a reload but not the tab.

import type { Item } from "./items";

interface Unstored {
  conversation: string;
  items: Item[];
}

const STORAGE_KEY = "openai-compat.unstored";

const read = (): Unstored[] => JSON.parse(sessionStorage.getItem(STORAGE_KEY) ?? "[]");

function write(answers: Unstored[]) {
  try {
    sessionStorage.setItem(STORAGE_KEY, JSON.stringify(answers));
  } catch {
    // Too long for the browser. The answer is still sent to the server, and a failure of that is shown.
  }
}

const without = (items: Item[]) => read().filter((answer) => answer.items.at(-1)?.id !== items.at(-1)?.id);

export const remember = (conversation: string, items: Item[]) => write([...without(items), { conversation, items }]);

export const forget = (items: Item[]) => write(without(items));

export const unstoredIn = (conversation: string) => read().filter((answer) => answer.conversation === conversation);
