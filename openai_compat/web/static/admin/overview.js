// Overview: figures, plots and models of the last hour, day or month.

import { get } from "./api.js";
import { plot } from "./plot.js";
import { poll } from "./polling.js";
import { compact, count, dollars, duration, element, empty, heading, percent, switcher, table } from "./view.js";

const SPANS = { hour: "Hour", day: "Day", month: "Month" };
const INTERVAL = 5000;
const COLUMNS = [
  ["Model", "model"],
  ["Calls", "number"],
  ["Errors", "number"],
  ["Tokens in → out", "number wide"],
  ["Cost", "number"],
  ["First token", "number wide"],
  ["Duration", "number wide"],
];
let span = "hour";

const total = (values) => values.reduce((sum, value) => sum + (value ?? 0), 0);
const largest = (values) => Math.max(0, ...values.map((value) => value ?? 0));

const minute = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const dayAndHour = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });
const timeFormat = (seconds) => (span === "month" ? dayAndHour : minute).format(new Date(seconds * 1000));

function plots() {
  return {
    calls: plot(
      "Calls",
      [
        { label: "calls", tone: "accent", isBar: true },
        { label: "errors", tone: "wrong", isBar: true },
      ],
      compact,
      timeFormat,
      ([calls, errors]) => `${count(total(calls))} calls, ${count(total(errors))} errors`,
    ),
    tokens: plot(
      "Tokens",
      [
        { label: "in", tone: "accent" },
        { label: "out", tone: "second" },
      ],
      compact,
      timeFormat,
      ([input, output]) => `${compact(total(input))} in, ${compact(total(output))} out`,
    ),
    cost: plot("Cost", [{ label: "cost", tone: "accent", isBar: true }], dollars, timeFormat, ([cost]) =>
      dollars(total(cost)),
    ),
    latency: plot(
      "Latency",
      [
        { label: "first token", tone: "accent" },
        { label: "complete", tone: "second" },
      ],
      duration,
      timeFormat,
      ([first, complete]) => `first token up to ${duration(largest(first))}, complete ${duration(largest(complete))}`,
    ),
  };
}

function figure(label, value, note = "", tone = "") {
  const text = element("dd", { class: tone }, value, note && element("small", {}, note));
  return element("div", {}, element("dt", {}, label), text);
}

function figures({ totals, streams }) {
  const rate = totals.calls ? totals.errors / totals.calls : null;
  return [
    figure("Calls", count(totals.calls)),
    figure("Errors", count(totals.errors), rate === null ? "" : percent(rate), totals.errors ? "wrong" : ""),
    figure("Tokens", compact(totals.input_tokens + totals.output_tokens), `${compact(totals.output_tokens)} out`),
    figure("Cost", dollars(totals.cost)),
    figure("First token", duration(totals.first_token_ms), "on average"),
    figure("Live streams", count(streams), "now"),
  ];
}

const toRow = (model) => [
  model.model || "(unknown)",
  count(model.calls),
  model.errors ? element("span", { class: "wrong" }, count(model.errors)) : "0",
  `${compact(model.input_tokens)} → ${compact(model.output_tokens)}`,
  dollars(model.cost),
  duration(model.first_token_ms),
  duration(model.duration_ms),
];

function firstCall() {
  const url = new URL("v1/chat/completions", document.baseURI).href;
  const body = '{"model": "MODEL", "messages": [{"role": "user", "content": "Hello!"}]}';
  const command = `curl ${url} \\\n  -H "Content-Type: application/json" \\\n  -d '${body}'`;
  return empty(
    "No calls yet",
    element("p", {}, "Calls appear here within two seconds. Send the first one, with a key if you have created any:"),
    element("pre", { tabindex: "0" }, command),
  );
}

export function open(container) {
  const notice = element("div");
  const kpis = element("dl", { class: "figures" });
  const body = element("div");
  let drawn = null;
  let page;

  const chooseSpan = (value) => {
    span = value;
    page.reload();
  };
  container.append(heading("Overview", switcher("Time", "span", SPANS, span, chooseSpan)), notice, kpis, body);

  function show(report) {
    kpis.replaceChildren(...figures(report));
    if (!report.totals.calls && span === "hour") return showEmpty();
    if (!drawn) {
      drawn = plots();
      const models = element("section", { class: "card", id: "by-model" });
      const grid = element("div", { class: "plots" }, Object.values(drawn).map(({ node }) => node));
      body.replaceChildren(grid, models);
    }
    const { time, ...series } = report.series;
    drawn.calls.show(time, series.calls, series.errors);
    drawn.tokens.show(time, series.input_tokens, series.output_tokens);
    drawn.cost.show(time, series.cost);
    drawn.latency.show(time, series.first_token_ms, series.duration_ms);
    const missing = report.dropped && `${count(report.dropped)} calls are missing in the log, as the database was away.`;
    body.querySelector("#by-model").replaceChildren(
      table("Models", COLUMNS, report.models.map(toRow)),
      missing ? element("p", { class: "note wrong" }, missing) : "",
    );
  }

  function showEmpty() {
    forget();
    body.replaceChildren(firstCall());
  }

  function forget() {
    Object.values(drawn ?? {}).forEach((one) => one.close());
    drawn = null;
  }

  page = poll(INTERVAL, (signal) => get(`overview?span=${span}`, signal), show, notice);
  return () => {
    page.close();
    forget();
  };
}
