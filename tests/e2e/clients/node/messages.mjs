// The Messages API with Anthropic's Node client and the AI SDK's provider.
//
//     node messages.mjs <server> <key> <model>
//
// `model` is one that answers with the question. The server also has the models `echo`, `cut`, whose streams break, and
// `limited`, which answers 429. The script prints a JSON object with the result of each scenario.

import Anthropic from "@anthropic-ai/sdk";
import { createAnthropic } from "@ai-sdk/anthropic";
import { generateText, jsonSchema, Output, stepCountIs, streamText, tool } from "ai";
import { describe, run } from "./scenarios.mjs";

const [server, apiKey, model] = process.argv.slice(2);
const client = new Anthropic({ baseURL: server, apiKey, maxRetries: 0 });
const provider = createAnthropic({ baseURL: `${server}/v1`, apiKey });
const messages = [{ role: "user", content: "one two three" }];
const question = { model, max_tokens: 100, messages };
const schema = {
  type: "object",
  properties: { city: { type: "string" } },
  required: ["city"],
  additionalProperties: false,
};
const weather = { name: "get_weather", description: "Get the weather.", input_schema: schema };
const source = { type: "base64", media_type: "image/png", data: "iVBORw0KGgo=" };
const forced = { tools: [weather], tool_choice: { type: "any" } };

const textOf = ({ content }) => content.map((block) => block.text ?? "").join("");

/** Return the deltas of a stream of the AI SDK, its errors and its end. */
async function watch(name) {
  const deltas = [];
  const errors = [];
  const options = { maxRetries: 0, onError: () => {} };
  for await (const part of streamText({ model: provider(name), prompt: "one two three", ...options }).fullStream) {
    if (part.type === "text-delta") deltas.push(part.text);
    if (part.type === "error") errors.push(String(part.error));
    if (part.type === "finish") return { deltas, errors, finishReason: part.finishReason, usage: part.totalUsage };
  }
  return { deltas, errors };
}

await run({
  create: async () => {
    const message = await client.messages.create({ ...question, system: "Be brief." });
    return { ...message, text: textOf(message) };
  },
  stream: async () => {
    const deltas = [];
    const stream = client.messages.stream(question).on("text", (delta) => deltas.push(delta));
    const message = await stream.finalMessage();
    return { deltas, text: textOf(message), stopReason: message.stop_reason, usage: message.usage };
  },
  tool: async () => {
    const { content, stop_reason } = await client.messages.stream({ ...question, ...forced }).finalMessage();
    const call = content.find((block) => block.type === "tool_use");
    const result = { type: "tool_result", tool_use_id: call.id, content: "It is sunny." };
    const turns = [...messages, { role: "assistant", content }, { role: "user", content: [result] }];
    const final = await client.messages.create({ ...question, messages: turns, tools: [weather] });
    return { name: call.name, input: call.input, stopReason: stop_reason, finalReason: final.stop_reason };
  },
  runner: async () => {
    let cities = 0;
    const run = async () => {
      cities += 1;
      return "It is sunny.";
    };
    const call = { ...question, model: "echo", messages: [{ role: "user", content: "Call get_weather." }] };
    const runner = client.beta.messages.toolRunner({ ...call, tools: [{ ...weather, run }] });
    return { cities: (await runner.runUntilDone(), cities), finalReason: (await runner.done()).stop_reason };
  },
  image: async () => {
    const content = [{ type: "image", source }, { type: "text", text: "one two" }];
    return textOf(await client.messages.create({ ...question, messages: [{ role: "user", content }] }));
  },
  count: () => client.messages.countTokens({ model, messages }),
  models: async () => {
    const names = [];
    for await (const { id } of client.models.list({ limit: 1 })) names.push(id);
    return { names, one: await client.models.retrieve(model) };
  },
  unknown: () => client.messages.create({ ...question, model: "nope" }),
  unlisted: () => client.models.retrieve("nope"),
  limited: () => client.messages.create({ ...question, model: "limited" }),
  refused: () => new Anthropic({ baseURL: server, apiKey: "wrong", maxRetries: 0 }).messages.create(question),
  cut: () => client.messages.stream({ ...question, model: "cut" }).finalMessage(),
  cutType: async () => {
    const error = await client.messages.stream({ ...question, model: "cut" }).finalMessage().catch((caught) => caught);
    return { ...describe(error), body: error.error };
  },
  aiText: async () => {
    const { text, finishReason, usage } = await generateText({ model: provider(model), prompt: "one two" });
    return { text, finishReason, usage };
  },
  aiStream: () => watch(model),
  aiCut: () => watch("cut"),
  aiTools: async () => {
    const execute = async () => "It is sunny.";
    const tools = { get_weather: tool({ description: "Get the weather.", inputSchema: jsonSchema(schema), execute }) };
    const options = { model: provider(model), prompt: "Call get_weather", tools, stopWhen: stepCountIs(3) };
    const { steps } = await generateText(options);
    return { calls: steps[0].toolCalls.map(({ toolName }) => toolName), steps: steps.length };
  },
  aiObject: async () => {
    const output = Output.object({ schema: jsonSchema(schema) });
    return (await generateText({ model: provider("echo"), prompt: "Rome", output })).output;
  },
  aiUnknown: () => generateText({ model: provider("nope"), prompt: "x", maxRetries: 0 }),
});
