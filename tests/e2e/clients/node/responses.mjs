// The Responses API with the official Node client, the AI SDK's default model and its model for Azure.
//
//     node responses.mjs <server>
//
// It prints a JSON object with the result of each scenario.

import { createAzure } from "@ai-sdk/azure";
import { createOpenAI } from "@ai-sdk/openai";
import { generateText, jsonSchema, Output, stepCountIs, streamText, tool } from "ai";
import OpenAI from "openai";
import { run } from "./scenarios.mjs";

const [server] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `${server}/v1`, apiKey: "any", maxRetries: 0 });
const provider = createOpenAI({ baseURL: `${server}/v1`, apiKey: "any" });
const azure = createAzure({ baseURL: `${server}/openai`, apiKey: "any" });
const stateless = { openai: { store: false } };
const city = jsonSchema({
  type: "object",
  properties: { city: { type: "string" } },
  required: ["city"],
  additionalProperties: false,
});
const weather = tool({ description: "Get the weather.", inputSchema: city, execute: async () => "It is sunny." });
const parameters = { type: "object", properties: {}, additionalProperties: false };
const now = { type: "function", name: "now", parameters, strict: true };

/** Return the deltas of a stream of the AI SDK, its errors and its end. */
async function watch(model, options = {}) {
  const deltas = [];
  const errors = [];
  const result = streamText({ model, prompt: "one two three", maxRetries: 0, onError: () => {}, ...options });
  for await (const part of result.fullStream) {
    if (part.type === "text-delta") deltas.push(part.text);
    if (part.type === "error") errors.push(String(part.error));
    if (part.type === "finish") return { deltas, errors, finishReason: part.finishReason, usage: part.totalUsage };
  }
  return { deltas, errors };
}

await run({
  create: async () => {
    const { output_text, status, usage } = await client.responses.create({ model: "echo", input: "Hello there" });
    return { output_text, status, usage };
  },
  stream: async () => {
    const stream = client.responses.stream({ model: "echo", input: "Hello there" });
    const types = [];
    for await (const event of stream) types.push(event.type);
    return { types, text: (await stream.finalResponse()).output_text };
  },
  call: async () => {
    const stream = client.responses.stream({ model: "echo", input: "x", tools: [now], tool_choice: "required" });
    return (await stream.finalResponse()).output;
  },
  cut: async () => {
    const types = [];
    try {
      for await (const event of await client.responses.create({ model: "cut", input: "Hello there", stream: true })) {
        types.push(event.type);
      }
    } catch (error) {
      return { types, error: error.constructor.name };
    }
    return { types };
  },
  aiText: async () => {
    const { text, finishReason, usage } = await generateText({ model: provider("echo"), prompt: "one two" });
    return { text, finishReason, usage };
  },
  aiStream: () => watch(provider("echo")),
  aiCut: () => watch(provider("cut")),
  aiObject: async () => {
    const output = Output.object({ schema: city });
    return (await generateText({ model: provider("echo"), prompt: "Rome", output })).output;
  },
  aiTwoTurns: async () => {
    const first = await generateText({ model: provider("echo"), prompt: "Hi", providerOptions: stateless });
    const messages = [{ role: "user", content: "Hi" }, ...first.response.messages, { role: "user", content: "again" }];
    return (await generateText({ model: provider("echo"), messages, providerOptions: stateless })).text;
  },
  state: async () => {
    const first = await client.responses.create({ model: "echo", input: "one" });
    const stream = client.responses.stream({ model: "echo", input: "two", previous_response_id: first.id });
    const second = await stream.finalResponse();
    const { id } = await client.conversations.create();
    await client.responses.create({ model: "echo", input: "three", conversation: id });
    const items = [];
    for await (const item of client.conversations.items.list(id)) items.push(item.role);
    let queued = await client.responses.create({ model: "echo", input: "four", background: true });
    const { status } = queued;
    for (let tries = 0; tries < 200 && ["queued", "in_progress"].includes(queued.status); tries++) {
      await new Promise((resolve) => setTimeout(resolve, 50));
      queued = await client.responses.retrieve(queued.id);
    }
    const stored = await client.responses.retrieve(second.id);
    return { previous: second.previous_response_id === first.id, stored: stored.output_text, items, status, queued };
  },
  aiStoredTurns: async () => {
    const sent = [];
    const record = (url, init) => {
      sent.push(JSON.parse(init.body).input);
      return fetch(url, init);
    };
    const model = createOpenAI({ baseURL: `${server}/v1`, apiKey: "any", fetch: record })("echo");
    const first = await generateText({ model, prompt: "Hi" });
    const messages = [{ role: "user", content: "Hi" }, ...first.response.messages, { role: "user", content: "again" }];
    const { text } = await generateText({ model, messages });
    return { text, input: sent[1] };
  },
  aiTools: async () => {
    const { text, steps } = await generateText({
      model: provider("echo"),
      prompt: "Call get_weather",
      tools: { get_weather: weather },
      stopWhen: stepCountIs(3),
      providerOptions: stateless,
    });
    return { text, calls: steps[0].toolCalls.map((call) => call.toolName), steps: steps.length };
  },
  aiAzure: () => watch(azure("echo")),
});
