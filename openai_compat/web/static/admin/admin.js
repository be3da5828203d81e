// The frame of the admin page: the session, the navigation, and the page that is open.

import { errorMessage, openSession, signIn, signOut } from "./api.js";
import { problem } from "./view.js";

const PAGES = {
  overview: () => import("./overview.js"),
  models: () => import("./models.js"),
  keys: () => import("./keys.js"),
  requests: () => import("./requests.js"),
  live: () => import("./live.js"),
};
const at = (id) => document.getElementById(id);

let session = null; // what the server told when the session began
let close = () => {}; // ends the timers of the open page
let opened = 0; // counts pages, so that a slow one does not replace a later one

async function open() {
  const [, name = "", ...rest] = location.hash.split("/");
  const load = PAGES[name];
  if (!load) return location.replace("#/overview");
  const number = ++opened;
  close();
  close = () => {};
  for (const link of at("nav").children) {
    if (link.hash === `#/${name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const container = document.createElement("div");
  at("page").replaceChildren(container);
  try {
    const page = await load();
    if (number === opened) close = page.open(container, session, rest.join("/")) ?? close;
  } catch (error) {
    container.replaceChildren(problem(errorMessage(error), open));
  }
  container.querySelector("h2")?.focus();
  document.title = `${container.querySelector("h2")?.textContent ?? "Admin"} · openai-compat`;
}

function start(newSession) {
  session = newSession;
  at("version").textContent = session.version;
  show(true);
  open();
}

function askForKey() {
  session = null;
  opened++;
  close();
  close = () => {};
  at("page").replaceChildren();
  show(false);
  at("admin-key").focus();
}

function show(isSignedIn) {
  at("sign-in").hidden = isSignedIn;
  at("nav").hidden = at("sign-out").hidden = !isSignedIn;
  at("sign-in-problem").hidden = true;
}

async function begin() {
  try {
    start(await openSession());
  } catch (error) {
    if (error.status === 401) askForKey();
    else at("page").replaceChildren(problem(errorMessage(error), begin));
  }
}

at("sign-in").addEventListener("submit", async (event) => {
  event.preventDefault();
  const key = at("admin-key").value;
  try {
    const newSession = await signIn(key);
    at("admin-key").value = "";
    start(newSession);
  } catch (error) {
    at("sign-in-problem").textContent = errorMessage(error);
    at("sign-in-problem").hidden = false;
    at("admin-key").select();
  }
});
at("sign-out").addEventListener("click", async () => {
  await signOut().catch(() => {}); // without a connection the page forgets the session all the same
  askForKey();
});
addEventListener("signed-out", askForKey);
addEventListener("hashchange", () => session && open());

begin();
