// What keys and buttons do.

const search = new Search(classes, (name) => decide("label", name), () => $("heading").focus());

const say = (text) => { $("status").textContent = text; };

// The next image without an answer, from here on and then from the start; behind the last if none.
function advance() {
  const order = [...shown.slice(at + 1), ...shown.slice(0, at + 1)];
  const next = order.find(isOpen);
  at = next ? shown.indexOf(next) : shown.length;
  show({ focus: true });
}

function decide(verdict, label = "") {
  if (at >= shown.length) return;
  decisions.set(shown[at].uri, verdict, label);
  say(`Image ${at + 1}: ${said({ verdict, label })}.`);
  advance();
}

function skip() {
  if (at >= shown.length) return;
  if (isOpen(shown[at])) decide("skip");
  else go(at + 1);
}

function go(to) {
  at = Math.min(Math.max(to, 0), shown.length);
  show({ focus: true });
}

function undo() {
  const uri = decisions.undo();
  if (uri === undefined) return;
  const item = items.find((one) => one.uri === uri);
  if (!shown.includes(item)) chooseQueue("");
  at = shown.indexOf(item);
  say("Taken back.");
  show({ focus: true });
}

function chooseQueue(queue) {
  shown = queue ? items.filter((item) => item.queue === queue) : items;
  const first = shown.findIndex(isOpen);
  at = first < 0 ? shown.length : first;
  [...document.getElementsByName("queue")].forEach((radio) => { radio.checked = radio.value === queue; });
  show();
}

function records() {
  return items.flatMap((item) => {
    const decision = decisions.get(item.uri);
    if (!decision || decision.verdict === "skip") return [];
    const score = item.choices[0]?.[1] ?? "";
    return [{ ...decision, uri: item.uri, queue: item.queue, proposed: proposed(item), score, run_id: run.id }];
  });
}

function download() {
  const written = records();
  const blob = new Blob([toCsv(written)], { type: "text/csv;charset=utf-8" });
  const link = element("a", { href: URL.createObjectURL(blob), download: "corrections.csv" });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  const odd = written.filter(({ uri, label, proposed: name, who }) => [uri, label, name, who].some(looksLikeFormula));
  say(`corrections.csv has ${written.length} answers.${odd.length ? ` ${odd.length} rows have names that begin like `
    + "a formula, which are kept as they are: a spreadsheet is to import the file as text." : ""}`);
}

async function load(file) {
  try {
    const inQueue = new Set(items.map((item) => item.uri));
    const { taken, older, elsewhere } = decisions.merge(fromCsv(await file.text()), (uri) => inQueue.has(uri));
    Object.values(decisions.by).forEach(({ label }) => label && classes.add(label));
    say(`Loaded ${taken} answers; ${older} were older than yours, ${elsewhere} are about images that are not in this queue.`);
    chooseQueue("");
  } catch (error) {
    say(`${file.name} is not read: ${error.message}.`);
  }
}

const KEYS = {
  0: () => decide("none"), 9: () => decide("bad_picture"), ArrowRight: skip,
  ArrowLeft: () => go(at - 1), Backspace: undo, "/": () => $("search").focus(),
};
[1, 2, 3, 4, 5].forEach((number) => {
  KEYS[number] = () => { $("choices").children[number - 1]?.click(); };
});

function onKey(event) {
  const isTyping = event.target.matches("input, textarea, select");
  if (isTyping || event.altKey || event.isComposing || event.repeat) return;
  if (event.ctrlKey || event.metaKey) {
    if (event.key !== "z" || event.shiftKey) return;
    undo();
  } else if ($("shortcuts").checked && Object.hasOwn(KEYS, event.key)) KEYS[event.key]();
  else {
    // The letter itself then goes into the box.
    if ($("shortcuts").checked && at < shown.length && /^\p{L}$/u.test(event.key)) $("search").focus();
    return;
  }
  event.preventDefault();
}

function onQueueKey(event) {
  const visible = [...$("queue").querySelectorAll("li:not([hidden]) > button")];
  const from = visible.indexOf(document.activeElement);
  const to = { ArrowRight: from + 1, ArrowLeft: from - 1, Home: 0, End: visible.length - 1 }[event.key];
  if (to === undefined || from < 0) return;
  visible[Math.min(Math.max(to, 0), visible.length - 1)].focus();
  event.stopPropagation();
  event.preventDefault();
}

function build() {
  const { id, model, images, unshown } = run;
  const left = unshown ? `; ${unshown.toLocaleString()} more are in review.parquet` : "";
  $("about").textContent = `Run ${id} of ${model}: ${items.length.toLocaleString()} of ${images.toLocaleString()} images${left}`;
  const counts = [["", "All", items.length],
    ...QUEUES.map(([queue, title]) => [queue, title, items.filter((item) => item.queue === queue).length])];
  $("filter").append(...counts.map(([queue, title, count]) => element("label", {},
    element("input", { type: "radio", name: "queue", value: queue, class: "hidden" }), `${title} ${count}`)));
  $("queue").append(...items.map((item) => {
    const face = item.picture ? element("img", { src: picture(item), alt: "", loading: "lazy" }) : "?";
    return element("li", {}, element("button", { type: "button" }, face, element("span", { class: "mark", "aria-hidden": "true" })));
  }));
}

function listen() {
  document.addEventListener("keydown", onKey);
  $("queue").addEventListener("keydown", onQueueKey);
  $("queue").addEventListener("click", (event) => {
    const entry = event.target.closest("li");
    if (entry) go(shown.indexOf(items[[...$("queue").children].indexOf(entry)]));
  });
  $("filter").addEventListener("change", (event) => chooseQueue(event.target.value));
  const clicks = { none: () => decide("none"), bad: () => decide("bad_picture"), skip, undo, download };
  Object.entries(clicks).forEach(([id, act]) => $(id).addEventListener("click", act));
  $("again").addEventListener("click", () => {
    decisions.forget(shown.map(({ uri }) => uri).filter((uri) => decisions.get(uri)?.verdict === "skip"));
    at = shown.length;
    advance();
  });
  $("clear").addEventListener("click", () => {
    if (!confirm("Forget all answers of this run in this browser?")) return;
    decisions.forget(items.map(({ uri }) => uri));
    chooseQueue("");
  });
  $("load").addEventListener("change", async ({ target }) => {
    if (target.files.length) await load(target.files[0]);
    target.value = "";
  });
  $("who").value = decisions.who;
  $("who").addEventListener("input", () => {
    decisions.who = $("who").value.trim();
    decisions.save();
  });
  addEventListener("storage", ({ key }) => {
    if (key !== decisions.key) return;
    decisions.load();
    show();
  });
  addEventListener("beforeunload", (event) => {
    if (!decisions.isKept && records().length) event.preventDefault();
  });
}

build();
listen();
chooseQueue("");
