// The list of the user's conversations on the server.

import { errorMessage, key } from "./api.js";
import { autoRetry } from "./autoRetry.js";
import { isConversation, list, removeConversation } from "./conversations.js";
import { element } from "./markdown.js";
import { clear, currentId, open } from "./talk.js";
import { at, show } from "./talkView.js";

let count = 1; // conversations to show, at least
let shown = []; // conversations
let isListed = false; // The conversation in the URL is opened once the list shows that the server has conversations.

export const reloadList = autoRetry(
  (signal) => list(count, signal),
  (found) => {
    shown = found?.conversations ?? [];
    isListed = found !== null;
    show(isListed && shown.length > 0, "conversations");
    show(Boolean(found?.hasMore), "older");
    at("place").textContent = isListed ? "Conversations are stored on the server." : "This conversation is not stored.";
    showProblem("");
    showList();
    follow();
  },
  (error) => {
    const isRefused = error.status === 401; // the page asks for another key
    if (!isRefused) showProblem(`Stored conversations are not listed. ${errorMessage(error)}`);
    return !isRefused;
  },
);

function showList() {
  at("conversation-list").replaceChildren(...shown.map(toEntry));
}

function toEntry({ id, title }) {
  const link = element("a", { href: `#${id}` }, title);
  if (id === currentId()) link.setAttribute("aria-current", "page");
  const button = element("button", { class: "plain", "aria-label": `Delete “${title}”` }, "×");
  button.addEventListener("click", () => remove(id, title));
  return element("li", {}, link, button);
}

async function remove(id, title) {
  showProblem("");
  try {
    await removeConversation(id);
  } catch (error) {
    return showProblem(`“${title}” is not deleted. ${errorMessage(error)}`);
  }
  if (id === currentId()) startNew();
  reloadList();
}

function showProblem(text) {
  at("conversations-problem").textContent = text;
  show(Boolean(text), "conversations-problem");
}

/** Show the new conversation of the URL's hash, or the stored one. */
function follow() {
  const id = location.hash.slice(1);
  if (id === (currentId() ?? "")) return;
  if (!isConversation(id)) clear();
  else if (isListed) open(id);
  showList();
}

/** Leave the current conversation for a new one. */
export function startNew() {
  if (location.hash) history.pushState(null, "", location.pathname + location.search);
  clear();
  showList();
}

/** Put the id of a conversation into the URL, so that a reload opens it. Without an id it is not the current one. */
export function showStored(id) {
  if (id) history.replaceState(null, "", `#${id}`);
  reloadList();
}

/** Forget the conversations of a key that was removed. */
export function leave() {
  if (currentId()) startNew();
}

at("older").addEventListener("click", () => {
  count = shown.length + 1;
  reloadList();
});
addEventListener("hashchange", follow);
document.addEventListener("visibilitychange", () => document.hidden || !key.read() || reloadList());
