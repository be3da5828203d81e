// Chat pages built with three versions of the AI SDK, which call `POST /ask`.
//
//     node ask.mjs <server> <mock upstream> < a recorded `ui` stream
//
// It prints a JSON object with the result of each scenario.

import * as newest from "ai";
import * as version5 from "ai-5"; // 5.0.92 rejects unknown keys
import { callChatApi as version4 } from "@ai-sdk/ui-utils"; // the core of version 4's `useChat`
import { readFileSync } from "node:fs";
import { until } from "./scenarios.mjs";

const [server, upstream] = process.argv.slice(2);
const api = `${server}/ask`;
const recorded = readFileSync(0);
const question = "one two three four five six";

/** Return the class behind `useChat`, which keeps the messages and the status, without React. */
function openPage(ai, transport, options = {}) {
  const state = {
    status: "ready",
    error: undefined,
    messages: [],
    pushMessage: (message) => state.messages.push(message),
    popMessage: () => state.messages.pop(),
    replaceMessage: (index, message) => (state.messages[index] = message),
    snapshot: structuredClone,
  };
  class Page extends ai.AbstractChat {}
  return new Page({ state, transport, ...options });
}

/** Send the messages one after the other, and return the state of the page. */
async function converse(ai, Transport, { url = api, model, messages = [{ text: question }] } = {}) {
  const finished = [];
  const onFinish = ({ finishReason, isError }) => finished.push({ finishReason, isError });
  const body = model ? { model } : {};
  const page = openPage(ai, new Transport({ api: url, body }), { onFinish });
  for (const message of messages) await page.sendMessage(message);
  return { status: page.status, error: page.error?.message, finished, messages: page.messages };
}

/** Return the texts of a message while its stream is read, and its final parts. */
async function watch(ai, Transport, options = {}) {
  const transport = new Transport({ api, ...options });
  const messages = [{ id: "1", role: "user", parts: [{ type: "text", text: question }] }];
  const stream = await transport.sendMessages({ chatId: "1", messages, trigger: "submit-message" });
  const texts = [];
  let message;
  for await (message of ai.readUIMessageStream({ stream, terminateOnError: true })) {
    texts.push(message.parts.findLast((part) => part.type === "text")?.text);
  }
  return { texts, parts: message.parts };
}

const replay = (ai) =>
  watch(ai, ai.DefaultChatTransport, { fetch: async () => new Response(recorded, { status: 200 }) });

async function askAsVersion4(content) {
  const updates = [];
  const message = { role: "user", content, parts: [{ type: "text", text: content }] };
  await callVersion4({ id: "chat-1", messages: [message] }, ({ message }) => updates.push(message.content));
  return updates;
}

function callVersion4(body, onUpdate) {
  return version4({
    api,
    body,
    streamProtocol: "text",
    onUpdate,
    onFinish: () => {},
    restoreMessagesOnFailure: () => {},
    generateId: () => "answer-1",
  });
}

/** Stop after the first words, and wait until the upstream request is aborted. */
async function stop() {
  const transport = new newest.DefaultChatTransport({ api, body: { model: "fault-slow:delay=0.05,chunks=20000" } });
  const page = openPage(newest, transport);
  const before = await aborted();
  const sending = page.sendMessage({ text: question });
  await until(() => page.lastMessage?.parts?.some((part) => part.text));
  await page.stop();
  await sending;
  await until(async () => (await aborted()) > before);
  return { status: page.status, isAborted: true };
}

const aborted = async () => (await (await fetch(`${upstream}/__mock__/stats`)).json()).requests_aborted;

const picture = { type: "file", mediaType: "image/png", url: "data:image/png;base64,AAAA" };
const text = { url: `${api}?format=text` };
const scenarios = {
  newest: () => converse(newest, newest.DefaultChatTransport, { messages: [{ text: question }, { text: "and now" }] }),
  "version 5": () => converse(version5, version5.DefaultChatTransport),
  "newest, watched": () => watch(newest, newest.DefaultChatTransport),
  "newest, text": () => converse(newest, newest.TextStreamChatTransport, text),
  "version 5, text": () => converse(version5, version5.TextStreamChatTransport, text),
  "version 4, text": () => askAsVersion4(question),
  "newest, replayed": () => replay(newest),
  "version 5, replayed": () => replay(version5),
  "a picture": () =>
    converse(newest, newest.DefaultChatTransport, { messages: [{ text: "What is this?", files: [picture] }] }),
  truncated: () => converse(newest, newest.DefaultChatTransport, { model: "fault-cut" }),
  "text, truncated": () => converse(newest, newest.TextStreamChatTransport, { ...text, model: "fault-cut" }),
  refused: () => converse(newest, newest.DefaultChatTransport, { model: "fault-status:code=503" }),
  stop,
};

const results = {};
for (const [name, scenario] of Object.entries(scenarios)) {
  results[name] = await scenario().catch((error) => ({ thrown: String(error) }));
}
console.log(JSON.stringify(results));
process.exit(); // idle connections would keep the process alive
