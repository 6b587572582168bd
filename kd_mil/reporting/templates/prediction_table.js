const rows = () => [...at("slides").tBodies[0].rows].filter(row => !row.hidden);
const buttons = () => rows().map(row => row.querySelector("button.open")).filter(Boolean);
let opened = null;

function show(button) {
  if (opened) opened.closest("tr").classList.remove("shown");
  opened = button;
  button.closest("tr").classList.add("shown");
  wanted = button.textContent;
  history.replaceState(null, "", `#${encodeURIComponent(wanted)}`);
  const script = document.createElement("script");
  script.src = button.dataset.panel;
  script.onload = script.onerror = event => {
    script.remove();
    if (event.type === "error") at("count").textContent = `the file of ${button.textContent} is not there`;
  };
  document.head.append(script);
}

function close() {
  if (!opened) return;
  at("panel").hidden = true;
  document.body.classList.remove("open-panel");
  opened.closest("tr").classList.remove("shown");
  opened.focus();
  opened = wanted = shown = null;
  history.replaceState(null, "", "#");
}

function step(by, from) {
  const all = buttons(), next = all[all.indexOf(from) + by];
  return next || null;
}

function filter() {
  const words = at("find").value.toLowerCase(), decision = at("decision")?.value ?? "";
  const [doubtful, wrong] = ["doubtful", "wrong"].map(id => at(id)?.checked);
  for (const row of at("slides").tBodies[0].rows) {
    row.hidden = !row.textContent.toLowerCase().includes(words) || (decision && row.dataset.decision !== decision)
      || (doubtful && !row.dataset.doubtful) || (wrong && !row.dataset.wrong);
  }
  at("count").textContent = `${rows().length} shown`;
}

at("slides").tBodies[0].onclick = event => {
  const button = event.target.closest("button.open");
  if (button) { show(button); at("panel").scrollIntoView({block: "nearest"}); }
};
at("close").onclick = close;
for (const id of ["find", "decision", "doubtful", "wrong"]) if (at(id)) at(id).oninput = filter;
for (const id of ["threshold", "opacity", "marks"]) at(id).oninput = () => shown && redraw();
at("layer").oninput = event => choose(event.target.value);
document.onkeydown = event => {
  const from = document.activeElement, inTable = from && from.matches("button.open");
  if (event.key === "Escape") close();
  else if (inTable && ["ArrowDown", "ArrowUp"].includes(event.key)) {
    event.preventDefault();
    step(event.key === "ArrowDown" ? 1 : -1, from)?.focus();
  } else if (opened && ["ArrowLeft", "ArrowRight"].includes(event.key) && !from.matches("input, select")) {
    const next = step(event.key === "ArrowRight" ? 1 : -1, opened);
    if (next) show(next);
  }
};
filter();
const linked = buttons().find(button => `#${encodeURIComponent(button.textContent)}` === location.hash);
if (linked) show(linked);
