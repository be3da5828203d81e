// Elements and texts that all pages share.

/** Return an element. Attributes that are null or false are left out, and a function is a listener (`onclick`). */
export function element(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [attribute, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(attribute.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) {
      node.setAttribute(attribute, value === true ? "" : value);
    }
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

export const button = (text, onclick, attributes = {}) =>
  element("button", { type: "button", class: "plain", onclick, ...attributes }, text);

/** Return the heading of a page, which gets the focus when the page opens. */
export const heading = (text, ...rest) =>
  element("div", { class: "heading" }, element("h2", { tabindex: "-1" }, text), ...rest);

/** Return a table. Columns are `[heading, class]`, and rows lists of cells, each a text, a node or a list of them. */
export function table(label, columns, rows, attributes = {}) {
  const head = columns.map(([text, name]) => element("th", { scope: "col", class: name }, text));
  return element(
    "table",
    { "aria-label": label, ...attributes },
    element("thead", {}, element("tr", {}, head)),
    element("tbody", {}, rows.map((cells) => row(columns, cells))),
  );
}

export const row = (columns, cells) =>
  element("tr", {}, cells.map((cell, index) => element("td", { class: columns[index][1] }, cell)));

export const empty = (title, ...children) =>
  element("div", { class: "empty card" }, element("h3", {}, title), ...children);

/** Return a box with an error and a button that tries again. */
export const problem = (message, retry) =>
  element("div", { class: "problem", role: "alert" }, element("p", {}, message), button("Try again", retry));

export const badge = (text, kind) => element("span", { class: `badge ${kind}` }, text);

/** Return a bar that is filled to a share between 0 and 1. */
export function bar(share, label, kind = "") {
  const filling = element("span");
  filling.style.width = `${Math.min(Math.max(share, 0), 1) * 100}%`;
  return element("span", { class: `bar ${kind}`, role: "img", "aria-label": label }, filling);
}

/** Return radio buttons that look like one switch. */
export function switcher(label, name, choices, chosen, onChange) {
  const options = Object.entries(choices).map(([value, text]) => {
    const input = element("input", { type: "radio", name, value, onchange: () => onChange(value) });
    input.checked = value === chosen;
    return element("label", {}, input, element("span", {}, text));
  });
  return element("fieldset", { class: "switcher" }, element("legend", { class: "hidden" }, label), options);
}

export function field(label, input, hint) {
  input.id ||= `field-${label.toLowerCase().replace(/\W+/g, "-")}`;
  const note = hint && element("small", { id: `${input.id}-hint` }, hint);
  if (note) input.setAttribute("aria-describedby", note.id);
  return element("div", { class: "field" }, element("label", { for: input.id }, label), input, note);
}

export function select(choices, chosen) {
  const options = choices.map(([value, text]) => element("option", { value, selected: value === chosen }, text));
  return element("select", {}, options);
}

/** Show a dialog until it is closed, and return its element. The focus returns to where it was. */
export function dialog(title, ...children) {
  const id = "dialog-title";
  const node = element("dialog", { "aria-labelledby": id }, element("h2", { id }, title), ...children);
  node.addEventListener("close", () => node.remove());
  document.body.append(node);
  node.showModal();
  return node;
}

// --- texts ----------------------------------------------------------------------------------------------------------

const whole = new Intl.NumberFormat("en");
const short = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });
const NOTHING = "–";

export const count = (number) => (number === null || number === undefined ? NOTHING : whole.format(number));
export const compact = (number) =>
  number === null || number === undefined ? NOTHING : number < 10_000 ? whole.format(number) : short.format(number);
export const percent = (share) => (share === null ? NOTHING : `${(share * 100).toFixed(share && share < 0.1 ? 1 : 0)} %`);

/** Return an amount in dollars, with as many digits as tell it from zero, or as the `others` beside it need. */
export function dollars(amount, others = [amount]) {
  if (amount === null || amount === undefined) return NOTHING;
  const digits = Math.max(...others.map(digitsOf));
  return `$${amount.toFixed(digits).replace(/\B(?=(\d{3})+(?=\.))/g, ",")}`;
}

const digitsOf = (amount) =>
  amount && Math.abs(amount) < 0.1 ? Math.min(1 - Math.floor(Math.log10(Math.abs(amount))), 9) : 2;

export function duration(ms) {
  if (ms === null || ms === undefined) return NOTHING;
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 60_000) return `${(ms / 1000).toFixed(ms < 10_000 ? 2 : 1)} s`;
  return `${Math.floor(ms / 60_000)} min ${Math.round((ms % 60_000) / 1000)} s`;
}

const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });
const full = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium" });

/** Return the time of day, with the date if it is not today's. */
export function timeOf(ms) {
  const date = new Date(ms);
  const isToday = date.toDateString() === new Date().toDateString();
  return isToday ? clock.format(date) : `${day.format(date)} ${clock.format(date)}`;
}
export const fullTime = (ms) => full.format(new Date(ms));

/** Return the seconds of a window as words. */
export function lasting(seconds) {
  if (seconds < 90) return `${Math.ceil(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 2 * 86_400) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86_400)} days`;
}

// --- calls ----------------------------------------------------------------------------------------------------------

export const CALL_COLUMNS = [
  ["Time", "time"],
  ["Model", "model"],
  ["Key", "wide"],
  ["Status", ""],
  ["Tokens", "number wide"],
  ["Cost", "number wide"],
  ["First token", "number wide"],
  ["Duration", "number"],
];

const CLIENT_GONE = 499;

export function statusBadge({ status, error, is_failed: isFailed }) {
  if (!isFailed) return badge(String(status), "good");
  if (status === CLIENT_GONE) return badge("client left", "soft");
  return badge(status < 400 ? `${status}, then failed` : String(status), status === 429 ? "fair" : "wrong");
}

/** Return the cells of a call for `CALL_COLUMNS`. */
export function callCells(call) {
  const isElsewhere = call.target && call.target !== call.model;
  return [
    element("a", { href: `#/requests/${call.id}`, "aria-label": `Call of ${fullTime(call.at_ms)}` }, timeOf(call.at_ms)),
    [
      element("span", { class: "name" }, call.model || "(unknown)"),
      isElsewhere && element("small", {}, ` → ${call.target}`),
      element("small", { class: "line operation" }, call.operation, call.is_streamed ? " · streamed" : ""),
    ],
    call.key_name ?? element("span", { class: "soft" }, "no key"),
    [statusBadge(call), call.error && element("small", { class: "line" }, call.error)],
    call.input_tokens === null ? NOTHING : `${compact(call.input_tokens)} → ${compact(call.output_tokens)}`,
    dollars(call.cost),
    duration(call.first_token_ms),
    duration(call.duration_ms),
  ];
}
