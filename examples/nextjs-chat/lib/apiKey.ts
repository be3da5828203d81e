// The user's API key, if the server requires one. It is deleted when the tab is closed.

import { useSyncExternalStore } from "react";

const STORAGE_KEY = "openai-compat.key";

export const readKey = () => sessionStorage.getItem(STORAGE_KEY) ?? "";

const listeners = new Set<() => void>();

export function keepKey(key: string) {
  sessionStorage.setItem(STORAGE_KEY, key);
  listeners.forEach((listener) => listener());
}

function subscribe(listener: () => void) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

export const useKey = () => useSyncExternalStore(subscribe, readKey, () => "");

export function authorization(): Record<string, string> {
  const key = readKey();
  return key ? { Authorization: `Bearer ${key}` } : {};
}
