"use client";

import { generateId } from "ai";
import { useEffect, useState } from "react";
import { Chat } from "../components/Chat";
import { Sidebar } from "../components/Sidebar";
import { useModels } from "../lib/useModels";

export default function Page() {
  const id = useConversationId();
  const models = useModels();
  return (
    <div className="layout">
      <Sidebar current={id} />
      <Chat key={id} id={id} models={models} />
    </div>
  );
}

/** Return the conversation's id, which is the hash of the URL. It survives a reload, and the back button works. */
function useConversationId() {
  const [id, setId] = useState(""); // until the page knows its URL, nothing is read or saved
  useEffect(() => {
    const follow = () => setId(location.hash.slice(1) || generateId());
    follow();
    addEventListener("hashchange", follow);
    return () => removeEventListener("hashchange", follow);
  }, []);
  return id;
}
