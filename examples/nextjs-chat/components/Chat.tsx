"use client";

import { useChat } from "@ai-sdk/react";
import { DefaultChatTransport, generateId } from "ai";
import { useEffect, useRef, useState } from "react";
import { authorization } from "../lib/apiKey";
import { storeOf } from "../lib/conversations";
import { type Message, textOf, withEnding } from "../lib/messages";
import { SERVER, toSentence } from "../lib/server";
import type { Models } from "../lib/useModels";
import { useStickToBottom } from "../lib/useStickToBottom";
import { useTask } from "../lib/useTask";
import { Composer } from "./Composer";
import { Header } from "./Header";
import { Icon } from "./Icon";
import { KeyForm } from "./KeyForm";
import { MessageView } from "./MessageView";
import { Problem } from "./Problem";
import { Welcome } from "./Welcome";

const transport = new DefaultChatTransport<Message>({ api: `${SERVER}/ask`, headers: authorization });

interface Props {
  id: string | null; // null for a new conversation, which gets its id from `onStored`
  isReady: boolean;
  restored: Message[];
  models: Models;
  onStored: (id: string) => void;
}

/** One conversation, with its messages, the answer that is streaming, and the input. */
export function Chat({ id, isReady, restored, models, onStored }: Props) {
  const { messages, status, error, sendMessage, regenerate, stop, setMessages } = useChat<Message>({
    messages: restored,
    transport,
    throttle: 50, // milliseconds between renders
    onFinish({ messages, message, isAbort, isError, finishReason }) {
      const isComplete = !isAbort && !isError && finishReason !== undefined;
      const ended = isComplete ? messages : withEnding(messages, message.id, isAbort ? "stopped" : "broken");
      setMessages(ended);
      unstored.current = ended.find(({ id, role }) => id === message.id && role === "assistant") ?? null;
      void storing.perform("The answer is not stored.", storeAnswer);
    },
  });
  const stored = useRef(id); // the id of the stored conversation
  const unstored = useRef<Message>(null); // an answer that has ended
  const unsent = useRef<Message>(null); // a question that is not stored yet
  const isOpen = useRef(true);
  const storing = useTask();
  const [draft, setDraft] = useState("");
  const isAnswering = status === "submitted" || status === "streaming";
  const { scroller, content, isAtBottom, toBottom } = useStickToBottom();
  const body = models.chosen ? { model: models.chosen } : {};

  useEffect(() => {
    isOpen.current = true;
    return () => void (isOpen.current = false);
  }, []);

  useEffect(() => {
    // The page is closed or reloaded during an answer, or before it is stored.
    const onClose = () => {
      if (isAnswering) unstored.current = withEnding(messages, messages.at(-1)?.id ?? "", "broken").at(-1) ?? null;
      if (unstored.current?.role === "assistant") storeAnswer().catch(() => {}); // no page is left to show the error
    };
    addEventListener("pagehide", onClose);
    return () => removeEventListener("pagehide", onClose);
  }, [isAnswering, messages]);

  useEffect(() => {
    const onKey = (event: KeyboardEvent) => event.key === "Escape" && isAnswering && void stop();
    addEventListener("keydown", onKey);
    return () => removeEventListener("keydown", onKey);
  }, [isAnswering, stop]);

  async function storeAnswer() {
    const answer = unstored.current;
    if (!answer || !stored.current) return;
    await (await storeOf(stored.current)).putAnswer(stored.current, answer);
    if (unstored.current === answer) unstored.current = null;
  }

  /** Store the question, and ask it then. */
  function send(text: string) {
    if (!isReady || storing.isRunning) return;
    const failed = unsent.current; // it may have been stored without a confirmation
    const question = failed && textOf(failed) === text ? failed : toQuestion(text);
    unsent.current = question;
    void storing.perform("The message is not stored, and was not sent.", async () => {
      await storeAnswer();
      const store = await storeOf(stored.current);
      const place = await store.addQuestion(stored.current, question);
      if (!isOpen.current) return; // the user has opened another conversation, and finds this one in the list
      if (!stored.current) onStored(place);
      stored.current = place;
      unsent.current = null;
      setDraft((current) => (current.trim() === text ? "" : current));
      void sendMessage(question, { body });
      toBottom();
    });
  }

  /** Remove the last answer, if there is one, and ask its question again. */
  function again() {
    const question = messages.findLast(({ role }) => role === "user");
    void storing.perform("The earlier answer is not removed.", async () => {
      if (question && stored.current) await (await storeOf(stored.current)).removeAnswers(stored.current, question.id);
      unstored.current = null;
      void regenerate({ body });
      toBottom();
    });
  }

  const last = messages.at(-1);
  const isBusy = isAnswering || storing.isRunning;
  const problem = error ? toSentence(error) : isBusy ? null : problemAfterReload(last);
  const canRepeat = !isBusy && !problem && !storing.problem;
  return (
    <main className="chat">
      <Header models={models} />
      <div className="scroller" ref={scroller} tabIndex={0} role="region" aria-label="Conversation">
        <div className="content" ref={content}>
          {messages.length === 0 && <Welcome onAsk={send} />}
          <div className="messages" role="log" aria-busy={isAnswering}>
            {messages.map((message) => (
              <MessageView
                key={message.id}
                message={message}
                isGrowing={isAnswering && message === last}
                onAgain={message === last && canRepeat ? again : undefined}
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

const toQuestion = (text: string): Message => ({
  id: `msg_${generateId()}`,
  role: "user",
  parts: [{ type: "text", text }],
});

/** Return the problem of a restored conversation, whose error is no longer known, or null. */
function problemAfterReload(last: Message | undefined): string | null {
  if (last?.role === "user") return "This message has no answer yet.";
  return last?.metadata?.ending === "broken" ? "The answer broke off before it was complete." : null;
}
