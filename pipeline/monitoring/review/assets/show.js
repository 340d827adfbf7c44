// What the page shows: the image, the progress, the queue.

const $ = (id) => document.getElementById(id);

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  Object.entries(attributes).forEach(([name, value]) => made.setAttribute(name, value));
  made.append(...children);
  return made;
}

const { run, items, classes: names, titles } = JSON.parse($("data").textContent);
const QUEUES = Object.entries(titles).filter(([queue]) => items.some((item) => item.queue === queue));
const decisions = new Decisions(run.id);
const classes = new Classes([
  ...names,
  ...items.flatMap((item) => item.choices.map(([label]) => label)),
  ...Object.values(decisions.by).flatMap(({ label }) => label || []),
]);
let shown = items;
let at = 0;

const isRatio = run.scores !== "logits";
const percent = (share) => `${(100 * share).toFixed(1)} %`;
const asScore = (score) => (isRatio ? percent(score) : score.toFixed(2));
const proposed = (item) => item.choices[0]?.[0] ?? "";
const tail = (uri) => uri.split(/[/#]/).filter(Boolean).at(-1) ?? uri;
const isOpen = (item) => !decisions.get(item.uri);
const picture = (item) => `data:image/jpeg;base64,${item.picture}`;

function why({ queue, value, also }) {
  const reasons = {
    random: "drawn by lot; it stands for all images",
    uncertain: `best two scores ${asScore(value)} apart`,
    unlike: `${value.toFixed(1)} times as far from earlier images as is usual`,
    threshold: `a score is ${isRatio ? percent(value) : value.toFixed(3)} from the threshold of its class`,
  };
  const more = also.map((other) => titles[other].toLowerCase()).join(", ");
  return `${titles[queue]}: ${reasons[queue]}${more ? `; also: ${more}` : ""}.`;
}

function said({ verdict, label }) {
  return { none: "not one of these", bad_picture: "bad picture", skip: "skipped" }[verdict] ?? label;
}

function makeChoice([label, score], number) {
  const bar = element("span", { class: "bar", "aria-hidden": "true" });
  if (isRatio) bar.style.width = `${100 * Math.min(1, Math.max(0, score))}%`;
  const button = element("button", { type: "button" }, bar,
    element("kbd", { "aria-hidden": "true" }, String(number + 1)),
    element("span", { class: "name" }, label), element("span", { class: "score" }, asScore(score)));
  button.addEventListener("click", () => decide("label", label));
  return button;
}

function showItem(item) {
  $("heading").textContent = `Image ${at + 1} of ${shown.length}${proposed(item) ? `: ${proposed(item)}?` : ""}`;
  $("why").textContent = why(item);
  $("uri").textContent = item.uri;
  $("picture").hidden = !item.picture;
  $("missing").hidden = Boolean(item.picture);
  $("picture").src = item.picture ? picture(item) : "data:,";
  $("picture").alt = `${tail(item.uri)}, proposed: ${proposed(item) || "nothing"}`;
  $("choices").replaceChildren(...item.choices.map(makeChoice));
  const { verdict, label } = decisions.get(item.uri) ?? {};
  [...$("choices").children].forEach((button, number) => button.setAttribute(
    "aria-pressed", String(verdict === "label" && item.choices[number][0] === label)));
  $("none").setAttribute("aria-pressed", String(verdict === "none"));
  $("bad").setAttribute("aria-pressed", String(verdict === "bad_picture"));
}

function showDone() {
  const skipped = shown.filter((item) => decisions.get(item.uri)?.verdict === "skip").length;
  $("done-text").textContent = `${shown.length - skipped} of ${shown.length} have an answer. `
    + "Download corrections.csv below; a training reads it as it is.";
  $("again").hidden = !skipped;
  $("again").textContent = `Look at the ${skipped} skipped ones again`;
}

function showProgress() {
  const answers = records().length;
  const looked = items.filter((item) => !isOpen(item)).length;
  $("looked").textContent = `${looked} of ${items.length} looked at`;
  $("bar").max = items.length;
  $("bar").value = looked;
  $("undo").disabled = !decisions.past.length;
  $("download").disabled = !answers;
  $("download").textContent = answers ? `Download corrections.csv (${answers})` : "Download corrections.csv";
  $("clear").disabled = !looked;
  $("kept").textContent = decisions.isKept
    ? "Kept in this browser, on this machine, until you start over."
    : "";
  $("notice").hidden = decisions.isKept;
  $("notice").textContent = "This browser keeps nothing for this page: download corrections.csv before you close it.";
}

function showAccuracy() {
  const sample = items.filter((item) => item.queue === "random");
  const answers = sample.map((item) => [item, decisions.get(item.uri)?.verdict, decisions.get(item.uri)?.label]);
  const usable = answers.filter(([, verdict]) => verdict === "label" || verdict === "none");
  const right = usable.filter(([item, verdict, label]) => verdict === "label" && label === proposed(item));
  $("accuracy").hidden = !sample.length;
  const { share, low, high } = wilson(right.length, usable.length);
  $("share").textContent = usable.length ? percent(share) : "not known yet";
  $("interval").textContent = usable.length
    ? `95 % interval ${percent(low)} to ${percent(high)}, from ${usable.length} of ${sample.length} images`
    : `answer some of the ${sample.length} images in the sample`;
}

function showQueue() {
  items.forEach((item, number) => {
    const button = $("queue").children[number].firstChild;
    const decision = decisions.get(item.uri);
    const state = !decision ? "open" : decision.verdict !== "label" ? decision.verdict
      : decision.label === proposed(item) ? "same" : "other";
    button.dataset.state = state;
    button.lastChild.textContent = { same: "✓", other: "✎", none: "∅", bad_picture: "✕", skip: "→" }[state] ?? "";
    const isCurrent = shown[at] === item;
    button.setAttribute("aria-current", String(isCurrent));
    button.tabIndex = isCurrent || (at >= shown.length && !number) ? 0 : -1;
    button.setAttribute("aria-label",
      `Image ${number + 1}, ${proposed(item) || tail(item.uri)}${decision ? `, ${said(decision)}` : ", open"}`);
    button.parentNode.hidden = !shown.includes(item);
  });
}

function show({ focus = false } = {}) {
  const isDone = at >= shown.length;
  $("card").hidden = isDone;
  $("done").hidden = !isDone;
  search.clear();
  if (isDone) showDone();
  else showItem(shown[at]);
  showProgress();
  showAccuracy();
  showQueue();
  if (focus) $(isDone ? "done-heading" : "heading").focus();
}

