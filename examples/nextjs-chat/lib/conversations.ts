// The conversations of the user. Here it is decided where they are stored.

import { useCallback, useEffect, useRef, useState, useSyncExternalStore } from "react";
import { readKey, useKey } from "./apiKey";
import { type AutoRetry, autoRetry } from "./autoRetry";
import { browserStore, readAll, subscribe } from "./browserStore";
import type { Conversation, Message, Store } from "./messages";
import { ServerError, toSentence } from "./server";
import { type List, listConversations, PREFIX, serverStore, subscribe as subscribeToServer } from "./serverStore";

export type Place = "server" | "browser";

/** The conversations by their place, and the place of new ones, which is null until it is known. */
export interface Conversations extends Record<Place, Conversation[]> {
  place: Place | null;
  problem: string | null;
  hasMore: boolean;
  showMore: () => void;
}

const LOADING = { place: null, server: [], hasMore: false, problem: null } satisfies Partial<Conversations>;
const NONE: Conversation[] = [];

let decided: { key: string; store: Store } = { key: "", store: browserStore }; // without a key, all stay in the browser

/** Return the list on the server, and decide by it where new conversations are stored. */
async function loadList(count: number, signal: AbortSignal): Promise<List | null> {
  const key = readKey();
  const list = key ? await listConversations(count, signal) : null;
  decided = { key, store: list ? serverStore : browserStore };
  return list;
}

/** Return the store of a conversation, or that of new ones for null. */
export async function storeOf(id: string | null): Promise<Store> {
  if (id) return id.startsWith(PREFIX) ? serverStore : browserStore;
  if (decided.key !== readKey()) await loadList(1, AbortSignal.timeout(10_000));
  return decided.store;
}

export function useConversations(): Conversations {
  const key = useKey();
  const inBrowser = useSyncExternalStore(subscribe, readAll, () => NONE);
  const [onServer, setOnServer] = useState<Omit<Conversations, "browser" | "showMore">>(LOADING);
  const count = useRef(1); // conversations to show, at least
  const retry = useRef<AutoRetry>(null);

  useEffect(() => {
    setOnServer(LOADING);
    count.current = 1;
    const started = autoRetry(
      (signal) => loadList(count.current, signal),
      (list) => {
        const { conversations: server, hasMore } = list ?? { conversations: [], hasMore: false };
        setOnServer({ place: list ? "server" : "browser", server, hasMore, problem: null });
      },
      (error) => {
        const isRefused = error instanceof ServerError && error.status === 401; // the page asks for another key
        const problem = isRefused ? null : `Stored conversations are not listed. ${toSentence(error)}`;
        setOnServer((before) => ({ ...before, problem }));
        return !isRefused;
      },
    );
    retry.current = started;
    const unsubscribe = subscribeToServer(started.reload);
    const onReturn = () => document.hidden || started.reload(); // another device may have changed the list
    if (key) document.addEventListener("visibilitychange", onReturn);
    return () => {
      document.removeEventListener("visibilitychange", onReturn);
      unsubscribe();
      started.stop();
    };
  }, [key]);

  const showMore = useCallback(() => {
    count.current = onServer.server.length + 1;
    retry.current?.reload();
  }, [onServer]);

  return { ...onServer, browser: inBrowser, showMore };
}

/** The messages of the conversation that was opened, which are null until they are known. */
export function useMessages(id: string | null) {
  const key = useKey();
  const [messages, setMessages] = useState<Message[] | null>(id ? null : []);
  const [problem, setProblem] = useState<string | null>(null);
  const retry = useRef<AutoRetry>(null);
  const isLoaded = messages !== null;

  useEffect(() => {
    if (!id || isLoaded) return;
    setProblem(null);
    const started = autoRetry(
      async (signal) => (await storeOf(id)).read(id, signal),
      setMessages,
      (error) => {
        const status = error instanceof ServerError ? error.status : 0;
        if (status !== 401) setProblem(status === 404 ? MISSING : toSentence(error));
        return status !== 401 && status !== 404;
      },
    );
    retry.current = started;
    return started.stop;
  }, [id, key, isLoaded]);

  const reload = useCallback(() => retry.current?.reload(), []);
  return { messages, problem, reload };
}

const MISSING = "This conversation was deleted, or it belongs to another API key.";
