import type { FormEvent } from "react";
import { keepKey, readKey } from "../lib/server";

/** Asks for the key where the server wants one. */
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
        {readKey() ? "The server does not take this key." : "This server asks for an API key."} It stays in this tab.
      </label>
      <input id="key" name="key" type="password" autoComplete="off" required autoFocus />
      <button type="submit">Use it</button>
    </form>
  );
}
