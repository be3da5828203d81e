// The conversation on the page. If the server stores conversations for the user's key, it is stored there.

import { chat, errorMessage } from "./api.js";
import { addQuestion, isAvailable, putAnswer, read, removeMessage } from "./conversations.js";
import { element, render } from "./markdown.js";
import { addMessage, at, keepEndInView, makePainter, problemView, show, showTalk } from "./talkView.js";

const newTalk = (id = null, isLoading = false) => ({
  id, // of the stored conversation
  isLoading,
  messages: [],
  growing: null, // the answer that is streaming
  unstored: null, // an answer that has ended
  unsent: null, // a question that is not stored yet
});
const newId = () => `msg_${crypto.getRandomValues(new Uint32Array(4)).join("")}`;

let talk = newTalk();
let answering = null; // AbortController of the current answer
let isStoring = false;
let page; // functions of the page: `model()`, `onAsk(model)`, `onAnswered(model)`, `onError(error)` and `onStored(id)`

export const connect = (functions) => (page = functions);
export const currentId = () => talk.id;
export const stop = () => answering?.abort();
const isBusy = () => answering || isStoring || talk.isLoading;

/** Show an empty conversation. */
export function clear() {
  stop();
  talk = newTalk();
  showTalk();
  show(true, "invitation");
  show(false, "clear");
}

/** Show a stored conversation. */
export async function open(id) {
  stop();
  const current = (talk = newTalk(id, true));
  showTalk();
  show(false, "invitation");
  show(true, "clear");
  try {
    const messages = await read(id);
    if (current === talk) showStored(current, messages);
  } catch (error) {
    const isMissing = error.status === 404;
    const text = isMissing ? "This conversation was deleted, or it belongs to another key." : errorMessage(error);
    if (current === talk) at("talk").append(problemView(text, () => open(id)));
  }
}

function showStored(current, messages) {
  Object.assign(current, { messages, isLoading: false });
  const last = messages.at(-1);
  for (const { role, content, ending } of messages) {
    const { message } = addMessage(role, content);
    if (ending) message.append(element("p", { class: "soft" }, ending === "stopped" ? "Stopped." : "Incomplete."));
  }
  const { lastElementChild: view } = at("talk");
  if (last?.role === "user") addProblem("This message has no answer yet.", () => answer(current));
  if (last?.ending === "broken") addProblem("The answer broke off before it was complete.", () => again(current, view));
}

/** Store a question if the server does so, and ask it then. */
export async function ask(text) {
  if (isBusy()) return;
  const current = talk;
  const failed = current.unsent; // it may have been stored without a confirmation
  const question = failed?.content === text ? failed : { id: newId(), role: "user", content: text };
  current.unsent = question;
  removeProblems();
  isStoring = true;
  try {
    await storeQuestion(current, question);
  } catch (error) {
    const problem = `The message is not stored, and was not sent. ${errorMessage(error)}`;
    if (current === talk) addProblem(problem, () => ask(text));
    return;
  } finally {
    isStoring = false;
  }
  if (current !== talk) return; // the user has opened another conversation, and finds this one in the list
  if (at("message").value.trim() === text) at("message").value = "";
  current.unsent = null;
  current.messages.push(question);
  addMessage("user", text);
  await answer(current);
}

async function storeQuestion(current, question) {
  await storeAnswer(current);
  if (!current.id && !(await isAvailable())) return;
  const isNew = !current.id;
  current.id = await addQuestion(current.id, question);
  if (isNew) page.onStored(current === talk ? current.id : null);
}

/** Stream the answer to the conversation. An incomplete answer stays on the page, marked as incomplete. */
async function answer(current) {
  const { message, body } = addMessage("assistant");
  const model = page.model();
  const reply = (current.growing = { id: newId(), role: "assistant", content: "", ending: "broken" });
  const painter = makePainter(() => render(body, reply.content));
  const stopPolling = page.onAsk(model);
  setAnswering(new AbortController(), message);
  try {
    for await (const delta of chat(model, current.messages, answering.signal)) {
      reply.content += delta;
      painter.paintSoon();
    }
    delete reply.ending;
  } catch (error) {
    if (error.name === "AbortError") reply.ending = "stopped";
    keepEndInView(() => message.append(endView(current, error, message)));
  } finally {
    painter.paintNow();
    current.growing = null;
    if (reply.content) current.messages.push((current.unstored = reply));
    setAnswering(null, message);
    stopPolling();
    page.onAnswered(model);
  }
  await storeOrSay(current);
}

function setAnswering(controller, message) {
  const isAnswering = controller !== null;
  answering = controller;
  show(isAnswering, "stop");
  show(!isAnswering, "send");
  at("talk").ariaBusy = String(isAnswering);
  message.classList.toggle("growing", isAnswering);
}

function endView(current, error, message) {
  if (error.name === "AbortError") return element("p", { class: "soft" }, "Stopped.");
  page.onError(error);
  return problemView(errorMessage(error), () => again(current, message));
}

/** Remove the incomplete answer in the element `message`, and ask again. */
async function again(current, message) {
  if (isBusy()) return;
  removeProblems();
  const last = current.messages.at(-1);
  isStoring = true;
  try {
    if (last.role === "assistant" && current.id) await removeMessage(current.id, last);
  } catch (error) {
    addProblem(`The earlier answer is not removed. ${errorMessage(error)}`, () => again(current, message));
    return;
  } finally {
    isStoring = false;
  }
  if (last.role === "assistant") current.messages.pop();
  current.unstored = null;
  message.remove();
  await answer(current);
}

async function storeAnswer(current) {
  const reply = current.unstored;
  if (!reply || !current.id) return;
  await putAnswer(current.id, reply);
  if (current.unstored === reply) current.unstored = null;
}

async function storeOrSay(current) {
  try {
    await storeAnswer(current);
  } catch (error) {
    // In another conversation it is not shown, but the answer is sent again when this one is opened.
    if (current === talk) addProblem(`The answer is not stored. ${errorMessage(error)}`, () => storeOrSay(current));
  }
}

function addProblem(text, onAgain) {
  const view = problemView(text, onAgain);
  view.classList.add("passing");
  keepEndInView(() => at("talk").append(view));
}

/** Remove problems that concern the last message. Errors of answers stay, without their button. */
function removeProblems() {
  at("talk").querySelectorAll(".passing").forEach((view) => view.remove());
  at("talk").querySelectorAll(".problem button").forEach((button) => button.remove());
}

// The page is closed or reloaded during an answer, or before it is stored.
addEventListener("pagehide", () => {
  const reply = talk.growing?.content ? talk.growing : talk.unstored;
  if (reply && talk.id) putAnswer(talk.id, reply).catch(() => {}); // no page is left to show the error
});
