// Functions of the scripts beside this file, which run named scenarios and print their results as JSON. The tests in
// Python check the results.

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

/** Run all scenarios. The result of one that throws is the error. */
export async function run(scenarios) {
  const results = {};
  for (const [name, scenario] of Object.entries(scenarios)) {
    results[name] = await scenario().catch(describe);
  }
  console.log(JSON.stringify(results));
}

/** Return the fields of an error of the client. */
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

/** Wait until the condition holds. Throw after 20 seconds, which only a failing test takes. */
export async function until(condition) {
  const deadline = performance.now() + 20_000;
  while (!(await condition())) {
    if (performance.now() > deadline) throw new Error(`not true within 20 s: ${condition}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
