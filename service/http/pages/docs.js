// The API reference: reads /openapi.json and shows it. Text only ever becomes text nodes. The token stays in `token.value`.
"use strict";

const $ = (id) => document.getElementById(id);
const METHODS = ["get", "post", "put", "patch", "delete"];
let contract;

function el(name, props = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (key in made && key !== "list") made[key] = value;
    else made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== ""));
  return made;
}

// A little Markdown: paragraphs, lists with "*", `code`, **bold**.
function inline(text) {
  return text.split(/(`[^`]+`|\*\*[^*]+\*\*)/).map((part) => {
    if (part.startsWith("`") && part.length > 2) return el("code", {}, part.slice(1, -1));
    if (part.startsWith("**")) return el("strong", {}, part.slice(2, -2));
    return part;
  });
}

function prose(text) {
  const blocks = (text || "").split(/\n\n+/).map((block) => {
    const lines = block.split("\n");
    if (!lines[0].startsWith("* ")) return el("p", {}, inline(lines.join(" ")));
    const items = block.split(/\n(?=\* )/).map((item) => el("li", {}, inline(item.slice(2).replace(/\n\s*/g, " "))));
    return el("ul", {}, items);
  });
  return el("div", { className: "prose" }, blocks);
}

function resolved(thing) {
  let found = thing;
  while (found && found.$ref) found = found.$ref.slice(2).split("/").reduce((at, key) => at[key], contract);
  return found || {};
}

const nameOf = (schema) => (schema && schema.$ref ? schema.$ref.split("/").pop() : null);

function arms(schema) {
  return (schema.anyOf || schema.oneOf || []).filter((arm) => arm.type !== "null");
}

function typeOf(schema) {
  if (!schema || Object.keys(schema).length === 0) return "any";
  if (schema.$ref) return nameOf(schema);
  const alternatives = schema.anyOf || schema.oneOf;
  if (alternatives) return alternatives.map(typeOf).join(" | ");
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
  if ("const" in schema) return JSON.stringify(schema.const);
  if (schema.type === "array") {
    const kinds = arms(schema.items || {}).length;
    return kinds > 3 ? `array of ${kinds} kinds` : kinds > 1 ? `(${typeOf(schema.items)})[]` : `${typeOf(schema.items)}[]`;
  }
  if (schema.type === "object" && typeof schema.additionalProperties === "object") return `{ name: ${typeOf(schema.additionalProperties)} }`;
  return Array.isArray(schema.type) ? schema.type.join(" | ") : schema.type || "any";
}

// What bounds a value, without limits that only say "64 bits".
function bounds(schema) {
  const inner = [schema, ...arms(schema)].find((one) => ["minimum", "maximum", "minLength", "maxLength", "maxItems"].some((key) => key in one)) || {};
  const said = [];
  const [low, high] = [inner.minimum, inner.maximum].map((value) => (value === undefined || Math.abs(value) >= 2 ** 53 ? undefined : value.toLocaleString("en")));
  if (low !== undefined && high !== undefined) said.push(`${low} to ${high}`);
  else if (low !== undefined || high !== undefined) said.push(low !== undefined ? `at least ${low}` : `at most ${high}`);
  if ("minLength" in inner || "maxLength" in inner) said.push(`${inner.minLength ?? 0}–${inner.maxLength ?? "…"} characters`);
  if ("maxItems" in inner) said.push(`${inner.minItems ?? 0}–${inner.maxItems.toLocaleString("en")} entries`);
  return said.join(", ");
}

// Every model that a schema mentions, to be opened on demand.
function mentioned(schema) {
  if (!schema) return [];
  if (schema.$ref) return [schema];
  return [...arms(schema).flatMap(mentioned), ...mentioned(schema.items), ...(typeof schema.additionalProperties === "object" ? mentioned(schema.additionalProperties) : [])];
}

function model(schema, open = false, known = "") {
  const inner = el("div", { className: "inner" });
  const tag = resolved(schema).properties?.type?.enum;
  const name = el("code", {}, typeOf(schema));
  const label = tag?.length === 1 ? [el("code", { className: "s" }, `"${tag[0]}"`), " ", el("span", { className: "type" }, typeOf(schema))] : name;
  const made = el("details", { className: "model" }, el("summary", {}, label), inner);
  const fill = () => { if (made.open && !inner.firstChild) inner.append(...shape(resolved(schema), known)); };
  made.addEventListener("toggle", fill);
  made.open = open;
  if (open) fill();
  return made;
}

function shape(schema, known = "") {
  const shown = [];
  if (schema.description && schema.description !== known) shown.push(prose(schema.description));
  const fields = Object.entries(schema.properties || {});
  if (fields.length) {
    const must = new Set(schema.required || []);
    shown.push(el("dl", { className: "fields" }, fields.map(([name, field]) => fieldRow(name, field, must.has(name)))));
  } else {
    const parts = mentioned(schema);
    shown.push(parts.length ? el("div", {}, parts.map((part) => model(part))) : el("p", { className: "type" }, typeOf(schema)));
  }
  return shown;
}

function fieldRow(name, schema, required, meaning) {
  const fallback = schema.default !== undefined && schema.default !== null ? ` = ${JSON.stringify(schema.default)}` : "";
  const term = el("dt", {}, el("b", {}, name), el("span", { className: "type" }, typeOf(schema) + fallback), required ? el("span", { className: "must" }, "required") : null);
  const said = [meaning || schema.description, bounds(schema)].filter(Boolean).join(" · ");
  const models = mentioned(schema).map((part) => model(part));
  return el("div", {}, term, said ? el("dd", {}, inline(said)) : null, models.length ? el("dd", {}, models) : null);
}

// JSON with colours, without reading numbers: an integer of 64 bits stays as it was sent.
function painted(text) {
  const box = el("code");
  const token = /("(?:[^"\\]|\\.)*")(\s*:)?|(-?\d[\d.eE+-]*)|(true|false|null)/g;
  let last = 0;
  for (const found of text.matchAll(token)) {
    box.append(text.slice(last, found.index));
    const kind = found[1] ? (found[2] ? "k" : "s") : found[3] ? "n" : "w";
    box.append(el("span", { className: kind }, found[1] || found[0]), found[2] || "");
    last = found.index + found[0].length;
  }
  box.append(text.slice(last));
  return box;
}

function pretty(text) {
  if (/\d{16}/.test(text)) return text;
  try { return JSON.stringify(JSON.parse(text), null, 2); } catch { return text; }
}

const code = (value, label) => el("pre", { tabIndex: 0, "aria-label": label }, painted(typeof value === "string" ? value : JSON.stringify(value, null, 2)));

function contentOf(part) {
  const [media, content] = Object.entries(part?.content || {})[0] || [];
  return { media, schema: content?.schema, example: content?.example };
}

function answersOf(operation) {
  const rows = Object.entries(operation.responses).map(([status, given]) => {
    const answer = resolved(given);
    const { schema, media } = contentOf(answer);
    const tone = status < 300 ? "good" : status >= 500 ? "bad" : "";
    const badge = el("span", { className: `status ${tone}` }, status);
    if (media !== "application/problem+json") {
      const models = schema && Object.keys(schema).length ? mentioned(schema).map((part) => model(part)) : [];
      return el("li", {}, badge, el("div", {}, prose(answer.description), models));
    }
    const lines = answer.description.split("\n").map((line) => line.match(/^\* `([^`]+)`: (.*)$/)).filter(Boolean);
    return el("li", {}, badge, el("ul", {}, lines.map(([, name, title]) => el("li", {}, el("a", { href: `/problems/${name}` }, name), ` ${title}`))));
  });
  return el("ul", { className: "answers" }, rows);
}

function parametersOf(operation) {
  return el("dl", { className: "fields" }, (operation.parameters || []).map((one) => {
    const row = fieldRow(one.name, one.schema, one.required, one.description);
    row.querySelector("dt").append(el("span", { className: "type" }, `in ${one.in}`));
    return row;
  }));
}

function opened(entry) {
  const { operation } = entry;
  const sent = contentOf(operation.requestBody);
  const good = contentOf(resolved(Object.entries(operation.responses).find(([status]) => status < 300)?.[1]));
  const roles = operation["x-roles"];
  const needs = operation["x-permission"] === "public"
    ? "Needs no token."
    : `Needs the permission \`${operation["x-permission"]}\`, which these roles hold: ${roles.map((role) => `\`${role}\``).join(", ")}.`;
  const left = el("div", {}, prose(operation.description), el("p", { className: "needs" }, inline(needs)));
  if (operation.parameters?.length) left.append(el("h4", {}, "Parameters"), parametersOf(operation));
  if (sent.schema) {
    const parts = mentioned(sent.schema);
    left.append(el("h4", {}, sent.schema.type === "array" ? "Body: an array of" : "Body"), ...(parts.length ? parts.map((part) => model(part, true, operation.description)) : shape(sent.schema)));
  }
  left.append(el("h4", {}, "Answers"), answersOf(operation));
  const side = el("div", { className: "side" });
  if (sent.example !== undefined) side.append(el("h4", {}, "Example request"), code(sent.example, "Example request"));
  if (good.example !== undefined) side.append(el("h4", {}, "Example answer"), code(good.example, "Example answer"));
  side.append(tryIt(entry, sent));
  return el("div", { className: "body" }, left, side);
}

function tryIt(entry, sent) {
  const { operation } = entry;
  const inputs = (operation.parameters || []).map((one) => {
    const options = resolved(one.schema).enum;
    const input = options
      ? el("select", {}, el("option", { value: "" }, "—"), options.map((value) => el("option", { value }, value)))
      : el("input", { type: "text", required: one.required, spellcheck: false, autocomplete: "off" });
    return { one, input, label: el("label", {}, one.name, " ", el("span", { className: "type" }, one.in + (one.required ? ", required" : "")), input) };
  });
  const body = sent.schema ? el("textarea", { spellcheck: false, value: sent.example === undefined ? "" : JSON.stringify(sent.example, null, 2) }) : null;
  const outcome = el("div", { className: "outcome", role: "status", "aria-live": "polite" });
  const send = el("button", { type: "submit" }, "Send");
  const stop = el("button", { type: "button", className: "plain", hidden: true }, "Stop");
  const copy = el("button", { type: "button", className: "plain" }, "Copy as curl");
  const form = el("form", {}, inputs.map((made) => made.label), body ? el("label", {}, "Body ", el("span", { className: "type" }, sent.media), body) : null, el("div", { className: "row" }, send, stop, copy), outcome);
  const request = () => composed(entry, inputs, body, sent.media);
  copy.addEventListener("click", async () => {
    await navigator.clipboard?.writeText(curl(request()));
    copy.textContent = navigator.clipboard ? "Copied, with $HOLDFAST_TOKEN for the token" : "The browser does not allow it";
  });
  form.addEventListener("submit", (event) => { event.preventDefault(); run(request(), outcome, send, stop); });
  return el("details", { className: "try" }, el("summary", {}, "Try it"), form);
}

function composed(entry, inputs, body, media) {
  let path = entry.path;
  const query = new URLSearchParams();
  const headers = {};
  for (const { one, input } of inputs) {
    if (one.in === "path") path = path.replace(`{${one.name}}`, encodeURIComponent(input.value));
    else if (input.value && one.in === "query") query.set(one.name, input.value);
    else if (input.value) headers[one.name] = input.value;
  }
  if (body) headers["Content-Type"] = media;
  const search = query.toString();
  return { method: entry.method.toUpperCase(), path: path + (search ? `?${search}` : ""), headers, body: body?.value, open: entry.operation["x-permission"] === "public" };
}

function curl(request) {
  const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
  const parts = [`curl -X ${request.method} ${quoted(location.origin + request.path)}`];
  if (!request.open) parts.push(`-H "Authorization: Bearer $HOLDFAST_TOKEN"`);
  for (const [name, value] of Object.entries(request.headers)) parts.push(`-H ${quoted(`${name}: ${value}`)}`);
  if (request.body !== undefined) parts.push(`--data-binary ${quoted(request.body)}`);
  return parts.join(" \\\n  ");
}

async function run(request, outcome, send, stop) {
  const giveUp = new AbortController();
  const token = $("token").value.trim();
  const headers = { ...request.headers, ...(token && !request.open ? { Authorization: `Bearer ${token}` } : {}) };
  const began = performance.now();
  stop.onclick = () => giveUp.abort();
  send.disabled = true; stop.hidden = false;
  outcome.replaceChildren(el("p", { className: "line" }, "Waiting for the answer…"));
  try {
    const answer = await fetch(request.path, { method: request.method, headers, body: request.body, signal: giveUp.signal, credentials: "omit", cache: "no-store" });
    await show(answer, outcome, began);
  } catch (error) {
    outcome.append(el("p", { className: "line" }, error.name === "AbortError" ? "Stopped." : `No answer: ${error.message}`));
  } finally {
    send.disabled = false; stop.hidden = true;
  }
}

async function show(answer, outcome, began) {
  const media = answer.headers.get("content-type") || "";
  const badge = el("span", { className: `status ${answer.status < 300 ? "good" : answer.status >= 500 ? "bad" : ""}` }, String(answer.status));
  const took = el("span", {}, `${Math.round(performance.now() - began)} ms`);
  const box = el("pre", { tabIndex: 0, "aria-label": "Answer" });
  outcome.replaceChildren(el("p", { className: "line" }, badge, took, el("span", {}, media)), box);
  if (!media.startsWith("text/event-stream")) {
    const text = await answer.text();
    box.replaceChildren(media.includes("json") ? painted(pretty(text)) : text.slice(0, 100_000) || "(empty)");
    return;
  }
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let part = await reader.read(); !part.done; part = await reader.read()) box.append(part.value);
}

function card(entry) {
  const { operation, method, path } = entry;
  const parts = path.split(/(\{[^}]+\})/).map((part) => (part.startsWith("{") ? el("i", {}, part) : part));
  const permit = operation["x-permission"];
  const title = el("h3", {}, el("span", { className: `badge ${method}` }, method.toUpperCase()), el("span", { className: "path" }, parts), el("span", { className: "says" }, operation.summary));
  const made = el("details", { className: "op", id: operation.operationId }, el("summary", {}, title, el("span", { className: `chip${permit === "public" ? " open" : ""}`, title: "Permission" }, permit)));
  made.addEventListener("toggle", () => { if (made.open && made.children.length === 1) made.append(opened(entry)); });
  return made;
}

function words(entry) {
  const { operation, method, path } = entry;
  const codes = Object.values(operation.responses).map((answer) => resolved(answer).description).join(" ");
  return [method, path, operation.operationId, operation.summary, operation.description, operation["x-permission"], ...operation.tags, codes].join(" ").toLowerCase();
}

function build() {
  const entries = Object.entries(contract.paths).flatMap(([path, item]) => METHODS.filter((method) => item[method]).map((method) => ({ path, method, operation: item[method] })));
  for (const tag of contract.tags) {
    const mine = entries.filter((entry) => entry.operation.tags.includes(tag.name));
    const [headline, ...rest] = (tag.description || "").split("\n\n");
    const said = headline.replace(/^\w+: /, ""); // "Tenants: who …" stands under the heading "Tenants"
    const first = said.charAt(0).toUpperCase() + said.slice(1);
    const about = el("div", { className: "about" }, inline(first), rest.length ? el("details", {}, el("summary", {}, "More"), prose(rest.join("\n\n"))) : null);
    const section = el("section", { className: "group", id: `tag-${tag.name}` }, el("h2", {}, tag.name), about);
    const list = el("ul");
    const heading = el("h2", {}, tag.name);
    for (const entry of mine) {
      entry.words = words(entry); entry.card = card(entry);
      const link = el("a", { href: `#${entry.operation.operationId}`, title: entry.path }, el("span", { className: `verb ${entry.method}` }, entry.method.toUpperCase()), el("span", {}, entry.operation.operationId));
      entry.link = el("li", {}, link);
      section.append(entry.card); list.append(entry.link);
    }
    $("groups").append(section); $("nav").append(heading, list);
    Object.assign(tag, { mine, section, heading });
  }
  return entries;
}

function search(entries) {
  const asked = $("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const entry of entries) {
    const hit = asked.every((word) => entry.words.includes(word));
    entry.card.hidden = entry.link.hidden = !hit;
    shown += hit;
  }
  for (const tag of contract.tags) tag.section.hidden = tag.heading.hidden = tag.mine.every((entry) => entry.card.hidden);
  $("intro").hidden = asked.length > 0;
  $("count").textContent = asked.length ? `${shown} of ${entries.length} operations` : "";
  $("count").className = asked.length ? "needs" : "hidden";
}

function follow() {
  const target = location.hash && $(decodeURIComponent(location.hash.slice(1)));
  if (!target || !target.classList.contains("op")) return;
  target.hidden = false; target.open = true;
  requestAnimationFrame(() => target.scrollIntoView());
}

function dress() {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  $("theme").addEventListener("click", () => {
    const now = document.documentElement.dataset.theme || (dark.matches ? "dark" : "light");
    document.documentElement.dataset.theme = now === "dark" ? "light" : "dark";
  });
  $("tools").addEventListener("submit", (event) => event.preventDefault());
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && !/^(INPUT|TEXTAREA|SELECT)$/.test(document.activeElement.tagName)) { event.preventDefault(); $("search").focus(); }
  });
}

async function begin() {
  dress();
  try {
    const answer = await fetch("/openapi.json", { credentials: "omit" });
    if (!answer.ok) throw new Error(`/openapi.json answered ${answer.status}`);
    contract = await answer.json();
  } catch (error) {
    $("loading").className = "notice"; $("loading").textContent = `The contract could not be read: ${error.message}.`;
    return;
  }
  $("version").textContent = contract.info.version;
  $("loading").replaceWith(prose(contract.info.description), el("p", { className: "needs" }, "The contract for programs: ", el("a", { href: "/openapi.json" }, "/openapi.json"), "."));
  const entries = build();
  $("search").addEventListener("input", () => search(entries));
  addEventListener("hashchange", follow);
  follow();
}

begin();
