// The official Node client in front of models of several kinds.
//
//     node kinds.mjs <server> <model>...
//
// prints one JSON object: by the model's name, its answer whole, its answer by the stream helper, and the error that its
// caller gets for a value of the wrong type.

import OpenAI from "openai";
import { run } from "./scenarios.mjs";

const [server, ...models] = process.argv.slice(2);
const chats = new OpenAI({ baseURL: `${server}/v1`, apiKey: "any", maxRetries: 0 }).chat.completions;
const messages = [{ role: "user", content: "Cats purr when they are content" }];

async function ask(model) {
  const whole = await chats.create({ model, messages });
  const pieces = [];
  const stream = chats.stream({ model, messages, stream_options: { include_usage: true } });
  stream.on("content", (piece) => pieces.push(piece));
  const streamed = await stream.finalChatCompletion();
  const refused = await chats.create({ model, messages: "Hello" }).catch(({ status, param }) => ({ status, param }));
  return { whole, streamed, pieces, refused };
}

await run(Object.fromEntries(models.map((model) => [model, () => ask(model)])));
