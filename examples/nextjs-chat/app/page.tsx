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

/** The conversation is named in the address, after `#`: it outlives a reload, and the browser's back button works. */
function useConversationId() {
  const [id, setId] = useState(""); // before the page knows its address: nothing is read and nothing is kept
  useEffect(() => {
    const follow = () => setId(location.hash.slice(1) || generateId());
    follow();
    addEventListener("hashchange", follow);
    return () => removeEventListener("hashchange", follow);
  }, []);
  return id;
}
