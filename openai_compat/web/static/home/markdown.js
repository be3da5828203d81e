// Renderer of Markdown as DOM elements, for headings, lists, tables, code and inline marks. It creates only text nodes
// and its own elements, so that an answer cannot inject HTML. The time is proportional to the text, whatever it contains:
// no expression can match the same characters in several ways, and no search for an end is made twice.

const FENCE = /^ {0,3}(```+|~~~+) *([\w+#.-]*)/;
const ITEM = /^ *(?:[-*+]|\d+[.)]) +/;
const TABLE_RULE = /^[ |]*:?-[-| :]*$/;
const ADDRESS = /\]\(https?:\/\//y;

/** Create an element with attributes and children. Texts become text nodes. */
export function element(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [attribute, value] of Object.entries(attributes)) node.setAttribute(attribute, value);
  node.append(...children);
  return node;
}

/** Append any number of children. `append(...children)` would overflow the stack with a hundred thousand. */
function fill(node, children) {
  for (const child of children) node.append(child);
  return node;
}

/** Return the mark and the language of a line that opens or closes fenced code, or null. */
function fenceOf(line) {
  const found = FENCE.exec(line);
  return found && !line.includes("`", found[0].length) ? found : null;
}

/** Render `text` in `container`. Blocks that have not changed since the last call keep their elements. */
export function render(container, text) {
  const blocks = split(text);
  const previous = container.sources ?? [];
  let same = 0;
  while (same < blocks.length && blocks[same] === previous[same]) same += 1;
  while (container.childNodes.length > same) container.lastChild.remove();
  fill(container, blocks.slice(same).map(toElement));
  container.sources = blocks;
}

/** Split `text` into the sources of its blocks, which are fenced code or lines up to an empty one. */
function split(text) {
  const blocks = [];
  let lines = [];
  let fence = "";
  const end = () => {
    if (lines.length) blocks.push(lines.join("\n"));
    lines = [];
  };
  for (const line of text.split("\n")) {
    const mark = fenceOf(line)?.[1] ?? "";
    if (fence) {
      lines.push(line);
      if (mark && mark[0] === fence[0] && mark.length >= fence.length) {
        fence = "";
        end();
      }
    } else if (mark || /^#{1,6} /.test(line)) {
      end();
      lines.push(line);
      fence = mark;
      if (!mark) end();
    } else if (line.trim()) {
      if (ITEM.test(line) && lines.length && !ITEM.test(lines[0])) end();
      lines.push(line);
    } else {
      end();
    }
  }
  end();
  return blocks;
}

function toElement(source) {
  const lines = source.split("\n");
  const fence = fenceOf(lines[0]);
  if (fence) return code(lines, fence[2]);
  const heading = /^(#{1,6}) +(.*)/.exec(source);
  if (heading) {
    return fill(element("h3", { class: heading[1].length > 2 ? "minor" : "major" }), inline(heading[2]));
  }
  if (ITEM.test(source)) return list(lines);
  if (lines.length > 1 && TABLE_RULE.test(lines[1]) && lines[0].includes("|")) return table(lines);
  return fill(element("p"), lines.flatMap((line, number) => [...(number ? ["\n"] : []), ...inline(line)]));
}

function code([, ...lines], language) {
  if (fenceOf(lines.at(-1) ?? "")) lines.pop();
  return element("pre", { tabindex: 0, "data-language": language }, element("code", {}, `${lines.join("\n")}\n`));
}

function list(lines) {
  const items = [];
  for (const line of lines) {
    if (ITEM.test(line)) items.push(line.replace(ITEM, ""));
    else items[items.length - 1] += ` ${line.trim()}`;
  }
  const name = /^ *\d/.test(lines[0]) ? "ol" : "ul";
  const start = name === "ol" ? { start: parseInt(lines[0], 10) } : {};
  return fill(element(name, start), items.map((item) => fill(element("li"), inline(item))));
}

function table([head, , ...rows]) {
  const cells = (line) => line.trim().replace(/^\||\|$/g, "").split("|");
  const cell = (source, name) => fill(element(name), inline(source.trim()));
  const row = (line, name) => fill(element("tr"), cells(line).map((source) => cell(source, name)));
  const body = fill(element("tbody"), rows.map((line) => row(line, "td")));
  const node = element("table", {}, element("thead", {}, row(head, "th")), body);
  return element("div", { class: "table", tabindex: 0, role: "region", "aria-label": "Table" }, node);
}

/** Return the texts and elements of a line. Each mark is tried once, and a text without an end stays text. */
function inline(text) {
  if (!/[`*[]/.test(text)) return text ? [text] : [];
  const nodes = [];
  const marks = [codeMark(text), starMark(text), linkMark(text)];
  const nextStart = finder(text, /[`*[]/g);
  let plain = 0;
  let at = nextStart(0);
  while (at < text.length) {
    const kind = "`*[".indexOf(text[at]);
    const { node, end } = marks[kind](at);
    if (node) {
      if (plain < at) nodes.push(text.slice(plain, at));
      nodes.push(node);
      plain = end;
    }
    at = nextStart(end);
  }
  if (plain < text.length) nodes.push(text.slice(plain));
  return nodes;
}

/** Return a function that finds `pattern` from a position on. Positions must not decrease, and no text is read twice. */
function finder(text, pattern) {
  let found = -1;
  return (from) => {
    if (found < from) {
      pattern.lastIndex = from;
      found = pattern.exec(text)?.index ?? Infinity;
    }
    return found;
  };
}

/** Return a function for code, which ends at the next run of as many backticks. */
function codeMark(text) {
  const ends = new Map();
  const following = new Map();
  for (const { 0: run, index } of [...text.matchAll(/`+/g)].reverse()) {
    ends.set(index, following.get(run.length));
    following.set(run.length, index);
  }
  return (at) => {
    let length = 1;
    while (text[at + length] === "`") length += 1;
    const end = ends.get(at);
    if (end === undefined) return { end: at + length };
    return { node: element("code", {}, text.slice(at + length, end).trim()), end: end + length };
  };
}

/** Return a function for strong text and emphasis. */
function starMark(text) {
  const double = finder(text, /\*\*/g);
  const single = finder(text, /\*/g);
  return (at) => {
    if (text[at + 1] === "*") {
      const end = double(at + 3);
      if (end === Infinity) return { end: at + 1 };
      return { node: fill(element("strong"), inline(text.slice(at + 2, end))), end: end + 2 };
    }
    const end = text[at + 1] === " " ? Infinity : single(at + 1);
    if (end === Infinity) return { end: at + 1 };
    return { node: fill(element("em"), inline(text.slice(at + 1, end))), end: end + 1 };
  };
}

/** Return a function for links, which have a label and an address in parentheses. */
function linkMark(text) {
  const labelEnd = finder(text, /\]/g);
  const addressEnd = finder(text, /[\s)]/g);
  return (at) => {
    const label = labelEnd(at + 1);
    ADDRESS.lastIndex = label;
    if (label === Infinity || label === at + 1 || !ADDRESS.test(text)) return { end: at + 1 };
    const end = addressEnd(ADDRESS.lastIndex);
    if (text[end] !== ")" || end === ADDRESS.lastIndex) return { end: at + 1 };
    const attributes = { href: text.slice(label + 2, end), target: "_blank", rel: "noopener noreferrer" };
    return { node: element("a", attributes, text.slice(at + 1, label)), end: end + 1 };
  };
}
