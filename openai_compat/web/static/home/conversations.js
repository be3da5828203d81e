// Conversations on the server, by its conversations API. They belong to the user's key.
//
// A message is `{ id, role, content, ending }`. `ending` is "stopped" or "broken" for an incomplete answer.

import { call, key } from "./api.js";

const TIMEOUT = 10_000; // milliseconds
const PAGE_SIZE = 100; // entries, the server's maximum
const MAX_TITLE = 80; // characters
const UNSTORED = "openai-compat.home.unstored"; // answers that the server has not confirmed yet
const unclear = new Set(); // ids of first questions whose conversation may exist, as no response arrived

export const isConversation = (id) => id.startsWith("conv_");

let decided = { key: "", isAvailable: false }; // without a key, nothing is stored

/** Return true if the server stores conversations for the user's key. */
export async function isAvailable() {
  if (decided.key !== key.read()) await list(1, AbortSignal.timeout(TIMEOUT));
  return decided.isAvailable;
}

/** Return at least `count` conversations, the newest first, or null if the server stores none for this user. */
export async function list(count, signal) {
  const used = key.read();
  const found = used ? await readList(count, signal) : null;
  decided = { key: used, isAvailable: found !== null };
  return found;
}

/** 404: an older server. 501: conversations are passed through to an upstream. 503: the database is away. */
async function readList(count, signal) {
  try {
    const { entries, hasMore } = await readPages("conversations?order=desc", count, signal);
    return { conversations: entries.map(toConversation), hasMore };
  } catch (error) {
    if ([404, 501, 503].includes(error.status)) return null;
    throw error;
  }
}

/** Return a conversation for the list. Those of other programs may have no title. */
function toConversation({ id, created_at: created, metadata }) {
  const time = new Date(created * 1000).toLocaleString("en", { dateStyle: "medium", timeStyle: "short" });
  return { id, title: metadata.title || `Untitled, ${time}` };
}

/** Read pages of a list until it ends, or until there are `count` entries. */
async function readPages(path, count, signal = AbortSignal.timeout(TIMEOUT)) {
  const entries = [];
  for (let after = ""; ; ) {
    const page = await call("GET", `${path}&limit=${PAGE_SIZE}${after}`, { signal });
    entries.push(...page.data);
    if (!page.has_more || entries.length >= count) return { entries, hasMore: page.has_more };
    after = `&after=${page.last_id}`;
  }
}

/** Return the messages of the user and of the assistant. Items of other kinds come from other programs. */
export async function read(id) {
  for (const { message } of unstored().filter(({ conversation }) => conversation === id)) await putAnswer(id, message);
  const { entries } = await readPages(`${itemsOf(id)}?order=asc`, Infinity);
  return entries.filter((item) => item.role === "user" || item.role === "assistant").map(toMessage);
}

/** Add a question at the end of a conversation, or of a new one without `id`. Return the conversation's id. */
export async function addQuestion(id, question) {
  if (!id) return create(question);
  await put(id, question);
  return id;
}

async function create(question) {
  if (unclear.has(question.id)) {
    const { data } = await call("GET", "conversations");
    const made = data.find(({ metadata }) => metadata.first_item === question.id);
    if (made) return made.id;
  }
  unclear.add(question.id);
  const title = [...question.content.replace(/\s+/g, " ")].slice(0, MAX_TITLE).join("");
  const metadata = { title, first_item: question.id };
  return (await change("POST", "conversations", { items: [toItem(question)], metadata })).id;
}

/**
 * Add an answer at the end, or replace it if it is stored already. Until the server has confirmed it, the tab remembers
 * it, also after a reload, and sends it again when the conversation is opened.
 */
export async function putAnswer(id, message) {
  remember([...unstored().filter((other) => other.message.id !== message.id), { conversation: id, message }]);
  const forget = () => remember(unstored().filter((other) => other.message.id !== message.id));
  await put(id, message).catch((error) => {
    if (error.status === 404) forget(); // the conversation was deleted
    throw error;
  });
  forget();
}

export const removeMessage = (id, message) => remove(`${itemsOf(id)}/${encodeURIComponent(message.id)}`);

export const removeConversation = (id) => remove(`conversations/${encodeURIComponent(id)}`);

const itemsOf = (id) => `conversations/${encodeURIComponent(id)}/items`;

/** Send a change. It arrives even if the page is closed meanwhile. */
const change = (method, path, body) =>
  call(method, path, { body, keepalive: true, signal: AbortSignal.timeout(TIMEOUT) });

/** Delete something, which may be deleted already. */
const remove = (path) =>
  change("DELETE", path).catch((error) => {
    if (error.status !== 404) throw error;
  });

/** Add a message at the end, in place of one with the same id. */
async function put(id, message) {
  const add = () => change("POST", itemsOf(id), { items: [toItem(message)] });
  try {
    await add();
  } catch (error) {
    if (error.code !== "duplicate_item") throw error;
    await removeMessage(id, message);
    await add();
  }
}

const unstored = () => JSON.parse(sessionStorage.getItem(UNSTORED) ?? "[]");

function remember(answers) {
  try {
    sessionStorage.setItem(UNSTORED, JSON.stringify(answers));
  } catch {
    // Too long for the browser. The answer is still sent to the server, and a failure of that is shown.
  }
}

function toItem({ id, role, content, ending }) {
  const type = role === "user" ? "input_text" : "output_text";
  const end = ending && { status: "incomplete", incomplete_details: { reason: ending } };
  return { id, type: "message", role, content: [{ type, text: content }], ...end };
}

function toMessage({ id, role, content, status, incomplete_details: details }) {
  const text = content.map((part) => part.text ?? part.refusal ?? "").join("");
  const message = { id, role, content: text };
  if (role === "assistant" && status === "incomplete") {
    message.ending = details?.reason === "stopped" ? "stopped" : "broken";
  }
  return message;
}
