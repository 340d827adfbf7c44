// What has been decided of each image, by uri, kept in the browser until it is cleared.

class Decisions {
  constructor(run) {
    this.key = `cvt-review/${run}`;
    this.isKept = true;
    this.load();
  }

  load() {
    const empty = { who: "", by: {}, past: [] };
    try {
      Object.assign(this, empty, JSON.parse(localStorage.getItem(this.key) ?? "{}"));
    } catch {
      Object.assign(this, empty);
      this.isKept = false;
    }
  }

  save() {
    try {
      const { who, by, past } = this;
      localStorage.setItem(this.key, JSON.stringify({ who, by, past: past.slice(-200) }));
      this.isKept = true;
    } catch {
      this.isKept = false;
    }
  }

  get(uri) {
    return Object.hasOwn(this.by, uri) ? this.by[uri] : undefined;
  }

  set(uri, verdict, label = "") {
    this.past.push([uri, this.get(uri) ?? null]);
    this.put(uri, { verdict, label, who: this.who, when: new Date().toISOString() });
    this.save();
  }

  put(uri, decision) {
    // A property called __proto__ would be none of the object's own.
    Object.defineProperty(this.by, uri, {
      value: decision, enumerable: true, configurable: true, writable: true,
    });
  }

  // The uri whose last decision is taken back.
  undo() {
    const [uri, before] = this.past.pop() ?? [];
    if (uri === undefined) return undefined;
    if (before) this.put(uri, before);
    else delete this.by[uri];
    this.save();
    return uri;
  }

  forget(uris) {
    uris.forEach((uri) => delete this.by[uri]);
    this.past = this.past.filter(([uri]) => !uris.includes(uri));
    this.save();
  }

  // How many records were taken, and how many left aside.
  merge(records, isInQueue) {
    const counts = { taken: 0, older: 0, elsewhere: 0 };
    for (const { uri, label, verdict, who, when } of records) {
      const one = { verdict: verdict || (label ? "label" : ""), label, who: who ?? "", when: utc(when) };
      if (!["label", "none", "bad_picture"].includes(one.verdict)) continue;
      if (!isInQueue(uri)) counts.elsewhere++;
      else if ((this.get(uri)?.when ?? "") > one.when) counts.older++;
      else {
        this.past.push([uri, this.get(uri) ?? null]);
        this.put(uri, one);
        counts.taken++;
      }
    }
    this.save();
    return counts;
  }
}

function utc(when) {
  const time = new Date(/[zZ]|[+-]\d\d:?\d\d$/.test(when ?? "") ? when : `${when}Z`);
  return Number.isNaN(time.valueOf()) ? "" : time.toISOString();
}

// The share of right ones among all images, of which `looked` are a random sample: Wilson's
// interval, "Probable inference, the law of succession, and statistical inference" (1927).
function wilson(right, looked, z = 1.959964) {
  const share = right / looked;
  const middle = (share + (z * z) / (2 * looked)) / (1 + (z * z) / looked);
  const half = (z / (1 + (z * z) / looked))
    * Math.sqrt((share * (1 - share)) / looked + (z * z) / (4 * looked * looked));
  return { share, low: Math.max(0, middle - half), high: Math.min(1, middle + half) };
}

