// The official Node client with models of several kinds.
//
//     node kinds.mjs <server> <model>...
//
// It prints a JSON object with the results of each model: the complete answer, the streamed answer, its deltas, and the
// error for a value of the wrong type.

import OpenAI from "openai";
import { run } from "./scenarios.mjs";

const [server, ...models] = process.argv.slice(2);
const chats = new OpenAI({ baseURL: `${server}/v1`, apiKey: "any", maxRetries: 0 }).chat.completions;
const messages = [{ role: "user", content: "Cats purr when they are content" }];

async function ask(model) {
  const complete = await chats.create({ model, messages });
  const deltas = [];
  const stream = chats.stream({ model, messages, stream_options: { include_usage: true } });
  stream.on("content", (delta) => deltas.push(delta));
  const streamed = await stream.finalChatCompletion();
  const refused = await chats.create({ model, messages: "Hello" }).catch(({ status, param }) => ({ status, param }));
  return { complete, streamed, deltas, refused };
}

await run(Object.fromEntries(models.map((model) => [model, () => ask(model)])));
