// Renderer of Markdown as DOM elements, for headings, lists, tables, code and inline marks. It creates only text nodes
// and its own elements, so that an answer cannot inject HTML.

const FENCE = /^ {0,3}(```+|~~~+) *([\w+#.-]*)[^`]*$/;
const ITEM = /^ *(?:[-*+]|\d+[.)]) +/;
const INLINE = /(`+)(.+?)\1(?!`)|\*\*(.+?)\*\*|\*(?! )([^*]+)\*|\[([^\]]+)\]\((https?:\/\/[^\s)]+)\)/;

/** Create an element with attributes and children. Texts become text nodes. */
export function element(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [attribute, value] of Object.entries(attributes)) node.setAttribute(attribute, value);
  node.append(...children);
  return node;
}

/** Render `text` in `container`. Blocks that have not changed since the last call keep their elements. */
export function render(container, text) {
  const blocks = split(text);
  const previous = container.sources ?? [];
  let same = 0;
  while (same < blocks.length && blocks[same] === previous[same]) same += 1;
  while (container.childNodes.length > same) container.lastChild.remove();
  container.append(...blocks.slice(same).map(toElement));
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
    const mark = FENCE.exec(line)?.[1] ?? "";
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
  const fence = FENCE.exec(lines[0]);
  if (fence) return code(lines, fence[2]);
  const heading = /^(#{1,6}) +(.*)/.exec(source);
  if (heading) return element("h3", { class: heading[1].length > 2 ? "minor" : "major" }, ...inline(heading[2]));
  if (ITEM.test(source)) return list(lines);
  if (lines.length > 1 && /^[ |]*:?-+[-| :]*$/.test(lines[1]) && lines[0].includes("|")) return table(lines);
  return element("p", {}, ...lines.flatMap((line, number) => [...(number ? ["\n"] : []), ...inline(line)]));
}

function code([, ...lines], language) {
  if (FENCE.test(lines.at(-1) ?? "")) lines.pop();
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
  return element(name, start, ...items.map((item) => element("li", {}, ...inline(item))));
}

function table([head, , ...rows]) {
  const cells = (line) => line.trim().replace(/^\||\|$/g, "").split("|");
  const row = (line, name) => element("tr", {}, ...cells(line).map((cell) => element(name, {}, ...inline(cell.trim()))));
  const body = element("tbody", {}, ...rows.map((line) => row(line, "td")));
  const node = element("table", {}, element("thead", {}, row(head, "th")), body);
  return element("div", { class: "table", tabindex: 0, role: "region", "aria-label": "Table" }, node);
}

function inline(text) {
  const found = INLINE.exec(text);
  if (!found) return text ? [text] : [];
  const [all, , codeText, strong, emphasis, label, address] = found;
  const before = text.slice(0, found.index);
  const after = inline(text.slice(found.index + all.length));
  return [...(before ? [before] : []), mark(codeText, strong, emphasis, label, address), ...after];
}

function mark(codeText, strong, emphasis, label, address) {
  if (codeText !== undefined) return element("code", {}, codeText.trim());
  if (strong !== undefined) return element("strong", {}, ...inline(strong));
  if (emphasis !== undefined) return element("em", {}, ...inline(emphasis));
  return element("a", { href: address, target: "_blank", rel: "noopener noreferrer" }, label);
}
