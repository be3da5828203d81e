// Keys and budgets: projects and their keys, with what they used of their limits and budgets.

import { call, get } from "./api.js";
import { askForAccount, askForRotation, confirmAction, showSecret } from "./accountDialogs.js";
import { poll } from "./polling.js";
import { badge, bar, button, compact, count, dollars, element, empty, fullTime, heading, lasting, row } from "./view.js";

const INTERVAL = 10_000;
const COLUMNS = [
  ["Key", "model"],
  ["Budget", "budget"],
  ["Limits", "limits wide"],
  ["Actions", "action"],
];
const LIMIT_NAMES = {
  requests_per_minute: "requests/min",
  tokens_per_minute: "tokens/min",
  requests_per_day: "requests/day",
  tokens_per_day: "tokens/day",
  concurrent_requests: "at once",
};
const PROJECTS = "organization/projects";
const keyPath = (key) => `${PROJECTS}/${key.project_id}/api_keys/${key.id}`;

export function open(container, session) {
  if (!session.has_accounts) {
    container.append(heading("Keys and budgets"), empty("Accounts are off", element("p", {}, "Remove ACCOUNTS=off to use keys.")));
    return undefined;
  }
  const notice = element("div");
  const list = element("div", { class: "stack" });
  let found = null;
  let further = []; // keys of later pages
  const act = actions(() => found, () => page.reload());
  const buttons = [button("New project", act.newProject), button("New key", act.newKey, { class: "strong" })];
  container.append(heading("Keys and budgets", element("span", { class: "buttons" }, buttons)), notice, list);

  function show(accounts) {
    found = accounts;
    const keys = [...accounts.keys, ...further];
    const sections = accounts.projects.map((project) => projectCard(project, keys, act));
    const more = accounts.has_more && !further.length && button("Show more keys", () => loadMore(accounts.keys.at(-1).id));
    list.replaceChildren(organizationCard(accounts.organization, act), ...sections, more || "");
    if (!accounts.projects.length) list.append(noKeys(act));
  }

  async function loadMore(after) {
    for (let next = after; next; ) {
      const later = await get(`accounts?after=${next}`);
      further.push(...later.keys);
      next = later.has_more ? later.keys.at(-1).id : null;
    }
    show(found);
  }

  const page = poll(INTERVAL, (signal) => get("accounts", signal), show, notice);
  return page.close;
}

const noKeys = (act) =>
  empty(
    "No keys yet",
    element("p", {}, "Until the first key exists, every call is accepted. After that each one needs a key."),
    button("Create the first key", act.newKey, { class: "strong" }),
  );

/** Return the functions behind the buttons. Each shows a dialog, which stays open with the message of an error. */
function actions(accounts, reload) {
  const send = (method, path) => async (body) => {
    const answer = await call(method, path, { body });
    reload();
    return answer;
  };
  return {
    newProject: () => askForAccount("New project", { save: send("POST", PROJECTS) }),
    newKey: () =>
      askForAccount("New key", { projects: accounts()?.projects ?? [], save: createKey(reload), done: showSecret }),
    change: (account, path) => askForAccount(`Change ${account.name}`, { account, save: send("POST", path) }),
    archive: (project, path) =>
      confirmAction(`Archive ${project.name}?`, "All of its keys are refused.", "Archive", send("POST", `${path}/archive`)),
    restore: (project, path) =>
      confirmAction(`Restore ${project.name}?`, "Its keys are accepted again.", "Restore", () =>
        send("POST", path)({ enabled: true }),
      ),
    revoke: (key) =>
      confirmAction(
        `Revoke ${key.name}?`,
        "It is deleted and refused within a second. This cannot be undone.",
        "Revoke",
        send("DELETE", keyPath(key)),
      ),
    rotate: (key) => askForRotation(key, send("POST", `${keyPath(key)}/rotate`)),
  };
}

/** Create a key, of the default project if there is none. */
function createKey(reload) {
  return async ({ project, ...values }) => {
    if (!project) await call("POST", "organization", { body: {} }); // stores it with its default project
    const key = await call("POST", `${PROJECTS}/${project ?? "proj_default"}/api_keys`, { body: values });
    reload();
    return key;
  };
}

function organizationCard(organization, act) {
  return element(
    "section",
    { class: "card padded", "aria-label": "Organization" },
    element(
      "div",
      { class: "card-head flat" },
      element("h3", {}, organization.name),
      element("small", { class: "wide" }, "limits and budgets of all keys together"),
      element("span", { class: "push" }, changeButton(organization, "organization", act)),
    ),
    element("div", { class: "meters" }, meters(organization) || element("small", {}, "No limit and no budget.")),
  );
}

function projectCard(project, keys, act) {
  const path = `${PROJECTS}/${project.id}`;
  const own = keys.filter((key) => key.project_id === project.id);
  const head = COLUMNS.map(([text, name]) => element("th", { scope: "col", class: name }, text));
  const isFile = project.source === "file";
  return element(
    "section",
    { class: "card", "aria-label": `Project ${project.name}` },
    element(
      "div",
      { class: "card-head" },
      element("h3", {}, project.name),
      project.enabled ? element("small", {}, `project, ${own.length === 1 ? "1 key" : `${count(own.length)} keys`}`) : badge("archived", "soft"),
      element(
        "span",
        { class: "push" },
        changeButton(project, path, act),
        !isFile && (project.enabled
          ? button("Archive", () => act.archive(project, path), { "aria-label": `Archive ${project.name}` })
          : button("Restore", () => act.restore(project, path), { "aria-label": `Restore ${project.name}` })),
      ),
    ),
    element("div", { class: "meters inset" }, meters(project) ?? ""),
    own.length
      ? element(
          "table",
          { "aria-label": `Keys of ${project.name}` },
          element("thead", {}, element("tr", {}, head)),
          element("tbody", {}, own.map((key) => keyRow(key, act))),
        )
      : element("p", { class: "note soft" }, "This project has no keys."),
  );
}

function changeButton(account, path, act) {
  if (account.source === "file") return element("small", {}, "managed by the accounts file");
  return button("Change", () => act.change(account, path), { "aria-label": `Change ${account.name}` });
}

function keyRow(key, act) {
  const isOwn = key.source !== "file";
  const state = stateOf(key);
  return row(COLUMNS, [
    [
      element("span", { class: "name" }, key.name),
      state && badge(...state),
      element("small", { class: "line" }, element("code", {}, key.redacted_value ?? ""), ` · ${models(key)}`),
      key.expires_at && element("small", { class: "line" }, `until ${fullTime(key.expires_at * 1000)}`),
    ],
    budgets(key) ?? element("span", { class: "soft" }, "none"),
    limits(key) ?? element("span", { class: "soft" }, "none"),
    element(
      "span",
      { class: "buttons" },
      changeButton(key, keyPath(key), act),
      isOwn && button("Rotate", () => act.rotate(key), { "aria-label": `Rotate ${key.name}` }),
      isOwn && button("Revoke", () => act.revoke(key), { class: "plain danger", "aria-label": `Revoke ${key.name}` }),
    ),
  ]);
}

function stateOf(key) {
  if (!key.enabled) return ["disabled", "soft"];
  if (key.expires_at && key.expires_at * 1000 < Date.now()) return ["expired", "soft"];
  return null;
}

const models = ({ policy }) => (policy.models.length ? policy.models.join(", ") : "all models");

function meters(account) {
  const found = [budgets(account), limits(account)].filter(Boolean);
  return found.length ? found : null;
}

/** Return a bar for each budget of an account, or null without one. */
function budgets(account) {
  const found = account.meters.filter(({ kind }) => kind === "money");
  return found.length ? found.map(budget) : null;
}

function budget(meter) {
  const every = meter.name.split(":")[1];
  const window = every === "total" ? "in all" : /\d/.test(every) ? `in ${every}` : `a ${every}`;
  const share = meter.limit ? meter.used / meter.limit : 1;
  const kind = share >= 1 ? "wrong" : share >= 0.8 ? "fair" : "";
  const text = `${dollars(meter.used)} of ${dollars(meter.limit)} ${window}`;
  const reset = meter.resets_in_seconds && meter.used ? `, ${lasting(meter.resets_in_seconds)} left` : "";
  return element("span", { class: "budget-line" }, bar(share, text, kind), element("small", {}, text, reset));
}

/** Return what was used of each limit of an account, or null without one. */
function limits(account) {
  const found = account.meters.filter(({ kind }) => kind !== "money");
  if (!found.length) return null;
  return found.map((meter) => {
    const used = meter.kind === "concurrent" ? meter.held : meter.used;
    const text = `${compact(used)} of ${compact(meter.limit)} ${LIMIT_NAMES[meter.name] ?? meter.name}`;
    return element("small", { class: used >= meter.limit ? "line wrong" : "line" }, text);
  });
}
