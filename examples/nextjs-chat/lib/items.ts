// Conversion between the page's messages and the items of the server's conversations, which are those of OpenAI's API.

import { type Ending, type Message, reasoningOf, textOf } from "./messages";

/** An item of a conversation. Those of other programs may have any type. */
export interface Item {
  id: string;
  type: string;
  role?: string;
  status?: string;
  content?: { type: string; text?: string; refusal?: string }[];
  incomplete_details?: { reason?: string };
  [other: string]: unknown;
}

/** Return the items of a message. The reasoning of an answer is an item before it. */
export function toItems(message: Message): Item[] {
  const { id, role, metadata } = message;
  const kind = role === "user" ? "input_text" : "output_text";
  const ending = metadata?.ending;
  const item: Item = { id, type: "message", role, content: [{ type: kind, text: textOf(message) }] };
  if (ending) Object.assign(item, { status: "incomplete", incomplete_details: { reason: ending } });
  const reasoning = reasoningOf(message);
  if (!reasoning) return [item];
  const content = [{ type: "reasoning_text", text: reasoning }];
  return [{ id: `rs_${id}`, type: "reasoning", summary: [], content }, item];
}

/** Return the messages of the user and of the assistant. Items of other kinds come from other programs. */
export function toMessages(items: Item[]): Message[] {
  const messages: Message[] = [];
  let reasoning = "";
  for (const item of items) {
    const text = textOfItem(item);
    if (item.type === "reasoning") reasoning += text;
    if (item.type !== "message" || (item.role !== "user" && item.role !== "assistant")) continue;
    const parts: Message["parts"] = [{ type: "text", text }];
    if (reasoning && item.role === "assistant") parts.unshift({ type: "reasoning", text: reasoning });
    messages.push({ id: item.id, role: item.role, parts, metadata: { ending: endingOf(item) } });
    reasoning = "";
  }
  return messages;
}

const textOfItem = (item: Item) => (item.content ?? []).map((part) => part.text ?? part.refusal ?? "").join("");

function endingOf(item: Item): Ending | undefined {
  if (item.role !== "assistant" || item.status !== "incomplete") return undefined;
  return item.incomplete_details?.reason === "stopped" ? "stopped" : "broken";
}
