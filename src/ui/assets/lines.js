// Lines: live, and from the node's files. Every text is set as text.
const MOST = 1000;
const $ = (id) => document.getElementById(id);

const make = (name, kind, text) => {
  const made = document.createElement(name);
  if (kind) made.className = kind;
  if (text !== undefined) made.textContent = text;
  return made;
};

/** What a person wants to read first of a line: of JSON its message and the request, else the line. */
function short(line) {
  if (!line.startsWith("{")) return line;
  let of;
  try { of = JSON.parse(line); } catch { return line; }
  const texts = ["msg", "message", "log", "event", "@m", "MESSAGE", "body"].map((key) => of[key]);
  const text = texts.find((value) => typeof value === "string");
  if (text === undefined) return line;
  const error = of.err?.message ?? of.error?.message ?? (typeof of.error === "string" ? of.error : undefined);
  return error && error !== text ? `${text}: ${error}` : text;
}

function clock(time) {
  const at = new Date(time);
  if (Number.isNaN(at.getTime())) return time;
  const two = (n, size = 2) => String(n).padStart(size, "0");
  return `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}.${two(at.getMilliseconds(), 3)}`;
}

function query(of) {
  const given = new URLSearchParams();
  for (const [name, value] of Object.entries(of)) if (value) given.set(name, value);
  return given.toString();
}

export function startLines() {
  const [log, note, empty, mode, form] = ["log", "lines-note", "lines-empty", "lines-mode", "filters"].map($);
  const pauseButton = $("pause");
  const field = { grep: $("f-grep"), service: $("f-service"), level: $("f-level"), trace: $("f-trace"), since: $("f-since") };
  let source = null;
  let ending = null;
  let again = 0;
  let paused = false;
  let waiting = [];
  let searching = false;

  form.hidden = false;
  empty.hidden = false;

  const filter = () => ({ grep: field.grep.value.trim(), service: field.service.value.trim(), level: field.level.value, trace: field.trace.value.trim() });

  function row(entry) {
    const item = make("li");
    item.tabIndex = -1;
    item.dataset.row = "";
    const level = entry.level ?? "";
    const who = `${entry.namespace ?? ""}/${entry.service_name || entry.pod || entry.filename || ""}`;
    const time = make("span", "time", clock(entry.time ?? ""));
    time.title = entry.time ?? "";
    const name = make("span", "who", who);
    name.title = [entry.pod, entry.container].filter(Boolean).join(" ");
    const text = make("span", "text", short(entry.line ?? ""));
    const severity = /^[a-z]+$/.test(level) ? level : "";
    item.append(time, make("span", `level ${severity}`, level), name, text);
    const request = [entry.http_method, entry.url_path ?? entry.http_route, entry.http_status, entry.duration_ms !== undefined ? `${entry.duration_ms} ms` : ""];
    if (request.some(Boolean)) text.append(make("span", "dim", `  ${request.filter(Boolean).join(" ")}`));
    if (entry.trace_id) {
      const trace = make("button", "trace", entry.trace_id.slice(0, 8));
      trace.type = "button";
      trace.title = `All lines of trace ${entry.trace_id}`;
      trace.setAttribute("aria-label", trace.title);
      trace.addEventListener("click", (event) => { event.stopPropagation(); ofTrace(entry.trace_id); });
      item.append(trace);
    }
    const toggle = () => {
      const raw = item.querySelector(".raw");
      if (raw) { raw.remove(); return; }
      const { line, ...rest } = entry;
      item.append(make("pre", "raw", `${line ?? ""}\n\n${JSON.stringify(rest, null, 1)}`));
    };
    item.addEventListener("open-row", toggle);
    text.addEventListener("click", toggle);
    return item;
  }

  /** Shows what has come, at most once a frame. */
  let due = false;
  function show() {
    due = false;
    if (paused && !searching) { pauseButton.textContent = `Go on (${waiting.length})`; return; }
    const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
    const batch = waiting.splice(0);
    const made = document.createDocumentFragment();
    for (const of of batch.slice(-MOST)) made.append(typeof of === "string" ? make("li", "gap", of) : row(of));
    log.append(made);
    while (log.childElementCount > MOST) log.firstElementChild.remove();
    empty.hidden = log.childElementCount > 0;
    if (atEnd && !searching) log.scrollTop = log.scrollHeight;
  }

  function take(of) {
    if (of.line !== undefined) waiting.push(of);
    else if (of.skipped) waiting.push(`… ${of.skipped} lines left out: more came than can be shown`);
    else if (of.searched) return ended(of.searched);
    else if (of.error) note.textContent = of.error;
    if (waiting.length > 2 * MOST) waiting.splice(0, waiting.length - MOST);
    if (!due) { due = true; setTimeout(show, 60); }
  }

  function stop() {
    clearTimeout(again);
    source?.close();
    source = null;
    ending?.abort();
    ending = null;
  }

  function begin(text) {
    stop();
    waiting = [];
    log.replaceChildren();
    empty.hidden = false;
    mode.textContent = text;
  }

  function live() {
    searching = false;
    begin("live");
    document.body.dataset.lines = "live";
    const given = filter();
    note.textContent = Object.values(given).some(Boolean) ? "Live lines that match, as they come. Press Enter in a field to search the files." : "";
    source = new EventSource(`/api/tail?${query(given)}`);
    const own = source;
    source.onmessage = (event) => take(JSON.parse(event.data));
    source.addEventListener("end", () => { own.close(); again = setTimeout(live, 2000); });
    source.onerror = async () => {
      // A stream that broke comes again by itself; one that was refused has said why.
      if (own.readyState !== EventSource.CLOSED || source !== own) return;
      again = setTimeout(live, 5000);
      const answer = await fetch(`/api/tail?${query({ ...given, follow: "false" })}`).catch(() => null);
      if (answer && !answer.ok) note.textContent = await reason(answer);
    };
  }

  async function reason(answer) {
    const text = await answer.text();
    try { return JSON.parse(text).error ?? text; } catch { return text || `the agent answers ${answer.status}`; }
  }

  async function search(given, words) {
    searching = true;
    setPaused(false);
    begin(words);
    document.body.dataset.lines = "searching";
    note.textContent = "Searching…";
    ending = new AbortController();
    const own = ending;
    try {
      const answer = await fetch(`/api/search?${query(given)}`, { signal: own.signal });
      if (!answer.ok) { note.textContent = await reason(answer); return; }
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      let rest = "";
      for (;;) {
        const { value, done } = await reader.read();
        if (done) break;
        const all = (rest + value).split("\n");
        rest = all.pop();
        for (const line of all) if (line.trim()) take(JSON.parse(line));
      }
      if (rest.trim()) take(JSON.parse(rest));
    } catch (error) {
      if (!own.signal.aborted) note.textContent = `The search broke off: ${error.message}`;
    } finally {
      if (ending === own) { document.body.dataset.lines = "searched"; show(); }
    }
  }

  function ended(of) {
    const found = of.shown ?? of.matches ?? 0;
    const parts = [`${found} ${found === 1 ? "line" : "lines"}`];
    if (of.matches > found) parts[0] += ` of ${of.matches}`;
    const files = of.files ?? of.logs;
    if (files !== undefined) parts.push(`${files} files looked at`);
    if (of.milliseconds !== undefined) parts.push(`${of.milliseconds} ms`);
    if (of.complete === false) parts.push("not all of it was searched: narrow the time or the service");
    note.textContent = `${parts.join(", ")}. Esc or Live goes back to live lines.`;
    if (!found) empty.hidden = false;
  }

  function setPaused(now) {
    paused = now;
    pauseButton.setAttribute("aria-pressed", String(now));
    pauseButton.textContent = now ? "Go on" : "Pause";
    if (!now) show();
  }

  const searchAll = () => search({ ...filter(), since: field.since.value }, "from the files of this node");

  function ofTrace(id) {
    field.grep.value = "";
    field.service.value = "";
    field.level.value = "";
    field.trace.value = id;
    $("lines").scrollIntoView({ block: "start" });
    search({ trace: id }, `of trace ${id}`);
  }

  form.addEventListener("submit", (event) => { event.preventDefault(); searchAll(); });
  for (const of of [field.service, field.level, field.trace]) of.addEventListener("change", live);
  let typed = 0;
  field.grep.addEventListener("input", () => { if (!searching) { clearTimeout(typed); typed = setTimeout(live, 400); } });
  field.grep.addEventListener("keydown", (event) => { if (event.key === "Enter") clearTimeout(typed); });
  $("live").addEventListener("click", () => { setPaused(false); live(); });
  pauseButton.addEventListener("click", () => setPaused(!paused));
  $("clear").addEventListener("click", () => {
    for (const of of [field.grep, field.service, field.level, field.trace]) of.value = "";
    setPaused(false);
    live();
  });
  document.addEventListener("visibilitychange", () => {
    if (searching) return;
    if (document.hidden) stop(); else if (!source) live();
  });
  // A link to a trace: /?trace=<id>.
  const asked = new URLSearchParams(location.search).get("trace") || "";
  if (/^[0-9a-f]{4,32}$/i.test(asked)) ofTrace(asked.toLowerCase()); else live();
  return {
    live: () => { setPaused(false); live(); },
    pause: () => setPaused(!paused),
    ofService: (name) => { field.service.value = name; live(); $("lines").scrollIntoView({ block: "start" }); },
  };
}
