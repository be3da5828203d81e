// Loading with a timeout, and retries with exponential backoff.

const TIMEOUT = 10_000; // milliseconds
const FIRST_DELAY = 1000; // milliseconds, doubled with each failure
const MAX_DELAY = 30_000;

export interface AutoRetry {
  /** Load again, at once. */
  reload: () => void;
  stop: () => void;
}

/**
 * Call `load` until it succeeds. After a failure it is retried, unless `onFailure` returns false, and at once when the
 * tab becomes visible, the network is back, or `reload` is called. There are no retries while the tab is hidden.
 */
export function autoRetry<T>(
  load: (signal: AbortSignal) => Promise<T>,
  onSuccess: (value: T) => void,
  onFailure: (error: Error) => boolean,
): AutoRetry {
  let current = new AbortController();
  let isWaiting = false; // for the next retry
  let retryTimer: ReturnType<typeof setTimeout> | undefined;
  let delay = FIRST_DELAY;

  function attempt() {
    cancel();
    const controller = new AbortController();
    current = controller;
    const timeout = setTimeout(() => controller.abort(new DOMException("Timeout", "TimeoutError")), TIMEOUT);
    load(controller.signal)
      .finally(() => clearTimeout(timeout))
      .then(
        (value) => controller === current && onSuccess(value),
        (error: Error) => controller === current && onFailure(error) && retryLater(),
      );
  }

  function retryLater() {
    isWaiting = true;
    retryTimer = setTimeout(() => !document.hidden && attempt(), delay);
    delay = Math.min(2 * delay, MAX_DELAY);
  }

  function cancel() {
    isWaiting = false;
    clearTimeout(retryTimer);
    current.abort();
  }

  function reload() {
    delay = FIRST_DELAY;
    attempt();
  }

  const onReturn = () => isWaiting && !document.hidden && reload();
  document.addEventListener("visibilitychange", onReturn);
  addEventListener("online", onReturn);
  attempt();
  return {
    reload,
    stop() {
      document.removeEventListener("visibilitychange", onReturn);
      removeEventListener("online", onReturn);
      cancel();
      current = new AbortController(); // the result of the last attempt is ignored
    },
  };
}
