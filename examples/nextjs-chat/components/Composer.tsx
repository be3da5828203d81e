import { type FormEvent, type KeyboardEvent, useEffect, useRef } from "react";
import { Icon } from "./Icon";

const MAX_CHARS = 20_000;

interface Props {
  text: string;
  onType: (text: string) => void;
  isReady: boolean; // the page knows its conversation, and keeps what is typed
  isAnswering: boolean;
  isStoring: boolean;
  onSend: (text: string) => void;
  onStop: () => void;
}

/** The input. Its owner empties it once a message is stored. */
export function Composer({ text, onType, isReady, isAnswering, isStoring, onSend, onStop }: Props) {
  const input = useRef<HTMLTextAreaElement>(null);
  const excess = text.length - MAX_CHARS;
  const canSend = Boolean(text.trim()) && excess <= 0 && !isStoring;

  useEffect(() => {
    // Not on phones, where the keyboard would cover half of the page.
    if (matchMedia("(pointer: fine)").matches) input.current?.focus();
  }, []);

  function send(event: FormEvent) {
    event.preventDefault();
    if (isAnswering || !canSend) return;
    onSend(text.trim());
    input.current?.focus();
  }

  function onKeyDown(event: KeyboardEvent<HTMLTextAreaElement>) {
    // While an input method composes a Japanese or Chinese word, Enter only ends the word.
    if (event.key === "Enter" && !event.shiftKey && !event.nativeEvent.isComposing) send(event);
  }

  return (
    <form className="composer" onSubmit={send}>
      <label className="hidden" htmlFor="message">
        Your message
      </label>
      <textarea
        id="message"
        ref={input}
        rows={1}
        value={text}
        disabled={!isReady}
        placeholder="Ask anything"
        aria-invalid={excess > 0}
        aria-describedby="hint"
        onChange={(event) => onType(event.target.value)}
        onKeyDown={onKeyDown}
      />
      {isAnswering ? (
        <button className="round" type="button" onClick={onStop} aria-label="Stop" title="Stop (Esc)">
          <span className="square" />
        </button>
      ) : (
        <button className="round" type="submit" disabled={!canSend} aria-label="Send" title="Send (Enter)">
          <Icon name="send" />
        </button>
      )}
      <p id="hint" className={excess > 0 ? "hint wrong" : "hint"} role={excess > 0 ? "alert" : undefined}>
        {excess > 0
          ? `The message is ${excess.toLocaleString("en")} characters too long.`
          : "Enter sends, Shift+Enter begins a new line, Esc stops an answer."}
      </p>
    </form>
  );
}
