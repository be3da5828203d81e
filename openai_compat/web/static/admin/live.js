// Live: calls as they end.

import { get } from "./api.js";
import { poll } from "./polling.js";
import { CALL_COLUMNS, button, callCells, element, empty, heading, row, table } from "./view.js";

const INTERVAL = 1500;
const MOST = 200; // rows
const OVERLAP = 50; // calls that are read again, as those of several workers may be stored in another order

export function open(container) {
  const notice = element("div");
  const rows = element("tbody");
  const known = new Set();
  const waiting = empty("Waiting for calls", element("p", {}, "Each call appears here within two seconds of its end."));
  const calls = table("Calls as they end", CALL_COLUMNS, []);
  calls.tBodies[0].replaceWith(rows);
  const list = element("section", { class: "card", hidden: true }, calls);
  const pause = button("Pause", () => setPaused(!isPaused));
  let newest = null; // number of a call
  let floor = 0; // number before the calls of the first load
  let isPaused = false;
  container.append(heading("Live", element("span", { class: "pulse" }, "following"), pause), notice, waiting, list);

  function load(signal) {
    if (isPaused) return Promise.resolve({ data: [] });
    const after = Math.max(newest - OVERLAP, floor);
    return get(newest === null ? "calls?limit=30" : `calls?limit=${MOST}&after=${after}`, signal);
  }

  function show({ data }) {
    const isFirst = newest === null;
    if (isFirst) floor = data.length ? data.at(-1).number - 1 : 0;
    const fresh = data.filter(({ id }) => !known.has(id));
    newest = Math.max(newest ?? 0, ...data.map(({ number }) => number));
    if (!fresh.length) return;
    fresh.forEach(({ id }) => known.add(id));
    rows.prepend(...fresh.map((call) => toRow(call, !isFirst)));
    while (rows.children.length > MOST) rows.lastChild.remove();
    list.hidden = false;
    waiting.hidden = true;
  }

  function setPaused(value) {
    isPaused = value;
    pause.textContent = isPaused ? "Continue" : "Pause";
    container.querySelector(".pulse").textContent = isPaused ? "paused" : "following";
    container.querySelector(".pulse").classList.toggle("still", isPaused);
    if (!isPaused) page.reload();
  }

  const page = poll(INTERVAL, load, show, notice);
  return page.close;
}

function toRow(call, isNew) {
  const node = row(CALL_COLUMNS, callCells(call));
  if (isNew) node.className = "new";
  return node;
}
