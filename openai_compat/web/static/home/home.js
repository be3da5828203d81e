// The page: models to choose from, a chat to try one, and programs that ask it.

import { APIError, chat, describeModel, key, listModels, sentence } from "./api.js";
import { element, render } from "./markdown.js";
import { snippets, useOf } from "./snippets.js";

const MOST_DESCRIBED = 20; // models; where there are more, only the chosen one is asked about
const LOOK_AGAIN = 2000; // milliseconds, while a model is loading

const at = (id) => document.getElementById(id);
const show = (shown, ...ids) => ids.forEach((id) => (at(id).hidden = !shown));

const state = {
  models: [], // as `GET /v1/models` lists them
  details: new Map(), // by id: what `GET /v1/models/{id}` adds
  chosen: "",
  needsKey: Boolean(key.read()),
  messages: [],
  language: "curl",
  answering: null, // the AbortController of the answer on its way
};
const reading = { follows: true, last: 0 }; // whether the end of the talk is kept in view; where its top last was

// --- models ---------------------------------------------------------------------------------------------------------

async function loadModels() {
  show(false, "key-form", "models-problem");
  document.body.classList.remove("locked");
  try {
    state.models = await listModels();
  } catch (error) {
    state.models = [];
    if (error instanceof APIError && error.status === 401) askForKey();
    else tellModelsProblem(sentence(error));
  }
  show(state.models.length > 8, "filter");
  show(Boolean(key.read()), "forget");
  if (!state.models.some((model) => model.id === state.chosen)) state.chosen = state.models[0]?.id ?? "";
  showModels();
  await Promise.all(described().map(describe));
}

function askForKey() {
  state.needsKey = true;
  at("key-label").textContent = key.read() ? "The server does not take this key." : "This server asks for an API key.";
  show(true, "key-form");
  document.body.classList.toggle("locked", !state.models.length);
  at("key").focus();
}

function tellModelsProblem(text) {
  const again = element("button", { class: "plain" }, "Try again");
  again.addEventListener("click", loadModels);
  at("models-problem").replaceChildren(element("p", {}, text), again);
  show(true, "models-problem");
}

const described = () =>
  state.models.length <= MOST_DESCRIBED ? state.models.map((model) => model.id) : [state.chosen].filter(Boolean);

async function describe(id) {
  const details = await describeModel(id).catch(() => null); // a list without details is of use, too
  if (!details) return;
  state.details.set(id, details);
  showDetails(id);
  if (details.state === "loading") setTimeout(describe, LOOK_AGAIN, id);
}

function showModels() {
  const wanted = at("filter").value.toLowerCase();
  const found = state.models.filter((model) => model.id.toLowerCase().includes(wanted));
  at("models").replaceChildren(...found.map(toChoice));
  found.forEach((model) => showDetails(model.id));
  if (state.models.length && !found.length) at("models").append(element("p", { class: "soft" }, "None has that name."));
  showChosen();
}

function toChoice({ id, owned_by: owner }) {
  const input = element("input", { type: "radio", name: "model", value: id });
  input.checked = id === state.chosen;
  input.addEventListener("change", () => {
    state.chosen = id;
    if (!state.details.has(id)) describe(id);
    showChosen();
  });
  const words = element("span", {}, element("b", {}, id), element("small", {}, owner ?? ""));
  return element("label", { class: "model", "data-model": id }, input, words);
}

/** What is known of a model, beside its name: its state, and what it can do. */
function showDetails(id) {
  const label = [...at("models").children].find((child) => child.dataset.model === id);
  const details = state.details.get(id);
  if (label && details) {
    const abilities = (details.capabilities ?? []).filter((name) => name !== "forwarding").join(", ");
    label.querySelector("small").textContent = [details.owned_by, abilities].filter(Boolean).join(" · ");
    label.querySelector(".state")?.remove();
    if (details.state) label.append(element("span", { class: `state ${details.state}` }, details.state));
  }
  if (id === state.chosen) showChosen();
}

function showChosen() {
  const use = useOf(state.details.get(state.chosen)?.capabilities);
  const canChat = Boolean(state.chosen) && use === "chat";
  at("invited").textContent = state.chosen || "a model";
  at("message").disabled = at("send").disabled = !canChat;
  at("message").placeholder = canChat || !state.chosen ? "Ask anything" : `This model does not chat: it has ${use}`;
  showSnippet();
}

// --- programs -------------------------------------------------------------------------------------------------------

function showSnippet() {
  const use = useOf(state.details.get(state.chosen)?.capabilities);
  const texts = snippets(state.chosen || "MODEL", use, state.needsKey);
  at("snippet").textContent = texts[state.language];
  const tabs = Object.keys(texts).map((language) => {
    const isChosen = language === state.language;
    const tab = element("button", { role: "tab", "aria-selected": isChosen, "aria-controls": "snippet" }, language);
    tab.tabIndex = isChosen ? 0 : -1;
    tab.addEventListener("click", () => chooseLanguage(language));
    return tab;
  });
  at("languages").replaceChildren(...tabs);
}

function chooseLanguage(language) {
  state.language = language;
  showSnippet();
  at("languages").querySelector("[aria-selected=true]").focus();
}

function onTabKey(event) {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!step) return;
  const names = [...at("languages").children].map((tab) => tab.textContent);
  chooseLanguage(names.at((names.indexOf(state.language) + step) % names.length));
}

async function copy(button, text) {
  if (navigator.clipboard) {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = "Copy"), 2000);
  } else {
    getSelection().selectAllChildren(at("snippet")); // plain http on another host: Ctrl-C is left to the reader
  }
}

// --- chat -----------------------------------------------------------------------------------------------------------

function say(role, text = "") {
  const name = role === "user" ? "You" : "Assistant";
  const body = element("div", { class: "text" }, role === "user" ? text : "");
  const message = element("article", { class: role, "aria-label": name }, body);
  show(false, "invitation");
  show(true, "clear");
  at("talk").append(message);
  toEnd();
  return { message, body };
}

function toEnd() {
  at("talk").scrollTop = at("talk").scrollHeight;
  Object.assign(reading, { follows: true, last: at("talk").scrollTop });
}

/** What grows moves the end away without any scrolling: only a move upwards, however small, is the reader's wish. */
function onScroll() {
  const { scrollTop: top, scrollHeight, clientHeight } = at("talk");
  const left = scrollHeight - clientHeight - top;
  if (top < reading.last && left > 1) reading.follows = false;
  else if (left < 40) reading.follows = true;
  reading.last = top;
}

async function ask(text) {
  at("talk").querySelectorAll(".problem button").forEach((button) => button.remove());
  state.messages.push({ role: "user", content: text });
  say("user", text);
  await answer();
}

/** Streams the answer to what has been said; a part of one stays on the page, and says that it is a part. */
async function answer() {
  const { message, body } = say("assistant");
  const { chosen: asked, messages } = state;
  state.answering = new AbortController();
  show(true, "stop");
  show(false, "send");
  at("talk").ariaBusy = "true";
  message.classList.add("growing");
  let text = "";
  const paint = painter(() => render(body, text));
  const isLoaded = [undefined, "ready"].includes(state.details.get(asked)?.state);
  const looking = isLoaded ? 0 : setInterval(describe, 1000, asked); // loading takes its time, and is shown
  try {
    for await (const piece of chat(asked, messages, state.answering.signal)) {
      text += piece;
      paint.soon();
    }
  } catch (error) {
    const isStopped = error.name === "AbortError";
    const end = isStopped ? element("p", { class: "soft" }, "Stopped.") : problem(error, message);
    inView(() => message.append(end));
  } finally {
    paint.now();
    if (text) messages.push({ role: "assistant", content: text });
    state.answering = null;
    clearInterval(looking);
    show(true, "send");
    show(false, "stop");
    at("talk").ariaBusy = "false";
    message.classList.remove("growing");
    if (state.details.get(asked)?.state) describe(asked); // asking may have loaded it
  }
}

/** Changes what is said, and keeps the end in view unless the reader has scrolled up. */
function inView(change) {
  change();
  if (reading.follows) toEnd();
}

/** Paints once a frame at most. */
function painter(draw) {
  let frame = 0;
  const now = () => {
    cancelAnimationFrame(frame);
    frame = 0;
    inView(draw);
  };
  return { now, soon: () => (frame ||= requestAnimationFrame(now)) };
}

function problem(error, message) {
  const again = element("button", { class: "plain" }, "Try again");
  again.addEventListener("click", () => {
    if (state.answering) return;
    message.remove();
    if (state.messages.at(-1).role === "assistant") state.messages.pop();
    answer();
  });
  if (error instanceof APIError && error.status === 401) askForKey();
  return element("div", { class: "problem", role: "alert" }, element("p", {}, sentence(error)), again);
}

function clear() {
  state.answering?.abort();
  state.messages = [];
  at("talk").replaceChildren(at("invitation"));
  show(true, "invitation");
  show(false, "clear");
}

function send(event) {
  event.preventDefault();
  const text = at("message").value.trim();
  if (!text || state.answering || at("message").disabled) return;
  at("message").value = "";
  if (matchMedia("(pointer: fine)").matches) at("message").focus(); // on a phone, that would bring the keyboard back
  ask(text);
}

// --- what the reader does -------------------------------------------------------------------------------------------

at("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  key.keep(at("key").value.trim());
  at("key").value = "";
  loadModels();
});
at("forget").addEventListener("click", () => {
  key.forget();
  loadModels();
});
at("filter").addEventListener("input", showModels);
at("languages").addEventListener("keydown", onTabKey);
at("copy").addEventListener("click", () => copy(at("copy"), at("snippet").textContent));
at("composer").addEventListener("submit", send);
at("message").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) send(event);
});
at("talk").addEventListener("scroll", onScroll, { passive: true });
at("stop").addEventListener("click", () => state.answering?.abort());
at("clear").addEventListener("click", clear);
addEventListener("keydown", (event) => event.key === "Escape" && state.answering?.abort());

fetch(document.baseURI, { headers: { accept: "application/json" } })
  .then((response) => response.json())
  .then(({ version }) => (at("version").textContent = version))
  .catch(() => {}); // a number that is not shown

showSnippet();
loadModels();
