// The AI SDK's provider for OpenAI-compatible servers, with the echo model and models of the mock upstream.
//
//     node provider.mjs <server> <mock upstream>
//
// It prints a JSON object with the result of each scenario.

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

/** Return the deltas of a stream, its errors and its end. */
async function watch(name, options = {}) {
  const deltas = [];
  const errors = [];
  const result = streamText({ model: provider(name), prompt, ...quiet, ...options });
  for await (const part of result.stream) {
    if (part.type === "text-delta") deltas.push(part.text);
    if (part.type === "error") errors.push(String(part.error));
    if (part.type === "finish") return { deltas, errors, finishReason: part.finishReason, usage: part.totalUsage };
  }
  return { deltas, errors };
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
    await until(async () => (await aborted()) > before);
    return "the upstream request was aborted";
  },
  // The events of `/ask`, parsed by the SDK.
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
process.exit(); // idle connections would keep the process alive
