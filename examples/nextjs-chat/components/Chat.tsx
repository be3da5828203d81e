"use client";

import { useEffect, useState } from "react";
import type { Message } from "../lib/messages";
import { toSentence } from "../lib/server";
import type { Models } from "../lib/useModels";
import { useStickToBottom } from "../lib/useStickToBottom";
import { useStoredChat } from "../lib/useStoredChat";
import { Composer } from "./Composer";
import { Header } from "./Header";
import { Icon } from "./Icon";
import { KeyForm } from "./KeyForm";
import { MessageView } from "./MessageView";
import { Problem } from "./Problem";
import { Welcome } from "./Welcome";

interface Props {
  id: string | null; // null for a new conversation, which gets its id from `onStored`
  isReady: boolean;
  restored: Message[];
  models: Models;
  onStored: (id: string) => void;
}

/** One conversation, with its messages, the answer that is streaming, and the input. */
export function Chat({ id, isReady, restored, models, onStored }: Props) {
  const [draft, setDraft] = useState("");
  const { scroller, content, isAtBottom, toBottom } = useStickToBottom();
  const { messages, status, error, stop, isAnswering, storing, send, again } = useStoredChat({
    id,
    restored,
    model: models.chosen,
    onStored,
    onAsked(text) {
      setDraft((current) => (current.trim() === text ? "" : current));
      toBottom();
    },
  });

  useEffect(() => {
    const onKey = (event: KeyboardEvent) => event.key === "Escape" && isAnswering && void stop();
    addEventListener("keydown", onKey);
    return () => removeEventListener("keydown", onKey);
  }, [isAnswering, stop]);

  const last = messages.at(-1);
  const isBusy = isAnswering || storing.isRunning;
  const problem = error ? toSentence(error) : isBusy ? null : problemAfterReload(last);
  const canRepeat = !isBusy && !problem && !storing.problem;

  function repeat() {
    again();
    toBottom();
  }

  return (
    <main className="chat">
      <Header models={models} />
      <div className="scroller" ref={scroller} tabIndex={0} role="region" aria-label="Conversation">
        <div className="content" ref={content}>
          {messages.length === 0 && <Welcome onAsk={(text) => isReady && send(text)} />}
          <div className="messages" role="log" aria-busy={isAnswering}>
            {messages.map((message) => (
              <MessageView
                key={message.id}
                message={message}
                isGrowing={isAnswering && message === last}
                onAgain={message === last && canRepeat ? repeat : undefined}
              />
            ))}
            {status === "submitted" && <p className="thinking" aria-label="Waiting for the answer" role="status" />}
          </div>
          {problem && <Problem sentence={problem} onAgain={repeat} />}
        </div>
      </div>
      <div className="dock">
        {!isAtBottom && (
          <button className="to-bottom" type="button" onClick={toBottom} aria-label="Jump to the latest words">
            <Icon name="down" />
          </button>
        )}
        {models.problem && <Problem sentence={models.problem} onAgain={models.reload} />}
        {storing.problem && <Problem sentence={storing.problem} onAgain={storing.again} />}
        {models.needsKey ? (
          <KeyForm onKey={models.reload} />
        ) : (
          <Composer
            text={draft}
            onType={setDraft}
            isReady={isReady}
            isAnswering={isAnswering}
            isStoring={storing.isRunning}
            onSend={send}
            onStop={() => void stop()}
          />
        )}
      </div>
    </main>
  );
}

/** Return the problem of a restored conversation, whose error is no longer known, or null. */
function problemAfterReload(last: Message | undefined): string | null {
  if (last?.role === "user") return "This message has no answer yet.";
  return last?.metadata?.ending === "broken" ? "The answer broke off before it was complete." : null;
}
