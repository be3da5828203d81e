// Code examples for the chosen model.

import { ROOT } from "./api.js";

// The request for each capability, with its names in the API and in both official clients.
const CALLS = {
  chat: {
    path: "chat/completions",
    body: (model) => ({ model, messages: [{ role: "user", content: "Hello!" }] }),
    method: "chat.completions",
    result: { python: "answer.choices[0].message.content", javascript: "answer.choices[0].message.content" },
  },
  completions: {
    path: "completions",
    body: (model) => ({ model, prompt: "Once upon a time" }),
    method: "completions",
    result: { python: "answer.choices[0].text", javascript: "answer.choices[0].text" },
  },
  embeddings: {
    path: "embeddings",
    body: (model) => ({ model, input: "Hello!" }),
    method: "embeddings",
    result: { python: "len(answer.data[0].embedding)", javascript: "answer.data[0].embedding.length" },
  },
};

/** Return the capability to use a model for. It is chat, unless the model supports only others. */
export function useOf(capabilities) {
  if (!capabilities || capabilities.includes("forwarding")) return "chat";
  return Object.keys(CALLS).find((name) => capabilities.includes(name)) ?? "chat";
}

/** Return the same call in three languages, by the name of the language. */
export function snippets(model, use, needsKey) {
  const call = CALLS[use];
  const body = call.body(model);
  const key = needsKey ? "YOUR_KEY" : "anything";
  return { curl: curl(call, body, needsKey), Python: python(call, body, key), JavaScript: javascript(call, body, key) };
}

function curl(call, body, needsKey) {
  const lines = [`curl ${ROOT}/${call.path}`, `-H "Content-Type: application/json"`];
  if (needsKey) lines.push(`-H "Authorization: Bearer YOUR_KEY"`);
  lines.push(`-d '${JSON.stringify(body).replaceAll("'", "'\\''")}'`);
  return lines.join(" \\\n  ");
}

function python(call, body, key) {
  const parameters = Object.entries(body).map(([name, value]) => `    ${name}=${JSON.stringify(value)},\n`);
  return `from openai import OpenAI

client = OpenAI(base_url="${ROOT}", api_key="${key}")

answer = client.${call.method}.create(
${parameters.join("")})
print(${call.result.python})`;
}

function javascript(call, body, key) {
  const parameters = Object.entries(body).map(([name, value]) => `  ${name}: ${JSON.stringify(value)},\n`);
  return `import OpenAI from "openai";

const client = new OpenAI({ baseURL: "${ROOT}", apiKey: "${key}" });

const answer = await client.${call.method}.create({
${parameters.join("")}});
console.log(${call.result.javascript});`;
}
