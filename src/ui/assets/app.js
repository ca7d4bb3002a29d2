// The page's script: keeps the server's parts up to date, and the keyboard. Whatever comes from logs is set as text; the HTML
// that is put in place is the server's own, with every value escaped there.
import { startLines } from "/assets/lines.js";
import { startExplain } from "/assets/explain.js";

const $ = (id) => document.getElementById(id);
const connection = $("connection");

/** Makes `now` like `next`, in place: what has the focus, is selected or scrolled stays as it is. */
function morph(now, next) {
  const [olds, news] = [[...now.childNodes], [...next.childNodes]];
  for (let at = 0; at < news.length; at++) {
    const [a, b] = [olds[at], news[at]];
    if (!a) now.append(b);
    else if (a.nodeType !== b.nodeType || a.nodeName !== b.nodeName) a.replaceWith(b);
    else if (a.nodeType === Node.ELEMENT_NODE) {
      for (const { name } of [...a.attributes]) if (!b.hasAttribute(name)) a.removeAttribute(name);
      for (const { name, value } of b.attributes) if (a.getAttribute(name) !== value) a.setAttribute(name, value);
      morph(a, b);
    } else if (a.nodeValue !== b.nodeValue) a.nodeValue = b.nodeValue;
  }
  for (const rest of olds.slice(news.length)) rest.remove();
}

function put(part, html) {
  const place = document.querySelector(`[data-part="${CSS.escape(part)}"]`);
  if (!place) return;
  const next = document.createElement("template");
  next.innerHTML = html;
  morph(place, next.content);
}

let source = null;
let retry = 0;
let lastBeat = 0;

function follow() {
  clearTimeout(retry);
  source?.close();
  source = new EventSource("/api/events" + location.search);
  source.addEventListener("part", (event) => {
    const { part, html } = JSON.parse(event.data);
    put(part, html);
  });
  source.addEventListener("beat", () => {
    lastBeat = Date.now();
    document.body.dataset.live = "yes";
    say("live", false);
  });
  source.onerror = () => {
    if (Date.now() - lastBeat > 4000) say("no connection to the agent, trying again", true);
    // A refusal ends the stream for good: it is opened anew.
    if (source.readyState === EventSource.CLOSED) retry = setTimeout(follow, 3000);
  };
}

function say(text, lost) {
  if (connection.textContent !== text) connection.textContent = text;
  connection.classList.toggle("lost", lost);
}

setInterval(() => {
  if (source && lastBeat && Date.now() - lastBeat > 6000) say(`no news for ${Math.round((Date.now() - lastBeat) / 1000)} s`, true);
}, 2000);

// A page that nobody sees asks for nothing.
document.addEventListener("visibilitychange", () => {
  if (document.hidden) { source?.close(); source = null; say("", false); } else if (!source) follow();
});

/** Sends something that only this page's own script can send. */
export async function post(path, body) {
  return fetch(path, { method: "POST", headers: { "x-nodewick": "1", "content-type": "text/plain" }, body });
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-action]");
  if (!button) return;
  button.disabled = true;
  try {
    const answer = await post(`/api/actions/${encodeURIComponent(button.dataset.action)}`, "");
    if (!answer.ok) return;
    const { label, active } = await answer.json();
    button.textContent = label;
    button.setAttribute("aria-pressed", String(active));
  } finally {
    button.disabled = false;
  }
});

// Light and dark.
const themes = ["", "light", "dark"];
const theme = $("theme");
function showTheme() {
  const now = document.documentElement.dataset.theme ?? "";
  theme.textContent = { "": "◐", light: "☀", dark: "☾" }[now];
  theme.title = { "": "Theme: as the system has it", light: "Theme: light", dark: "Theme: dark" }[now];
  theme.setAttribute("aria-label", theme.title);
}
function nextTheme() {
  const now = document.documentElement.dataset.theme ?? "";
  const next = themes[(themes.indexOf(now) + 1) % themes.length];
  if (next) document.documentElement.dataset.theme = next;
  else delete document.documentElement.dataset.theme;
  try { next ? localStorage.setItem("nodewick-theme", next) : localStorage.removeItem("nodewick-theme"); } catch { /* for this page only */ }
  showTheme();
}
theme.hidden = false;
theme.addEventListener("click", nextTheme);
showTheme();

const keys = $("keys");
$("help").hidden = false;
$("help").addEventListener("click", () => keys.showModal());
const leave = $("leave");
if (leave) {
  leave.hidden = false;
  leave.addEventListener("click", async () => { await post("/sign-out", ""); location.assign("/sign-in"); });
}

/** Moves the focus to the next row, or to the first one that can be seen. */
function step(by) {
  const rows = [...document.querySelectorAll("[data-row]")].filter((row) => row.offsetParent !== null);
  if (!rows.length) return;
  const at = rows.indexOf(document.activeElement.closest("[data-row]"));
  const top = document.querySelector(".sections").getBoundingClientRect().bottom;
  const first = rows.findIndex((row) => row.getBoundingClientRect().top >= top);
  const next = at < 0 ? Math.max(first, 0) : Math.min(Math.max(at + by, 0), rows.length - 1);
  rows[next].focus({ preventScroll: true });
  rows[next].scrollIntoView({ block: "nearest" });
}

const lines = startLines();
startExplain(post);

// A row of a service leads to its lines.
function open(row) {
  if (row.dataset.service) lines.ofService(row.dataset.service);
  else row.dispatchEvent(new Event("open-row"));
}
document.addEventListener("dblclick", (event) => {
  const row = event.target.closest("[data-row][data-service]");
  if (row) open(row);
});

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || keys.open) return;
  const field = event.target.closest("input, textarea, select");
  if (event.key === "Escape") {
    if (field) field.blur();
    else if (event.target.closest("[data-row]")) document.activeElement.blur();
    else lines.live();
    return;
  }
  if (field) return;
  const row = event.target.closest("[data-row]");
  const act = {
    "/": () => { $("f-grep").focus(); $("lines").scrollIntoView({ block: "start" }); },
    "?": () => keys.showModal(),
    j: () => step(1), ArrowDown: () => step(1), k: () => step(-1), ArrowUp: () => step(-1),
    Enter: () => row && event.target === row && open(row),
    p: () => lines.pause(), t: nextTheme, g: () => scrollTo({ top: 0 }),
  }[event.key];
  if (!act || (event.key.startsWith("Arrow") && !row) || (event.key === "Enter" && event.target !== row)) return;
  event.preventDefault();
  act();
});

// Which section is being read.
const links = new Map([...document.querySelectorAll(".sections a")].map((a) => [a.hash.slice(1), a]));
const seen = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (!isIntersecting) continue;
    for (const link of links.values()) link.removeAttribute("aria-current");
    links.get(target.id)?.setAttribute("aria-current", "true");
  }
}, { rootMargin: "-15% 0px -75% 0px" });
for (const id of links.keys()) { const section = $(id); if (section) seen.observe(section); }

follow();
