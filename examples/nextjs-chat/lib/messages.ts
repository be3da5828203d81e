// Messages and conversations, and what a store of them offers.

import type { UIMessage } from "ai";

/** Why an answer is incomplete: the user stopped it, or it broke off. */
export type Ending = "stopped" | "broken";

export type Message = UIMessage<{ ending?: Ending }>;

/** A conversation in a list. */
export interface Conversation {
  id: string;
  title: string;
}

/** Where conversations are stored. All functions throw an error if something is not stored. */
export interface Store {
  read: (id: string, signal: AbortSignal) => Promise<Message[]>;
  /** Add a question at the end of a conversation, or of a new one without `id`. Return the conversation's id. */
  addQuestion: (id: string | null, question: Message) => Promise<string>;
  /** Add an answer at the end, or replace it if it is stored already. It may be called while the page is closed. */
  putAnswer: (id: string, answer: Message) => Promise<void>;
  /** Remove all messages after a question. */
  removeAnswers: (id: string, questionId: string) => Promise<void>;
  remove: (id: string) => Promise<void>;
}

const MAX_TITLE = 80; // characters; the server's metadata permits 512

export const textOf = (message: Message) =>
  message.parts.map((part) => (part.type === "text" ? part.text : "")).join("");

export const reasoningOf = (message: Message) =>
  message.parts.map((part) => (part.type === "reasoning" ? part.text : "")).join("");

export const titleOf = (question: Message) =>
  [...textOf(question).trim().replace(/\s+/g, " ")].slice(0, MAX_TITLE).join(""); // whole characters, also emoji

/** Return the messages, with the assistant's message `id` marked as incomplete. */
export const withEnding = (messages: Message[], id: string, ending: Ending): Message[] =>
  messages.map((message) =>
    message.id === id && message.role === "assistant" ? { ...message, metadata: { ending } } : message,
  );
