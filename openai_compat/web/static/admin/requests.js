// Requests: the latest calls with filters, and one of them in detail.

import { errorMessage, get } from "./api.js";
import { showCall } from "./callDetail.js";
import { CALL_COLUMNS, button, callCells, element, empty, field, heading, problem, row, select, table } from "./view.js";

const PAGE = 50;
const STATUSES = [
  ["all", "All"],
  ["ok", "Succeeded"],
  ["failed", "Failed"],
];
const chosen = { model: "", key: "", status: "all" };

export function open(container, session, id) {
  return id ? showCall(container, session, id) : showList(container, session);
}

function showList(container, session) {
  const notice = element("div", { role: "status" });
  const list = element("section", { class: "card" });
  const more = button("Show older calls", () => load(cursor), { hidden: true });
  const rows = element("tbody");
  let cursor = null;
  let controller = new AbortController();

  async function load(before) {
    controller.abort();
    const { signal } = (controller = new AbortController());
    const query = new URLSearchParams({ limit: PAGE, status: chosen.status });
    for (const name of ["model", "key"]) if (chosen[name]) query.set(name, chosen[name]);
    if (before) query.set("before", before);
    try {
      show(await get(`calls?${query}`, signal), before);
    } catch (error) {
      if (!signal.aborted) notice.replaceChildren(problem(errorMessage(error), () => load(before)));
    }
  }

  function show({ data, has_more: hasMore }, before) {
    notice.replaceChildren();
    const shown = data.map((call) => row(CALL_COLUMNS, callCells(call)));
    if (before) rows.append(...shown);
    else rows.replaceChildren(...shown);
    cursor = data.at(-1)?.number ?? null;
    more.hidden = !hasMore;
    list.hidden = !rows.hasChildNodes();
    if (list.hidden) notice.replaceChildren(noCalls());
  }

  const calls = table("Calls", CALL_COLUMNS, []);
  calls.tBodies[0].replaceWith(rows);
  list.append(calls);
  const note = element("small", {}, `The latest ${session.call_log_size.toLocaleString("en")} calls are kept.`);
  container.append(
    heading("Requests", button("Refresh", () => load(null))),
    filters(() => load(null)),
    notice,
    list,
    element("div", { class: "more" }, more, note),
  );
  load(null);
  return () => controller.abort();
}

function noCalls() {
  const isFiltered = chosen.model || chosen.key || chosen.status !== "all";
  return isFiltered
    ? empty("No call matches", element("p", {}, "Choose another model, key or status."))
    : empty("No calls yet", element("p", {}, "Calls appear here within two seconds."));
}

/** Return the form of the filters. Models and keys are added when they are known. */
function filters(onChange) {
  const add = (label, name, choices) => {
    const input = select(choices, chosen[name]);
    input.addEventListener("change", () => {
      chosen[name] = input.value;
      onChange();
    });
    return field(label, input);
  };
  const models = add("Model", "model", [["", "All"]]);
  const keys = add("Key", "key", [["", "All"]]);
  fill(models, "model", get("models?span=month"), ({ models }) => models.map(({ model }) => [model, model]));
  fill(keys, "key", get("accounts"), (found) => found.keys.map(({ id, name }) => [id, name]));
  return element("form", { class: "filters", role: "search" }, models, keys, add("Status", "status", STATUSES));
}

async function fill(node, name, loading, toChoices) {
  const found = await loading.then(toChoices).catch(() => []); // without them the other filters work
  const input = node.querySelector("select");
  for (const [value, text] of found) input.append(element("option", { value, selected: value === chosen[name] }, text));
}
