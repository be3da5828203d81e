import { type FormEvent, type KeyboardEvent, useEffect, useRef, useState } from "react";
import { Icon } from "./Icon";

const MAX_CHARS = 20_000;

interface Props {
  isReady: boolean; // the page knows its conversation, and keeps what is typed
  isBusy: boolean;
  onSend: (text: string) => void;
  onStop: () => void;
}

export function Composer({ isReady, isBusy, onSend, onStop }: Props) {
  const [text, setText] = useState("");
  const input = useRef<HTMLTextAreaElement>(null);
  const isEmpty = !text.trim();
  const excess = text.length - MAX_CHARS;

  useEffect(() => {
    // Not on phones, where the keyboard would cover half of the page.
    if (matchMedia("(pointer: fine)").matches) input.current?.focus();
  }, []);

  function send(event: FormEvent) {
    event.preventDefault();
    if (isBusy || isEmpty || excess > 0) return;
    onSend(text.trim());
    setText("");
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
        onChange={(event) => setText(event.target.value)}
        onKeyDown={onKeyDown}
      />
      {isBusy ? (
        <button className="round" type="button" onClick={onStop} aria-label="Stop" title="Stop (Esc)">
          <span className="square" />
        </button>
      ) : (
        <button className="round" type="submit" disabled={isEmpty || excess > 0} aria-label="Send" title="Send (Enter)">
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
