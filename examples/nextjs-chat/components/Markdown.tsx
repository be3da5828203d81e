import { type ComponentProps, memo, type ReactNode, useRef } from "react";
import ReactMarkdown, { type Components, type ExtraProps } from "react-markdown";
import rehypeHighlight from "rehype-highlight";
import remarkGfm from "remark-gfm";
import { CopyButton } from "./CopyButton";

// react-markdown converts Markdown to React elements and never to HTML. Tags in an answer are shown as text, and links
// with schemes other than http, https, mailto and similar lose their URL.

const components: Components = {
  a: ({ node, children, ...rest }) => (
    <a {...rest} target="_blank" rel="noopener noreferrer">
      {children}
    </a>
  ),
  // Loading an image is a request to a host that the model has chosen, and its URL may contain data.
  img: ({ src, alt }) => (
    <a href={typeof src === "string" ? src : undefined} target="_blank" rel="noopener noreferrer">
      {alt || "image"}
    </a>
  ),
  table: ({ node, ...rest }) => (
    <div className="table" tabIndex={0} role="region" aria-label="Table">
      <table {...rest} />
    </div>
  ),
  pre: ({ children, node }) => <CodeBlock node={node}>{children}</CodeBlock>,
};

export const Markdown = memo(function Markdown({ text }: { text: string }) {
  return (
    <div className="markdown">
      <ReactMarkdown remarkPlugins={[remarkGfm]} rehypePlugins={[rehypeHighlight]} components={components}>
        {text}
      </ReactMarkdown>
    </div>
  );
});

function CodeBlock({ node, children }: ComponentProps<"pre"> & ExtraProps & { children?: ReactNode }) {
  const pre = useRef<HTMLPreElement>(null);
  return (
    <figure className="code">
      <figcaption>
        <span>{languageOf(node)}</span>
        <CopyButton text={() => pre.current?.textContent ?? ""} label="Copy code" />
      </figcaption>
      <pre ref={pre} tabIndex={0}>
        {children}
      </pre>
    </figure>
  );
}

function languageOf(pre: ExtraProps["node"]): string {
  const code = pre?.children[0];
  const names = code?.type === "element" ? code.properties.className : undefined;
  const name = Array.isArray(names) ? names.find((name) => String(name).startsWith("language-")) : undefined;
  return name ? String(name).slice("language-".length) : "";
}
