// A minimal chat page with React. `?version=1` uses version 4 of the AI SDK, whose React package is version 1, and
// `?version=4` the newest one with its text transport. `&model=` names a model.

import { useChat as useNewest } from "@ai-sdk/react";
import { TextStreamChatTransport } from "ai";
import { useChat as useOlder } from "ai-sdk-react-1";
import { useState } from "react";
import { createRoot } from "react-dom/client";

const options = new URLSearchParams(location.search);
const server = "http://localhost:8000";
const body = options.has("model") ? { model: options.get("model") } : {};
const transport = new TextStreamChatTransport({ api: `${server}/ask?format=text`, body });

function Older() {
  const chat = useOlder({ api: `${server}/ask`, streamProtocol: "text", body });
  return (
    <Page {...chat} texts={chat.messages.map((message) => message.content)}>
      <form onSubmit={chat.handleSubmit}>
        <input value={chat.input} onChange={chat.handleInputChange} />
      </form>
    </Page>
  );
}

function Newest() {
  const chat = useNewest({ transport });
  const [text, setText] = useState("");
  function send(event) {
    event.preventDefault();
    void chat.sendMessage({ text });
  }
  const textOf = (message) => message.parts.map((part) => part.text ?? "").join("");
  return (
    <Page {...chat} texts={chat.messages.map(textOf)}>
      <form onSubmit={send}>
        <input value={text} onChange={(event) => setText(event.target.value)} />
      </form>
    </Page>
  );
}

function Page({ texts, status, error, stop, children }) {
  return (
    <main>
      {texts.map((text, number) => (
        <article key={number}>{text}</article>
      ))}
      {children}
      <output>{status}</output>
      {error && <p role="alert">{error.message}</p>}
      <button onClick={() => stop()}>Stop</button>
    </main>
  );
}

createRoot(document.getElementById("root")).render(options.get("version") === "1" ? <Older /> : <Newest />);
