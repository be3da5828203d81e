import { removeConversation, useConversations } from "../lib/conversations";
import { Icon } from "./Icon";

export const SIDEBAR = "sidebar";

/** List of conversations. On narrow screens it is a popover, which the browser opens and closes. */
export function Sidebar({ current }: { current: string }) {
  const conversations = useConversations();
  const close = () => document.getElementById(SIDEBAR)?.hidePopover();
  return (
    <nav className="sidebar" id={SIDEBAR} popover="auto" aria-label="Conversations">
      <p className="brand">
        <svg className="logo" viewBox="0 0 32 32" aria-hidden="true">
          <rect width="32" height="32" rx="9" />
          <path d="M8 11.5A3.5 3.5 0 0 1 11.5 8h9a3.5 3.5 0 0 1 3.5 3.5v5a3.5 3.5 0 0 1-3.5 3.5H16l-5 4v-4.1a3.5 3.5 0 0 1-3-3.4z" />
        </svg>
        openai-compat
      </p>
      <a className="new" href="#" onClick={close}>
        <Icon name="new" /> New chat
      </a>
      <ul>
        {conversations.map(({ id, title }) => (
          <li key={id}>
            <a href={`#${id}`} aria-current={id === current ? "page" : undefined} onClick={close}>
              {title}
            </a>
            <button
              className="quiet"
              type="button"
              aria-label={`Delete “${title}”`}
              onClick={() => {
                removeConversation(id);
                if (id === current) location.hash = "";
              }}
            >
              <Icon name="delete" />
            </button>
          </li>
        ))}
      </ul>
      <p className="note">Stored in this browser only.</p>
    </nav>
  );
}
