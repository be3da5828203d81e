import { type FormEvent, type KeyboardEvent, useEffect, useRef, useState } from "react";
import { Icon } from "./Icon";

const MOST = 20_000; // characters

interface Props {
  isBusy: boolean;
  onSend: (text: string) => void;
  onStop: () => void;
}

export function Composer({ isBusy, onSend, onStop }: Props) {
  const [text, setText] = useState("");
  const input = useRef<HTMLTextAreaElement>(null);
  const isEmpty = !text.trim();
  const tooMany = text.length - MOST;

  useEffect(() => {
    // On a phone the keyboard would cover half of the page.
    if (matchMedia("(pointer: fine)").matches) input.current?.focus();
  }, []);

  function send(event: FormEvent) {
    event.preventDefault();
    if (isBusy || isEmpty || tooMany > 0) return;
    onSend(text.trim());
    setText("");
    input.current?.focus();
  }

  function onKeyDown(event: KeyboardEvent<HTMLTextAreaElement>) {
    // While a Japanese or Chinese word is being composed, Enter only ends the word.
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
        placeholder="Ask anything"
        aria-invalid={tooMany > 0}
        aria-describedby="hint"
        onChange={(event) => setText(event.target.value)}
        onKeyDown={onKeyDown}
      />
      {isBusy ? (
        <button className="round" type="button" onClick={onStop} aria-label="Stop" title="Stop (Esc)">
          <span className="square" />
        </button>
      ) : (
        <button className="round" type="submit" disabled={isEmpty || tooMany > 0} aria-label="Send" title="Send (Enter)">
          <Icon name="send" />
        </button>
      )}
      <p id="hint" className={tooMany > 0 ? "hint wrong" : "hint"} role={tooMany > 0 ? "alert" : undefined}>
        {tooMany > 0
          ? `The message is ${tooMany.toLocaleString("en")} characters too long.`
          : "Enter sends, Shift+Enter begins a new line, Esc stops an answer."}
      </p>
    </form>
  );
}
