// One line through every stage. Every text is set as text.
const $ = (id) => document.getElementById(id);

function make(name, kind, ...inside) {
  const made = document.createElement(name);
  if (kind) made.className = kind;
  made.append(...inside.filter((part) => part !== undefined && part !== null));
  return made;
}

const words = (value) => (typeof value === "string" ? value : JSON.stringify(value));

function fields(of) {
  const list = make("dl", "fields");
  const pair = (name, ...value) => list.append(make("dt", "", name), make("dd", "", ...value));
  for (const [name, value] of Object.entries(of.added ?? {})) pair(name, make("span", "added", words(value)));
  for (const [name, { before, after }] of Object.entries(of.changed ?? {})) {
    pair(name, make("span", "removed", words(before)), " ", make("span", "added", words(after)));
  }
  for (const [name, value] of Object.entries(of.removed ?? {})) pair(name, make("span", "removed", words(value)));
  return list.childElementCount ? list : null;
}

function stage(of) {
  const body = make("div");
  if (of.text && of.text.before !== of.text.after) {
    for (const part of of.text.parts ?? []) {
      body.append(make("p", "", make("span", "removed", part.before), " → ", make("span", "added", part.after), part.rule ? make("small", "dim", ` ${part.rule}`) : null));
    }
    if (!(of.text.parts ?? []).length) body.append(make("p", "text", words(of.text.after)));
  }
  const changed = fields(of.fields ?? {});
  if (changed) body.append(changed);
  if (of.outcome === "dropped") body.append(make("p", "problem", "Dropped here: nothing is sent."));
  if (!body.childElementCount) body.append(make("span", "dim", of.outcome === "same" ? "changes nothing" : (of.outcome ?? "")));
  const by = of.by ? make("small", "", words(of.by)) : null;
  return make("li", "", make("div", "name", of.stage, by), body);
}

function found(record) {
  const list = make("dl", "fields");
  for (const [name, { value, from }] of Object.entries(record.parse?.fields ?? {})) {
    list.append(make("dt", "", name), make("dd", "", words(value), " ", make("small", "", from ?? "")));
  }
  return list.childElementCount ? list : make("p", "dim", "Nothing is recognised in it: it goes out as plain text.");
}

function story(record) {
  const stages = make("ol", "stages");
  stages.append(make("li", "", make("div", "name", "recognised", make("small", "", record.parse?.format ?? "")), make("div", "", found(record))));
  for (const of of record.diff ?? []) stages.append(stage(of));
  if (record.sinks) {
    const list = make("dl", "fields");
    for (const [name, of] of Object.entries(record.sinks)) list.append(make("dt", "", name), make("dd", "", JSON.stringify(of)));
    stages.append(make("li", "", make("div", "name", "sent"), list));
  } else if (record.dropped_by) {
    stages.append(make("li", "", make("div", "name", "sent"), make("p", "problem", `Nothing: dropped by ${record.dropped_by}.`)));
  }
  return make("article", "story", make("h3", "", words(record.body ?? "")), stages);
}

export function startExplain(post) {
  const [form, line, out] = ["explain-form", "explain-line", "explained"].map($);
  form.hidden = false;
  line.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const who = new URLSearchParams();
    for (const name of ["ns", "pod", "container"]) {
      const value = $(`explain-${name}`).value.trim();
      if (value) who.set(name, value);
    }
    let answer;
    try { answer = await post(`/api/explain?${who}`, line.value); } catch (error) {
      out.replaceChildren(make("p", "problem", `The agent does not answer: ${error.message}`));
      return;
    }
    if (!answer.ok) { out.replaceChildren(make("p", "problem", (await answer.text()).trim())); return; }
    const told = await answer.json();
    const left = told.records_left_out ? make("p", "note", `${told.records_left_out} more records are not shown.`) : null;
    const problems = (told.problems ?? []).map((of) => make("p", "problem", `${of.annotation} = ${of.value} ${of.what}. ${of.fix}`));
    out.replaceChildren(...problems, ...(told.records ?? []).map(story), ...(left ? [left] : []));
    if (!out.childElementCount) out.replaceChildren(make("p", "note", "There is no record in it."));
  });
}
