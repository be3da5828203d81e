import { memo } from "react";
import { type Message, reasoningOf, textOf } from "../lib/messages";
import { CopyButton } from "./CopyButton";
import { Icon } from "./Icon";
import { Markdown } from "./Markdown";

interface Props {
  message: Message;
  isGrowing: boolean;
  /** Replace this answer by a new one. */
  onAgain?: () => void;
}

export const MessageView = memo(function MessageView({ message, isGrowing, onAgain }: Props) {
  const text = textOf(message);
  if (message.role === "user") {
    return (
      <article className="message user" aria-label="You">
        <p>{text}</p>
      </article>
    );
  }
  const reasoning = reasoningOf(message);
  return (
    <article className={isGrowing ? "message assistant growing" : "message assistant"} aria-label="Assistant">
      {reasoning && (
        <details className="reasoning" open={isGrowing && !text}>
          <summary>Thoughts</summary>
          <p>{reasoning}</p>
        </details>
      )}
      <Markdown text={text} />
      {/* Reserves its space from the start, so that nothing moves when the answer is complete. */}
      <footer className="actions">
        {!isGrowing && text && <CopyButton text={text} label="Copy answer" />}
        {!isGrowing && onAgain && (
          <button className="quiet" type="button" onClick={onAgain} aria-label="Answer again" title="Answer again">
            <Icon name="again" />
          </button>
        )}
        {message.metadata?.ending === "stopped" && <span className="note">Stopped</span>}
      </footer>
    </article>
  );
});
