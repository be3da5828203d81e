import { SERVER } from "../lib/server";
import type { Models } from "../lib/useModels";
import { Icon } from "./Icon";
import { SIDEBAR } from "./Sidebar";

export function Header({ models }: { models: Models }) {
  const { names, chosen, choose, isLoading } = models;
  const placeholder = isLoading ? "Loading models" : "No models";
  return (
    <header className="header">
      <button className="quiet menu" type="button" popoverTarget={SIDEBAR} aria-label="Conversations">
        <Icon name="menu" />
      </button>
      <h1 className="hidden">Chat</h1>
      <label className="picker">
        <span className="hidden">Model</span>
        <select value={chosen} onChange={(event) => choose(event.target.value)} disabled={!names.length}>
          {names.length !== 1 && <option value="">{names.length ? "Default model" : placeholder}</option>}
          {names.map((name) => (
            <option key={name} value={names.length === 1 ? "" : name}>
              {name}
            </option>
          ))}
        </select>
      </label>
      <span className="server" title="The server that answers">
        {new URL(SERVER).host}
      </span>
    </header>
  );
}
