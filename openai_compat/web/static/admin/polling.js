// Repeated loading of what a page shows.

import { errorMessage } from "./api.js";
import { problem } from "./view.js";

const TIMEOUT = 20_000; // milliseconds

/**
 * Call `load(signal)` now and every `interval` milliseconds while the tab is visible, and show its result. A failure is
 * shown in `notice`, above what was loaded before. Return `{ reload, close }`.
 */
export function poll(interval, load, show, notice) {
  let controller = new AbortController();
  let timer = 0;
  let isClosed = false;

  async function run() {
    clearTimeout(timer);
    controller.abort();
    const current = (controller = new AbortController());
    const timeout = setTimeout(() => current.abort(new DOMException("Timeout", "TimeoutError")), TIMEOUT);
    try {
      const value = await load(current.signal);
      if (current !== controller || isClosed) return;
      notice.replaceChildren();
      show(value);
    } catch (error) {
      if (current !== controller || isClosed) return;
      if (!notice.hasChildNodes()) notice.replaceChildren(problem(errorMessage(error), run));
    } finally {
      clearTimeout(timeout);
    }
    if (interval) timer = setTimeout(() => document.hidden || run(), interval);
  }

  const onReturn = () => document.hidden || run();
  document.addEventListener("visibilitychange", onReturn);
  run();
  return {
    reload: run,
    close() {
      isClosed = true;
      controller.abort();
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", onReturn);
    },
  };
}
