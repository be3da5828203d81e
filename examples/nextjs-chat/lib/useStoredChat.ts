import { useChat } from "@ai-sdk/react";
import { DefaultChatTransport, generateId } from "ai";
import { useEffect, useRef } from "react";
import { authorization } from "./apiKey";
import { storeOf } from "./conversations";
import { type Message, textOf, withEnding } from "./messages";
import { SERVER } from "./server";
import { useTask } from "./useTask";

const transport = new DefaultChatTransport<Message>({ api: `${SERVER}/ask`, headers: authorization });

interface Options {
  id: string | null; // null for a new conversation
  restored: Message[];
  model: string; // "" for the server's default
  onStored: (id: string) => void; // a new conversation has its id
  onAsked: (text: string) => void; // the text is stored, and shown as a message
}

/**
 * One conversation of the AI SDK, which is stored as it grows: a question before it is sent, and an answer at its end.
 * `storing` is the change that runs or has failed.
 */
export function useStoredChat({ id, restored, model, onStored, onAsked }: Options) {
  const stored = useRef(id); // the id of the stored conversation
  const unstored = useRef<Message>(null); // an answer that has ended
  const unsent = useRef<Message>(null); // a question that is not stored yet
  const storing = useTask();
  const chat = useChat<Message>({
    messages: restored,
    transport,
    throttle: 50, // milliseconds between renders
    onFinish({ messages, message, isAbort, isError, finishReason }) {
      const isComplete = !isAbort && !isError && finishReason !== undefined;
      const ended = isComplete ? messages : withEnding(messages, message.id, isAbort ? "stopped" : "broken");
      chat.setMessages(ended);
      unstored.current = ended.find(({ id, role }) => id === message.id && role === "assistant") ?? null;
      void storing.perform("The answer is not stored.", storeAnswer);
    },
  });
  const { messages, status } = chat;
  const isAnswering = status === "submitted" || status === "streaming";
  const isOpen = useIsOpen();
  const body = model ? { model } : {};

  useOnClose(() => {
    if (isAnswering) unstored.current = withEnding(messages, messages.at(-1)?.id ?? "", "broken").at(-1) ?? null;
    if (unstored.current?.role === "assistant") storeAnswer().catch(() => {}); // no page is left to show the error
  });

  async function storeAnswer() {
    const answer = unstored.current;
    if (!answer || !stored.current) return;
    await (await storeOf(stored.current)).putAnswer(stored.current, answer);
    if (unstored.current === answer) unstored.current = null;
  }

  /** Store the question, and ask it then. */
  function send(text: string) {
    if (storing.isRunning) return;
    const failed = unsent.current; // it may have been stored without a confirmation
    const question = failed && textOf(failed) === text ? failed : toQuestion(text);
    unsent.current = question;
    void storing.perform("The message is not stored, and was not sent.", async () => {
      await storeAnswer();
      const place = await (await storeOf(stored.current)).addQuestion(stored.current, question);
      if (!isOpen.current) return; // the user has opened another conversation, and finds this one in the list
      if (!stored.current) onStored(place);
      stored.current = place;
      unsent.current = null;
      void chat.sendMessage(question, { body });
      onAsked(text);
    });
  }

  /** Remove the last answer, if there is one, and ask its question again. */
  function again() {
    const question = messages.findLast(({ role }) => role === "user");
    void storing.perform("The earlier answer is not removed.", async () => {
      if (question && stored.current) await (await storeOf(stored.current)).removeAnswers(stored.current, question.id);
      unstored.current = null;
      void chat.regenerate({ body });
    });
  }

  return { messages, status, error: chat.error, stop: chat.stop, isAnswering, storing, send, again };
}

const toQuestion = (text: string): Message => ({
  id: `msg_${generateId()}`,
  role: "user",
  parts: [{ type: "text", text }],
});

/** Return a reference that is false once the component is removed. */
function useIsOpen() {
  const isOpen = useRef(true);
  useEffect(() => {
    isOpen.current = true;
    return () => void (isOpen.current = false);
  }, []);
  return isOpen;
}

/** Call the function of the latest render when the page is closed or reloaded. */
function useOnClose(listener: () => void) {
  const latest = useRef(listener);
  useEffect(() => void (latest.current = listener));
  useEffect(() => {
    const onClose = () => latest.current();
    addEventListener("pagehide", onClose);
    return () => removeEventListener("pagehide", onClose);
  }, []);
}
