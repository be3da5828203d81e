// The view of the conversation, whose end stays in view until the user scrolls up.

import { element, render } from "./markdown.js";

export const at = (id) => document.getElementById(id);
export const show = (shown, ...ids) => ids.forEach((id) => (at(id).hidden = !shown));

const scrolling = { followsEnd: true, lastTop: 0 };

/** Add a message, and return its element with the one of its text. */
export function addMessage(role, text = "") {
  const name = role === "user" ? "You" : "Assistant";
  const body = element("div", { class: "text" }, role === "user" ? text : "");
  if (role === "assistant" && text) render(body, text);
  const message = element("article", { class: role, "aria-label": name }, body);
  show(false, "invitation");
  show(true, "clear");
  at("talk").append(message);
  scrollToEnd();
  return { message, body };
}

/** Return an error message with a button that removes it and calls `onAgain`. */
export function problemView(text, onAgain, label = "Try again") {
  const button = element("button", { class: "plain" }, label);
  const view = element("div", { class: "problem", role: "alert" }, element("p", {}, text), button);
  button.addEventListener("click", () => {
    view.remove();
    onAgain();
  });
  return view;
}

export function showTalk(...elements) {
  at("talk").replaceChildren(...elements, at("invitation"));
}

export function scrollToEnd() {
  at("talk").scrollTop = at("talk").scrollHeight;
  Object.assign(scrolling, { followsEnd: true, lastTop: at("talk").scrollTop });
}

/** Stop following the end when the user scrolls up. A growing answer moves the end away, but does not scroll. */
export function onScroll() {
  const { scrollTop: top, scrollHeight, clientHeight } = at("talk");
  const distance = scrollHeight - clientHeight - top;
  if (top < scrolling.lastTop && distance > 1) scrolling.followsEnd = false;
  else if (distance < 40) scrolling.followsEnd = true;
  scrolling.lastTop = top;
}

/** Change the conversation, and keep its end in view unless the user has scrolled up. */
export function keepEndInView(change) {
  change();
  if (scrolling.followsEnd) scrollToEnd();
}

/** Return functions that call `draw`, at once or at most once a frame. */
export function makePainter(draw) {
  let frame = 0;
  const paintNow = () => {
    cancelAnimationFrame(frame);
    frame = 0;
    keepEndInView(draw);
  };
  return { paintNow, paintSoon: () => (frame ||= requestAnimationFrame(paintNow)) };
}
