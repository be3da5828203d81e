// One chat of the official Node client, with its own retries.
//
//     node limits.mjs <server> <key>
//
// It prints a JSON object with the status.

import OpenAI from "openai";

const [server, apiKey] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `${server}/v1`, apiKey, maxRetries: 5 });
const messages = [{ role: "user", content: "hello there" }];

const status = await client.chat.completions.create({ model: "priced", messages }).then(
  () => 200,
  (error) => error.status,
);
console.log(JSON.stringify({ status }));
