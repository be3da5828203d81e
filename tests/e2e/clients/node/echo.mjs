// The official Node client with the echo model.
//
//     node echo.mjs <server>
//
// It prints a JSON object with the result of each scenario.

import OpenAI, { AzureOpenAI } from "openai";
import { collect, question, run, weather } from "./scenarios.mjs";

const [server] = process.argv.slice(2);
const model = "mock-gpt-model";
const client = new OpenAI({ baseURL: `${server}/v1`, apiKey: "any", maxRetries: 0 });
const azure = new AzureOpenAI({ endpoint: server, apiKey: "any", apiVersion: "2024-10-21", maxRetries: 0 });
const chats = client.chat.completions;

await run({
  chat: () => chats.create({ model, messages: question }),
  choices: () => chats.create({ model, messages: question, n: 2, logprobs: true, top_logprobs: 2 }),
  requestID: async () => {
    const { data, response, request_id } = await chats.create({ model, messages: question }).withResponse();
    return { onAnswer: data._request_id, onResponse: request_id, inHeader: response.headers.get("x-request-id") };
  },
  stream: async () => collect(await chats.create({ model, messages: question, stream: true })),
  streamWithUsage: async () =>
    collect(await chats.create({ model, messages: question, stream: true, stream_options: { include_usage: true } })),
  streamHelper: async () => {
    const deltas = [];
    const stream = chats.stream({ model, messages: question }).on("content", (delta) => deltas.push(delta));
    return { deltas, completion: await stream.finalChatCompletion() };
  },
  streamedTool: async () => {
    const stream = chats.stream({ model, messages: question, tools: [weather], tool_choice: "required" });
    return stream.finalChatCompletion();
  },
  toolLoop: async () => {
    const called = [];
    const tool = { ...weather, function: { ...weather.function, parse: JSON.parse, function: answer } };
    function answer(given) {
      called.push(given);
      return "sunny";
    }
    const messages = [{ role: "user", content: "Call get_weather for Paris." }];
    const runner = chats.runTools({ model, messages, tools: [tool], stream: true });
    return { text: await runner.finalContent(), called, roles: runner.messages.map((message) => message.role) };
  },
  parse: async () => {
    const schema = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
    const response_format = { type: "json_schema", json_schema: { name: "city", schema } };
    const answer = await chats.parse({ model, messages: question, response_format });
    return JSON.parse(answer.choices[0].message.content);
  },
  completion: () => client.completions.create({ model, prompt: ["one two", "three"], n: 2 }),
  completionStream: async () => collect(await client.completions.create({ model, prompt: "one two", stream: true })),
  embeddings: async () => {
    const ask = { model, input: ["one", "two"], dimensions: 16 };
    const decoded = await client.embeddings.create(ask);
    const floats = await client.embeddings.create({ ...ask, encoding_format: "float" });
    const base64 = await client.embeddings.create({ ...ask, encoding_format: "base64" });
    return { decoded: decoded.data, floats: floats.data, base64: base64.data, usage: decoded.usage };
  },
  models: () => collect(client.models.list()),
  model: () => client.models.retrieve(model),
  azure: async () => {
    const answer = await azure.chat.completions.create({ model, messages: question });
    return answer.choices[0].message.content;
  },
  unknownModel: () => chats.create({ model: "no-such-model", messages: question }),
  badPayload: () => chats.create({ model, messages: [{ role: "user", content: 3 }] }),
  badPayloadOfStream: () => chats.create({ model, messages: question, stream: true, n: 1000 }),
  noUpstream: () => client.files.list(),
});
