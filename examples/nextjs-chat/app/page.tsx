"use client";

import { Conversation } from "../components/Conversation";
import { Sidebar } from "../components/Sidebar";
import { useModels } from "../lib/useModels";
import { usePlace } from "../lib/usePlace";

export default function Page() {
  const { key, id, setId } = usePlace();
  const models = useModels();
  return (
    <div className="layout">
      <Sidebar current={id} />
      <Conversation key={key} id={id} isReady={key !== ""} models={models} onStored={setId} />
    </div>
  );
}
