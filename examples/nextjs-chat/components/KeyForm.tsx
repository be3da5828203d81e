import type { FormEvent } from "react";
import { keepKey, readKey } from "../lib/apiKey";

/** Form for the API key, shown if the server requires one. */
export function KeyForm({ onKey }: { onKey: () => void }) {
  function keep(event: FormEvent<HTMLFormElement>) {
    event.preventDefault();
    keepKey(String(new FormData(event.currentTarget).get("key")).trim());
    event.currentTarget.reset();
    onKey();
  }
  return (
    <form className="key" onSubmit={keep}>
      <label htmlFor="key">
        {readKey() ? "The server does not accept this key." : "This server requires an API key."} It stays in this tab.
      </label>
      <input id="key" name="key" type="password" autoComplete="off" required autoFocus />
      <button type="submit">Use it</button>
    </form>
  );
}
