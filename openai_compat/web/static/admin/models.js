// Models and their targets, with the state of their circuits and a test.

import { errorMessage, get, testModel } from "./api.js";
import { poll } from "./polling.js";
import { badge, bar, button, count, duration, element, empty, heading, lasting, percent, row, switcher } from "./view.js";

const SPANS = { hour: "Hour", day: "Day", month: "Month" };
const INTERVAL = 5000;
const COLUMNS = [
  ["Model", "model"],
  ["Circuit", "circuit"],
  ["Share of calls", "share wide"],
  ["Calls", "number"],
  ["Errors", "number wide"],
  ["First token", "number wide"],
  ["Duration", "number wide"],
  ["Test", "action"],
];
const KINDS = { closed: "good", open: "wrong", "half-open": "fair" };
let span = "hour";

function circuit(state) {
  if (!state) return element("span", { class: "soft" }, "none");
  const left = state.until && lasting(Math.max(state.until - Date.now() / 1000, 0));
  return badge(left ? `${state.state}, ${left} left` : state.state, KINDS[state.state]);
}

/** Return a button that tests a target, and the place of its result. Both outlive the next load of the page. */
function tester(model, target, results) {
  const key = `${model}\n${target}`;
  const result = results.get(key) ?? element("small", { class: "line result", role: "status" });
  results.set(key, result);
  const run = async (event) => {
    const pressed = event.currentTarget;
    pressed.disabled = true;
    result.className = "line result soft";
    result.textContent = "waiting for the answer …";
    try {
      const { ms, text, servedBy } = await testModel(model, target);
      const by = servedBy && servedBy !== target ? `, answered by ${servedBy}` : "";
      result.className = "line result right";
      result.textContent = `${duration(ms)}${by}: “${text.trim().slice(0, 60)}”`;
    } catch (error) {
      result.className = "line result wrong";
      result.textContent = `${error.status ?? ""} ${error.code || "error"}: ${errorMessage(error).slice(0, 200)}`.trim();
    }
    pressed.disabled = false;
    pressed.focus();
  };
  return [button("Test", run, { "aria-label": `Test ${target}${target === model ? "" : ` of ${model}`}` }), result];
}

function targetRow(model, target, results) {
  const figures = target.figures ?? { calls: 0, errors: 0, first_token_ms: null, duration_ms: null };
  const [test, result] = tester(model, target.model, results);
  const about = [target.kind, target.role].filter(Boolean).join(" · ");
  return row(COLUMNS, [
    [element("span", { class: "name" }, target.model || "(unknown)"), element("small", { class: "line" }, about), result],
    circuit(target.circuit),
    target.share === null
      ? element("span", { class: "soft" }, "no calls")
      : [bar(target.share, `${percent(target.share)} of the calls`), element("small", {}, percent(target.share))],
    count(figures.calls),
    figures.errors ? element("span", { class: "wrong" }, count(figures.errors)) : "0",
    duration(figures.first_token_ms),
    duration(figures.duration_ms),
    test,
  ]);
}

const targetTable = (label, rows) => {
  const head = COLUMNS.map(([text, name]) => element("th", { scope: "col", class: name }, text));
  return element(
    "table",
    { "aria-label": label },
    element("thead", {}, element("tr", {}, head)),
    element("tbody", {}, rows),
  );
};

const isRoute = ({ model, targets }) => targets.length > 1 || targets[0]?.model !== model;
const callsOf = ({ targets }) => targets.reduce((sum, { figures }) => sum + (figures?.calls ?? 0), 0);

/** Return the card of a model with several targets, or whose calls go to another one. */
function routeCard(model, results) {
  const about = [model.kind || "not configured", model.targets.length > 1 && model.strategy?.replace("_", " ")];
  const [test, result] = tester(model.model, model.model, results);
  return element(
    "section",
    { class: "card", "aria-label": model.model },
    element(
      "div",
      { class: "card-head" },
      element("h3", {}, model.model),
      element("small", {}, about.filter(Boolean).join(" · ")),
      result,
      element("span", { class: "push" }, test),
    ),
    targetTable(`Targets of ${model.model}`, model.targets.map((target) => targetRow(model.model, target, results))),
  );
}

/** Return the card of all models without further targets. Their share is that of all calls. */
function singlesCard(models, total, results) {
  const rows = models.map((model) => {
    const share = total ? callsOf(model) / total : null;
    return targetRow(model.model, { ...model.targets[0], share }, results);
  });
  return element("section", { class: "card", "aria-label": "Models" }, targetTable("Models", rows));
}

function cards(models, results) {
  const total = models.reduce((sum, model) => sum + callsOf(model), 0);
  const singles = models.filter((model) => !isRoute(model));
  const routes = models.filter(isRoute).map((model) => routeCard(model, results));
  return singles.length ? [...routes, singlesCard(singles, total, results)] : routes;
}

const noModels = () =>
  empty(
    "No models are configured",
    element("p", {}, "Every call goes to the default upstream. Models that were called appear here."),
    element("p", {}, "MODELS_FILE names a file with models, their targets and fallbacks."),
  );

export function open(container) {
  const notice = element("div");
  const list = element("div", { class: "stack" });
  const results = new Map();
  let page;
  const choose = (value) => {
    span = value;
    page.reload();
  };
  container.append(heading("Models", switcher("Time", "span", SPANS, span, choose)), notice, list);

  function show({ models }) {
    if (list.querySelector("button:disabled")) return; // a test is running
    const focused = document.activeElement?.getAttribute("aria-label");
    const hadFocus = list.contains(document.activeElement);
    list.replaceChildren(...(models.length ? cards(models, results) : [noModels()]));
    if (hadFocus) list.querySelector(`[aria-label="${CSS.escape(focused)}"]`)?.focus();
  }

  page = poll(INTERVAL, (signal) => get(`models?span=${span}`, signal), show, notice);
  return page.close;
}
