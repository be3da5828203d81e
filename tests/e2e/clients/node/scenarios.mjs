// What the scripts beside this file share: scenarios with a name, run one after the other, and one JSON object of what
// came of each. Python judges the results: `test_node_client.py`.

export const question = [{ role: "user", content: "hello there" }];

export const weather = {
  type: "function",
  function: {
    name: "get_weather",
    description: "The weather in a city",
    parameters: {
      type: "object",
      properties: { city: { type: "string" }, days: { type: "integer" } },
      required: ["city", "days"],
      additionalProperties: false,
    },
    strict: true,
  },
};

/** Runs all scenarios; one that throws has the error as its result. */
export async function run(scenarios) {
  const results = {};
  for (const [name, scenario] of Object.entries(scenarios)) {
    results[name] = await scenario().catch(describe);
  }
  console.log(JSON.stringify(results));
}

/** What a program can learn from an error of the client. */
export function describe(error) {
  const { name, status, code, param, type, message, requestID } = error;
  return { thrown: error.constructor.name, name, status, code, param, type, message, hasRequestID: Boolean(requestID) };
}

export async function collect(stream) {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return chunks;
}

export const textOf = (chunks) => chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join("");

/** Waits until `isTrue` says so; throws after `milliseconds`. */
export async function until(isTrue, milliseconds) {
  const deadline = performance.now() + milliseconds;
  while (!(await isTrue())) {
    if (performance.now() > deadline) throw new Error(`not so within ${milliseconds} ms`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
