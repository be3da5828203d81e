import { useState } from "react";
import { useMessages } from "../lib/conversations";
import type { Models } from "../lib/useModels";
import { Chat } from "./Chat";
import { Header } from "./Header";
import { KeyForm } from "./KeyForm";
import { Problem } from "./Problem";

interface Props {
  id: string | null;
  isReady: boolean; // the page knows its conversation, and keeps what is typed
  models: Models;
  onStored: (id: string) => void;
}

/** A stored conversation, which is read first, or a new one. */
export function Conversation({ id, isReady, models, onStored }: Props) {
  const [opened] = useState(id); // a new conversation that gets its id is not read
  const { messages, problem, reload } = useMessages(opened);
  if (messages) return <Chat id={opened} isReady={isReady} restored={messages} models={models} onStored={onStored} />;
  const isLoading = !problem && !models.needsKey;
  return (
    <main className="chat">
      <Header models={models} />
      <div className="scroller">
        <div className="content">
          {problem && <Problem sentence={problem} onAgain={reload} />}
          {isLoading && <p className="thinking" aria-label="Loading the conversation" role="status" />}
        </div>
      </div>
      <div className="dock">{models.needsKey && <KeyForm onKey={models.reload} />}</div>
    </main>
  );
}
