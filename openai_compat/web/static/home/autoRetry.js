// Loading with a timeout, and retries with exponential backoff.

const TIMEOUT = 10_000; // milliseconds
const FIRST_DELAY = 1000; // milliseconds, doubled with each failure
const MAX_DELAY = 30_000;

/**
 * Return a function that calls `load(signal)` until it succeeds. After a failure it is retried, unless `onFailure`
 * returns false, and at once when the tab becomes visible, the network is back, or the function is called again. There
 * are no retries while the tab is hidden.
 */
export function autoRetry(load, onSuccess, onFailure) {
  let current = new AbortController();
  let isWaiting = false; // for the next retry
  let retryTimer = 0;
  let delay = FIRST_DELAY;

  function attempt() {
    isWaiting = false;
    clearTimeout(retryTimer);
    current.abort();
    const controller = new AbortController();
    current = controller;
    const timeout = setTimeout(() => controller.abort(new DOMException("Timeout", "TimeoutError")), TIMEOUT);
    load(controller.signal)
      .finally(() => clearTimeout(timeout))
      .then(
        (value) => controller === current && onSuccess(value),
        (error) => controller === current && onFailure(error) && retryLater(),
      );
  }

  function retryLater() {
    isWaiting = true;
    retryTimer = setTimeout(() => document.hidden || attempt(), delay);
    delay = Math.min(2 * delay, MAX_DELAY);
  }

  function reload() {
    delay = FIRST_DELAY;
    attempt();
  }

  const onReturn = () => isWaiting && !document.hidden && reload();
  document.addEventListener("visibilitychange", onReturn);
  addEventListener("online", onReturn);
  return reload;
}
