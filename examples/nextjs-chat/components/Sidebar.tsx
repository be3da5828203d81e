import { useConversations, type Place, storeOf } from "../lib/conversations";
import type { Conversation } from "../lib/messages";
import { useTask } from "../lib/useTask";
import { Icon } from "./Icon";

export const SIDEBAR = "sidebar";

const NOTES: Record<Place, string> = { server: "Stored on the server.", browser: "Stored in this browser only." };

/** Lists of conversations. On narrow screens they are a popover, which the browser opens and closes. */
export function Sidebar({ current }: { current: string | null }) {
  const { place, server, browser, problem, hasMore, showMore } = useConversations();
  const deleting = useTask();

  const remove = ({ id, title }: Conversation) =>
    deleting.perform(`“${title}” is not deleted.`, async () => {
      await (await storeOf(id)).remove(id);
      if (id === location.hash.slice(1)) location.hash = "";
    });

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
      <div className="lists">
        <List conversations={server} current={current} onRemove={remove} />
        {hasMore && (
          <button className="more" type="button" onClick={showMore}>
            Show older conversations
          </button>
        )}
        {place === "server" && browser.length > 0 && <h2 className="note">{NOTES.browser}</h2>}
        <List conversations={browser} current={current} onRemove={remove} />
      </div>
      {[problem, deleting.problem].map(
        (sentence) =>
          sentence && (
            <p className="note wrong" role="alert" key={sentence}>
              {sentence}
            </p>
          ),
      )}
      <p className="note">{place && NOTES[place]}</p>
    </nav>
  );
}

const close = () => document.getElementById(SIDEBAR)?.hidePopover();

interface ListProps {
  conversations: Conversation[];
  current: string | null;
  onRemove: (conversation: Conversation) => void;
}

function List({ conversations, current, onRemove }: ListProps) {
  if (!conversations.length) return null;
  return (
    <ul>
      {conversations.map((conversation) => (
        <li key={conversation.id}>
          <a
            href={`#${conversation.id}`}
            aria-current={conversation.id === current ? "page" : undefined}
            onClick={close}
          >
            {conversation.title}
          </a>
          <button
            className="quiet"
            type="button"
            aria-label={`Delete “${conversation.title}”`}
            onClick={() => onRemove(conversation)}
          >
            <Icon name="delete" />
          </button>
        </li>
      ))}
    </ul>
  );
}
