"use client";

import { useChat } from "@ai-sdk/react";
import { DefaultChatTransport, generateId } from "ai";
import { useEffect, useState } from "react";
import { findConversation, type Message, saveConversation } from "../lib/conversations";
import { authorization, SERVER, toSentence } from "../lib/server";
import type { Models } from "../lib/useModels";
import { useStickToBottom } from "../lib/useStickToBottom";
import { Composer } from "./Composer";
import { Header } from "./Header";
import { Icon } from "./Icon";
import { KeyForm } from "./KeyForm";
import { MessageView } from "./MessageView";
import { Problem } from "./Problem";
import { Welcome } from "./Welcome";

const transport = new DefaultChatTransport<Message>({ api: `${SERVER}/ask`, headers: authorization });

/** One conversation, with its messages, the answer that is streaming, and the input. */
export function Chat({ id, models }: { id: string; models: Models }) {
  const [restored] = useState(() => (id ? (findConversation(id)?.messages ?? []) : []));
  const { messages, status, error, sendMessage, regenerate, stop, setMessages } = useChat<Message>({
    id,
    messages: restored,
    transport,
    throttle: 50, // milliseconds between renders
    onFinish({ messages, message, isAbort, isError, finishReason }) {
      const isComplete = !isAbort && !isError && finishReason !== undefined;
      const ended = isComplete ? messages : withEnding(messages, message.id, isAbort ? "stopped" : "broken");
      setMessages(ended);
      if (findConversation(id)) saveConversation(id, ended); // it may have been deleted meanwhile
    },
  });
  const isBusy = status === "submitted" || status === "streaming";
  const { scroller, content, isAtBottom, toBottom } = useStickToBottom();
  const body = models.chosen ? { model: models.chosen } : {};

  useEffect(() => {
    if (!isBusy) return;
    const save = () => saveConversation(id, withEnding(messages, messages.at(-1)?.id, "broken"));
    addEventListener("pagehide", save); // the page is closed or reloaded during an answer
    return () => removeEventListener("pagehide", save);
  }, [id, isBusy, messages]);

  useEffect(() => {
    const onKey = (event: KeyboardEvent) => event.key === "Escape" && isBusy && void stop();
    addEventListener("keydown", onKey);
    return () => removeEventListener("keydown", onKey);
  }, [isBusy, stop]);

  function send(text: string) {
    if (!messages.length) history.replaceState(null, "", `#${id}`);
    const question: Message = { id: generateId(), role: "user", parts: [{ type: "text", text }] };
    saveConversation(id, [...messages, question]); // saved even if the page is closed before an answer starts
    void sendMessage(question, { body });
    toBottom();
  }

  function again() {
    saveConversation(id, last?.role === "assistant" ? messages.slice(0, -1) : messages);
    void regenerate({ body });
    toBottom();
  }

  const last = messages.at(-1);
  const problem = error ? toSentence(error) : isBusy ? null : problemAfterReload(last);
  return (
    <main className="chat">
      <Header models={models} />
      <div className="scroller" ref={scroller} tabIndex={0} role="region" aria-label="Conversation">
        <div className="content" ref={content}>
          {messages.length === 0 && <Welcome onAsk={send} />}
          <div className="messages" role="log" aria-busy={isBusy}>
            {messages.map((message) => (
              <MessageView
                key={message.id}
                message={message}
                isGrowing={isBusy && message === last}
                onAgain={message === last && !isBusy && !problem ? again : undefined}
              />
            ))}
            {status === "submitted" && <p className="thinking" aria-label="Waiting for the answer" role="status" />}
          </div>
          {problem && <Problem sentence={problem} onAgain={again} />}
        </div>
      </div>
      <div className="dock">
        {!isAtBottom && (
          <button className="to-bottom" type="button" onClick={toBottom} aria-label="Jump to the latest words">
            <Icon name="down" />
          </button>
        )}
        {models.problem && <Problem sentence={models.problem} onAgain={models.reload} />}
        {models.needsKey ? (
          <KeyForm onKey={models.reload} />
        ) : (
          <Composer isReady={id !== ""} isBusy={isBusy} onSend={send} onStop={() => void stop()} />
        )}
      </div>
    </main>
  );
}

/** Return the messages, with the assistant's message `id` marked as incomplete. */
function withEnding(messages: Message[], id: string | undefined, ending: "stopped" | "broken"): Message[] {
  return messages.map((message) =>
    message.id === id && message.role === "assistant" ? { ...message, metadata: { ending } } : message,
  );
}

/** Return the problem of a restored conversation, whose error is no longer known, or null. */
function problemAfterReload(last: Message | undefined): string | null {
  if (last?.role === "user") return "This message has no answer yet.";
  return last?.metadata?.ending === "broken" ? "The answer broke off before it was complete." : null;
}
