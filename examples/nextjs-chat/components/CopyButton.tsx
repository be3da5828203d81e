import { useEffect, useState } from "react";
import { Icon } from "./Icon";

/** Button that copies `text` to the clipboard and confirms it for two seconds. */
export function CopyButton({ text, label }: { text: string | (() => string); label: string }) {
  const [isCopied, setIsCopied] = useState(false);
  useEffect(() => {
    if (!isCopied) return;
    const timer = setTimeout(() => setIsCopied(false), 2000);
    return () => clearTimeout(timer);
  }, [isCopied]);

  async function copy() {
    await writeToClipboard(typeof text === "string" ? text : text());
    setIsCopied(true);
  }

  return (
    <button className="quiet" type="button" onClick={() => void copy()} aria-label={label} title={label}>
      <Icon name={isCopied ? "done" : "copy"} />
      <span className="hidden" role="status">
        {isCopied ? "Copied" : ""}
      </span>
    </button>
  );
}

async function writeToClipboard(text: string) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  // The clipboard API is not available over plain HTTP, except on localhost.
  const area = document.createElement("textarea");
  area.value = text;
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}
