// One call: its attempts as a waterfall, times, tokens, cost, adaptations and bodies.

import { errorMessage, get } from "./api.js";
import { count, dollars, duration, element, fullTime, heading, problem, statusBadge } from "./view.js";

export function showCall(container, session, id) {
  const body = element("div", { class: "stack" });
  const back = element("a", { href: "#/requests", class: "push" }, "All requests");
  container.append(heading("Call", back), body);
  const load = async () => {
    try {
      body.replaceChildren(...parts(await get(`calls/${encodeURIComponent(id)}`), session));
    } catch (error) {
      body.replaceChildren(problem(errorMessage(error), load));
    }
  };
  load();
}

const parts = (call, session) => [summary(call), waterfall(call), details(call), ...bodies(call, session)];

function summary(call) {
  const route = call.target && call.target !== call.model ? `${call.model} → ${call.target}` : call.model || "(unknown)";
  const error = call.error && element("code", { class: "wrong" }, call.error);
  return element("p", { class: "summary" }, statusBadge(call), element("strong", {}, route), call.operation, error);
}

/** Return the attempts of a call. One without several targets or tries has a single one, made of its own times. */
function attemptsOf(call) {
  if (call.attempts.length) return call.attempts;
  const own = { target: call.target || call.model, start_ms: 0, first_byte_ms: call.first_token_ms };
  return [{ ...own, end_ms: call.duration_ms, error: call.error }];
}

function waterfall(call) {
  const whole = Math.max(call.duration_ms, ...attemptsOf(call).map(({ end_ms: end }) => end), 1);
  const ticks = [0, 0.25, 0.5, 0.75, 1].map((share) => element("span", {}, duration(whole * share)));
  const rows = attemptsOf(call).map((attempt, index) => toRow(attempt, index, whole));
  const legend = element(
    "p",
    { class: "legend" },
    element("span", { class: "key waiting" }, "waiting"),
    element("span", { class: "key answering" }, "answering"),
    element("span", { class: "key failed" }, "failed"),
  );
  return element(
    "section",
    { class: "card padded", "aria-labelledby": "waterfall-title" },
    element("div", { class: "card-head flat" }, element("h3", { id: "waterfall-title" }, "Attempts"), legend),
    element("ol", { class: "waterfall" }, rows),
    element("div", { class: "ticks", "aria-hidden": "true" }, element("span", {}, ticks)),
  );
}

function toRow(attempt, index, whole) {
  const { target, start_ms: start, first_byte_ms: first, end_ms: end, error } = attempt;
  const track = element("span", { class: "track", "aria-hidden": "true" });
  const from = first ?? end;
  track.append(segment(start, from, whole, error && first === null ? "failed" : "waiting"));
  if (first !== null) track.append(segment(first, end, whole, error ? "failed" : "answering"));
  const outcome = error ? `failed after ${duration(end - start)}` : `${duration(end - start)}`;
  const text = element("span", { class: "outcome" }, outcome, error && element("code", { class: "wrong" }, error));
  const label = element("span", { class: "target" }, `${index + 1}. ${target}`);
  const begun = element("span", { class: "hidden" }, `, begun at ${duration(start)}, `);
  return element("li", {}, label, begun, track, text);
}

/** Return a part of a bar, which is wide enough to be seen however short it was. */
function segment(from, to, whole, kind) {
  const node = element("span", { class: kind });
  node.style.left = `${(from / whole) * 100}%`;
  node.style.width = `max(3px, ${((to - from) / whole) * 100}%)`;
  return node;
}

function details(call) {
  const answering = call.duration_ms - (call.first_token_ms ?? call.duration_ms);
  const speed = call.is_streamed && call.output_tokens && answering > 0 ? (call.output_tokens / answering) * 1000 : null;
  const parts = [
    ["Started", fullTime(call.at_ms)],
    ["First token", duration(call.first_token_ms)],
    ["Duration", duration(call.duration_ms)],
    ["Speed", speed === null ? "–" : `${count(Math.round(speed))} tokens/s`],
    ["Input tokens", withPart(call.input_tokens, call.cached_tokens, "from the cache")],
    ["Output tokens", withPart(call.output_tokens, call.reasoning_tokens, "of reasoning")],
    ["Cost", dollars(call.cost)],
    ["Answer", call.is_streamed ? "streamed" : "complete"],
    ["Key", call.key_name ?? "none"],
    ["Project", call.project_id ?? "none"],
    ["Request id", element("code", {}, call.request_id)],
    ["Adapted", call.adapted ? element("code", {}, call.adapted) : "nothing"],
  ];
  const list = parts.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value)));
  return element("section", { class: "card padded", "aria-label": "Details" }, element("dl", { class: "details" }, list));
}

function withPart(tokens, part, meaning) {
  return part ? `${count(tokens)} (${count(part)} ${meaning})` : count(tokens);
}

function bodies(call, session) {
  if (!call.bodies) {
    const why = session.keeps_bodies ? "No body of this call was kept." : "Bodies are kept with CALL_LOG_BODIES=true.";
    return [element("p", { class: "note soft" }, why)];
  }
  const show = (title, text) =>
    element(
      "section",
      { class: "card", "aria-label": title },
      element("div", { class: "card-head" }, element("h3", {}, title), element("small", {}, "secrets masked")),
      element("pre", { tabindex: "0", "aria-label": `${title} body` }, indent(text) || "(empty)"),
    );
  return [show("Request", call.bodies.request), show("Answer", call.bodies.answer)];
}

/** Return JSON with line breaks, and any other text as it is. */
function indent(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}
