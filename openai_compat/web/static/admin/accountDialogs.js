// Dialogs that create and change projects and keys.

import { errorMessage } from "./api.js";
import { button, dialog, element, field, select } from "./view.js";

const WINDOWS = [
  ["month", "a month"],
  ["week", "a week"],
  ["day", "a day"],
  ["hour", "an hour"],
  ["", "in all"],
];
const LIMITS = {
  requests_per_minute: "Requests per minute",
  tokens_per_minute: "Tokens per minute",
  requests_per_day: "Requests per day",
  concurrent_requests: "Requests at once",
};
const OVERLAPS = [
  ["0", "at once"],
  ["3600", "in an hour"],
  ["86400", "in a day"],
  ["604800", "in a week"],
];

/** Show a form until `save` succeeds, and call `done` with its result. An error is shown in the form. */
function form(title, children, submitText, save, { tone = "strong", done = () => {} } = {}) {
  const message = element("p", { class: "wrong", role: "alert", hidden: true });
  const submit = element("button", { class: tone }, submitText);
  const cancel = button("Cancel", () => node.close());
  const body = element("form", { method: "dialog" }, children, message, element("div", { class: "buttons" }, cancel, submit));
  const node = dialog(title, body);
  body.addEventListener("submit", async (event) => {
    event.preventDefault();
    submit.disabled = true;
    try {
      const result = await save();
      node.close();
      done(result);
    } catch (error) {
      message.textContent = errorMessage(error);
      message.hidden = false;
    }
    submit.disabled = false;
  });
  return node;
}

const number = (value, step = "1") =>
  element("input", { type: "number", min: "0", step, inputmode: step === "1" ? "numeric" : "decimal", value });

/** Ask for the values of a project, of a key (with `projects`), or of an `account` that exists. */
export function askForAccount(title, { account = null, projects = null, save, done }) {
  const policy = account?.policy ?? { models: [], endpoints: [], limits: {}, budgets: [], end_users: null };
  const name = element("input", { required: true, maxlength: "200", autocomplete: "off", value: account?.name ?? "" });
  const project = projects?.length && select(projects.filter(({ enabled }) => enabled).map(({ id, name }) => [id, name]));
  const amount = number(policy.budgets[0]?.amount, "any");
  const every = select(windowsWith(policy.budgets[0]?.every), policy.budgets[0]?.every ?? (policy.budgets.length ? "" : "month"));
  every.setAttribute("aria-label", "Window of the budget");
  const models = element("input", { autocomplete: "off", value: policy.models.join(", "), placeholder: "gpt-4o*, o3" });
  const limits = Object.fromEntries(Object.keys(LIMITS).map((limit) => [limit, number(policy.limits[limit])]));

  const read = () => ({
    name: name.value,
    ...(project ? { project: project.value } : {}),
    policy: {
      ...policy,
      models: models.value.split(",").map((text) => text.trim()).filter(Boolean),
      limits: { ...policy.limits, ...numbersOf(limits) },
      budgets: budgetsOf(policy.budgets, amount.value, every.value),
    },
  });
  const budget = field("Budget in dollars", amount, "Empty for none.");
  budget.append(every);
  form(
    title,
    [
      field("Name", name),
      project ? field("Project", project) : "",
      budget,
      element("div", { class: "columns" }, Object.entries(limits).map(([limit, input]) => field(LIMITS[limit], input))),
      field("Models", models, "Names or patterns with *, separated by commas. Empty for all."),
    ],
    account ? "Save" : "Create",
    () => save(read()),
    { done },
  );
}

/** Return the windows to choose from, with that of a budget that has another one, such as `30d`. */
const windowsWith = (every) =>
  !every || WINDOWS.some(([value]) => value === every) ? WINDOWS : [[every, `in ${every}`], ...WINDOWS];

/** Return the limits that are set, and null for the others, which removes them. */
const numbersOf = (inputs) =>
  Object.fromEntries(Object.entries(inputs).map(([name, { value }]) => [name, value === "" ? null : Number(value)]));

/** Return the budgets with the first one changed, added or removed. The others stay as they are. */
function budgetsOf([first, ...others], amount, every) {
  if (amount === "") return others;
  return [{ time_zone: "UTC", ...first, amount: Number(amount), every: every || null }, ...others];
}

export function confirmAction(title, text, submitText, act) {
  form(title, [element("p", {}, text)], submitText, () => act(), { tone: "strong danger" });
}

export function askForRotation(key, rotate) {
  const overlap = select(OVERLAPS, "0");
  form(
    `Rotate ${key.name}?`,
    [
      element("p", {}, "The key gets another secret. Its limits, budgets and usage go on."),
      field("The old secret ends", overlap),
    ],
    "Rotate",
    () => rotate({ overlap_seconds: Number(overlap.value) }),
    { done: showSecret },
  );
}

/** Show the secret of a key, which the server tells only this once. */
export function showSecret(key) {
  const secret = element("input", { readonly: true, value: key.value, class: "secret", "aria-label": "Secret of the key" });
  const copy = button("Copy", async () => {
    secret.select();
    await navigator.clipboard?.writeText(key.value); // plain HTTP on another host has no clipboard
    copy.textContent = "Copied";
  });
  const node = dialog(
    `Key ${key.name}`,
    element("p", {}, "Copy the secret now. It is shown this once and stored nowhere."),
    element("div", { class: "copy" }, secret, copy),
    element("div", { class: "buttons" }, button("Done", () => node.close(), { class: "strong" })),
  );
  secret.select();
}
