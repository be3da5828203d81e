// Home page with the list of models, a chat, and code examples.

import { APIError, describeModel, errorMessage, key, listModels } from "./api.js";
import { autoRetry } from "./autoRetry.js";
import { leave, reloadList, showStored, startNew } from "./conversationList.js";
import { element } from "./markdown.js";
import { snippets, useOf } from "./snippets.js";
import { ask, connect, stop } from "./talk.js";
import { at, onScroll, show } from "./talkView.js";

const MAX_DESCRIBED = 20; // models. Of a longer list, only the chosen model is described.
const POLL_INTERVAL = 2000; // milliseconds, while a model is loading

const state = {
  models: [], // from `GET /v1/models`
  details: new Map(), // by id, from `GET /v1/models/{id}`
  polls: new Map(), // by id, the timer of a model that is loading
  chosen: "",
  needsKey: Boolean(key.read()),
  language: "curl",
};

// --- models ---------------------------------------------------------------------------------------------------------

const reloadModels = autoRetry(
  listModels,
  (models) => {
    show(false, "key-form", "models-problem");
    document.body.classList.remove("locked");
    setModels(models);
  },
  (error) => {
    const needsKey = error instanceof APIError && error.status === 401;
    setModels([]);
    show(needsKey, "key-form");
    show(!needsKey, "models-problem");
    document.body.classList.toggle("locked", needsKey);
    if (needsKey) askForKey();
    else showModelsError(errorMessage(error));
    return !needsKey; // with a missing key, the user reloads
  },
);

function setModels(models) {
  state.models = models;
  show(models.length > 8, "filter");
  show(Boolean(key.read()), "forget");
  if (!models.some((model) => model.id === state.chosen)) state.chosen = models[0]?.id ?? "";
  showModels();
  const ids = models.length <= MAX_DESCRIBED ? models.map((model) => model.id) : [state.chosen];
  ids.forEach(describe);
}

function askForKey() {
  state.needsKey = true;
  at("key-label").textContent = key.read()
    ? "The server does not accept this key."
    : "This server requires an API key.";
  show(true, "key-form");
  document.body.classList.toggle("locked", !state.models.length);
  at("key").focus();
}

/** Show why there are no models. An unchanged message keeps its element, so that it is not announced again. */
function showModelsError(message) {
  const text = `${message} The list of models is requested again automatically.`;
  if (at("models-problem").querySelector("p")?.textContent === text) return;
  const button = element("button", { class: "plain" }, "Try again");
  button.addEventListener("click", reloadModels);
  at("models-problem").replaceChildren(element("p", {}, text), button);
}

async function describe(id) {
  const details = await describeModel(id).catch(() => state.details.get(id)); // the list is useful without them, too
  if (!details) return;
  state.details.set(id, details);
  showDetails(id);
  clearTimeout(state.polls.get(id));
  if (details.state === "loading") state.polls.set(id, setTimeout(describe, POLL_INTERVAL, id));
}

function showModels() {
  const wanted = at("filter").value.toLowerCase();
  const found = state.models.filter((model) => model.id.toLowerCase().includes(wanted));
  at("models").replaceChildren(...found.map(toChoice));
  found.forEach((model) => showDetails(model.id));
  if (state.models.length && !found.length) at("models").append(element("p", { class: "soft" }, "No model matches."));
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
  const text = element("span", {}, element("b", {}, id), element("small", {}, owner ?? ""));
  return element("label", { class: "model", "data-model": id }, input, text);
}

/** Show the owner, the capabilities and the state of a model. */
function showDetails(id) {
  const label = [...at("models").children].find((child) => child.dataset.model === id);
  const details = state.details.get(id);
  if (label && details) {
    const capabilities = (details.capabilities ?? []).filter((name) => name !== "forwarding").join(", ");
    label.querySelector("small").textContent = [details.owned_by, capabilities].filter(Boolean).join(" · ");
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
  at("message").placeholder =
    canChat || !state.chosen ? "Ask anything" : `This model does not chat, it supports ${use}`;
  showSnippet();
}

// --- code examples ---------------------------------------------------------------------------------------------------

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
    getSelection().selectAllChildren(at("snippet")); // plain HTTP on another host has no clipboard
  }
}

// --- chat -----------------------------------------------------------------------------------------------------------

connect({
  model: () => state.chosen,
  onAsk: followLoading,
  onAnswered: (model) => state.details.get(model)?.state && describe(model), // the request may have loaded it
  onError: (error) => error instanceof APIError && error.status === 401 && askForKey(),
  onStored: showStored,
});

/** Show that a model is loading, until the function that is returned is called. */
function followLoading(model) {
  const isLoaded = [undefined, "ready"].includes(state.details.get(model)?.state);
  const polling = isLoaded ? 0 : setInterval(describe, 1000, model);
  return () => clearInterval(polling);
}

function send(event) {
  event.preventDefault();
  const text = at("message").value.trim();
  if (!text || at("message").disabled) return;
  if (matchMedia("(pointer: fine)").matches) at("message").focus(); // on a phone, focus would open the keyboard
  ask(text);
}

// --- events ----------------------------------------------------------------------------------------------------------

at("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  key.store(at("key").value.trim());
  at("key").value = "";
  reloadModels();
  reloadList();
});
at("forget").addEventListener("click", () => {
  key.remove();
  leave();
  reloadModels();
  reloadList();
});
at("filter").addEventListener("input", showModels);
at("languages").addEventListener("keydown", onTabKey);
at("copy").addEventListener("click", () => copy(at("copy"), at("snippet").textContent));
at("composer").addEventListener("submit", send);
at("message").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) send(event);
});
at("talk").addEventListener("scroll", onScroll, { passive: true });
at("stop").addEventListener("click", stop);
at("clear").addEventListener("click", startNew);
addEventListener("keydown", (event) => event.key === "Escape" && stop());

fetch(document.baseURI, { headers: { accept: "application/json" } })
  .then((response) => response.json())
  .then(({ version }) => (at("version").textContent = version))
  .catch(() => {}); // the version is not shown

showSnippet();
reloadModels();
reloadList();
