// The AI SDK's provider for servers that speak OpenAI's protocol, in front of the echo model and of a mock upstream's.
//
//     node provider.mjs <server> <mock upstream>
//
// prints one JSON object: what came of each scenario, by its name.

import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { embedMany, generateText, jsonSchema, Output, parseJsonEventStream, streamText, tool } from "ai";
import { run, until } from "./scenarios.mjs";

const [server, mock] = process.argv.slice(2);
const abilities = { includeUsage: true, supportsStructuredOutputs: true };
const provider = createOpenAICompatible({ name: "ours", baseURL: `${server}/v1`, apiKey: "any", ...abilities });
const model = provider("echo");
const prompt = "one two three four five six";
const quiet = { maxRetries: 0, onError: () => {} };
const city = jsonSchema({
  type: "object",
  properties: { city: { type: "string" } },
  required: ["city"],
  additionalProperties: false,
});

/** The pieces of a stream, and how it ended. */
async function watch(name, options = {}) {
  const pieces = [];
  const errors = [];
  const result = streamText({ model: provider(name), prompt, ...quiet, ...options });
  for await (const part of result.stream) {
    if (part.type === "text-delta") pieces.push(part.text);
    if (part.type === "error") errors.push(String(part.error));
    if (part.type === "finish") return { pieces, errors, finishReason: part.finishReason, usage: part.totalUsage };
  }
  return { pieces, errors };
}

const aborted = async () => (await (await fetch(`${mock}/__mock__/stats`)).json()).requests_aborted;

await run({
  text: async () => {
    const { text, finishReason, usage, response } = await generateText({ model, prompt, ...quiet });
    return { text, finishReason, usage, model: response.modelId };
  },
  stream: () => watch("echo"),
  tool: async () => {
    const weather = tool({ description: "The weather in a city", inputSchema: city });
    const { toolCalls } = await generateText({ model, prompt, tools: { weather }, toolChoice: "required", ...quiet });
    return toolCalls.map(({ toolName, input }) => ({ toolName, input }));
  },
  object: async () => {
    const { output } = await generateText({ model, prompt, output: Output.object({ schema: city }), ...quiet });
    return output;
  },
  embeddings: async () => {
    const { embeddings, usage } = await embedMany({ model: provider.embeddingModel("echo"), values: ["one", "two"] });
    return { lengths: embeddings.map((vector) => vector.length), usage };
  },
  refused: () => generateText({ model: provider("no-such-model"), prompt, ...quiet }),
  cut: () => watch("cut"),
  stopped: async () => {
    const before = await aborted();
    const controller = new AbortController();
    const result = streamText({ model: provider("stalls"), prompt, abortSignal: controller.signal, ...quiet });
    for await (const part of result.stream) {
      if (part.type === "text-delta") break;
    }
    controller.abort();
    await until(async () => (await aborted()) > before, 1000);
    return "within a second";
  },
  // `/ask` in its own format: events that the SDK's own reader takes apart.
  events: async () => {
    const messages = [{ role: "user", content: prompt }];
    const headers = { "content-type": "application/json", accept: "text/event-stream" };
    const body = JSON.stringify({ model: "echo", messages });
    const response = await fetch(`${server}/ask`, { method: "POST", headers, body });
    const event = jsonSchema({ type: "object" });
    const found = [];
    for await (const { success, value } of parseJsonEventStream({ stream: response.body, schema: event })) {
      if (success) found.push(value);
    }
    return found;
  },
});
process.exit(); // not before the last connection of the pool has timed out
