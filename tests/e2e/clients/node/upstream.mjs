// The official Node client of the mock upstream, or of a server that forwards to it.
//
//     node upstream.mjs <server> <mock upstream>
//
// It prints a JSON object with the result of each scenario.

import { createHash } from "node:crypto";
import OpenAI, { toFile } from "openai";
import { collect, describe, question, run, textOf, until, weather } from "./scenarios.mjs";

const [root, mock] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `${root}/v1`, apiKey: "sk-of-the-caller", maxRetries: 0 });
const chats = client.chat.completions;
const model = "mock-model";

const ask = (name, more = {}, options = {}) => chats.create({ model: name, messages: question, ...more }, options);
const askStream = (name, more = {}, options = {}) => ask(name, { stream: true, ...more }, options);
const stats = async () => (await fetch(`${mock}/__mock__/stats`)).json();
const reset = () => fetch(`${mock}/__mock__/reset`, { method: "POST" });

/** Return the text or the error, and the number of requests. */
async function askAgain(name, maxRetries) {
  await reset();
  const outcome = await ask(name, {}, { maxRetries }).then((answer) => answer.choices[0].message.content, describe);
  return { outcome, requests: (await stats()).requests_total };
}

/** Return the result of a call that is cancelled, once its upstream request is aborted. */
async function cancelWith(call) {
  await reset();
  const outcome = await call().catch(describe);
  await until(async () => (await stats()).requests_aborted === 1);
  return { outcome, open: (await stats()).requests_open };
}

/** Abort the call once the upstream has its request. */
async function abortWhenOpen(name, more) {
  const controller = new AbortController();
  const answer = ask(name, more, { signal: controller.signal });
  answer.catch(() => {});
  await until(async () => (await stats()).requests_open === 1);
  controller.abort();
  return answer;
}

const refusals = [400, 401, 403, 404, 409, 422, 429, 500, 503].flatMap((code) => [
  [`status ${code}`, () => ask(`fault-status:code=${code}`)],
  [`status ${code} of a stream`, () => askStream(`fault-status:code=${code}`)],
]);

await run({
  // Scenarios with the same result through the server.
  chat: () => ask(model, { n: 2 }),
  stream: async () => collect(await askStream(model)),
  streamWithUsage: async () => collect(await askStream(model, { stream_options: { include_usage: true } })),
  oddBytes: async () => {
    const names = ["fault-split-utf8", "fault-crlf", "fault-comments", "fault-coalesced", "fault-one-byte"];
    return Promise.all(names.map(async (name) => textOf(await collect(await askStream(name)))));
  },
  tools: async () => {
    const stream = chats.stream({ model: "mock-model:calls=2", messages: question, tools: [weather], n: 2 });
    return stream.finalChatCompletion();
  },
  toolLoop: async () => {
    const tool = { ...weather, function: { ...weather.function, parse: JSON.parse, function: () => "sunny" } };
    return chats.runTools({ model, messages: question, tools: [tool], stream: true }).finalContent();
  },
  completion: () => client.completions.create({ model, prompt: ["one", "two"], n: 2 }),
  completionStream: async () => collect(await client.completions.create({ model, prompt: "one", stream: true })),
  embeddings: () => client.embeddings.create({ model, input: ["one", "two"], dimensions: 16 }),
  models: () => collect(client.models.list()),
  model: () => client.models.retrieve("mock/model-with-slash"),
  unknownModel: () => client.models.retrieve("no/such/model"),
  upload: async () => {
    const file = await toFile(Buffer.alloc(100_000, "x"), "data.bin");
    const { method, path, body_bytes } = await client.files.create({ file, purpose: "batch" });
    return { method, path, body_bytes };
  },
  download: async () => {
    const response = await client.files.content("file-1");
    return createHash("sha256").update(Buffer.from(await response.arrayBuffer())).digest("hex");
  },
  speech: async () => {
    const response = await client.audio.speech.create({ model: "tts-1", voice: "alloy", input: "hi" });
    return (await response.json()).path;
  },
  ...Object.fromEntries(refusals),
  errorInStream: async () => collect(await askStream("fault-error-in-stream:after=2")),
  afterRateLimit: () => askAgain("fault-status:code=429,times=1,retry_after_ms=1", 2),
  afterServerErrors: () => askAgain("fault-status:code=503,times=2,retry_after_ms=1", 2),
  tooOften: () => askAgain("fault-status:code=500,retry_after_ms=1", 1),
  noRetry: () => askAgain("fault-status:code=500,should_retry=false", 2),
  abortBeforeAnswer: () => cancelWith(() => abortWhenOpen("fault-hang", {})),
  abortBeforeStream: () => cancelWith(() => abortWhenOpen("fault-hang", { stream: true })),
  timeout: () => cancelWith(() => ask("fault-hang", {}, { timeout: 300 })),
  leaveStream: () =>
    cancelWith(async () => {
      const texts = [];
      for await (const chunk of await askStream("fault-stall:after=3")) {
        texts.push(chunk.choices[0].delta.content);
        if (texts.length === 3) break; // the client aborts the request
      }
      return texts;
    }),
  abortStream: () =>
    cancelWith(async () => {
      const stream = await askStream("fault-slow:delay=0.05,chunks=10000");
      for await (const chunk of stream) if (chunk.choices[0].delta.content) stream.controller.abort();
      return "aborted";
    }),
  // Scenarios in which the server corrects the upstream's answer.
  cut: async () => collect(await askStream("fault-cut:after=3")),
  emptyError: async () => textOf(await collect(await askStream("fault-empty-error"))),
  htmlError: () => ask("fault-html-error"),
});
