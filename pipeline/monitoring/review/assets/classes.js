// The names of all classes, and those that people add; some ten thousand are searched in a
// millisecond or two.

const fold = (text) => text.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase();
const escaped = (text) => text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");

class Classes {
  constructor(names) {
    this.names = [];
    this.folded = [];
    this.known = new Set();
    names.forEach((name) => this.add(name));
  }

  add(name) {
    if (this.known.has(name) || !name.trim()) return;
    this.known.add(name);
    this.names.push(name);
    this.folded.push(fold(name));
  }

  // The best names with all words of the query, and how many names have them.
  find(query, most) {
    const sought = fold(query.trim());
    const words = sought.split(/\s+/).filter(Boolean);
    const begins = words.map((word) => new RegExp(`(^|[^\\p{L}\\p{N}])${escaped(word)}`, "u"));
    const ranked = [[], [], [], []];
    this.folded.forEach((name, at) => {
      if (!words.every((word) => name.includes(word))) return;
      const rank = name === sought ? 0 : name.startsWith(sought) ? 1
        : begins.every((begin) => begin.test(name)) ? 2 : 3;
      ranked[rank].push(this.names[at]);
    });
    const found = ranked.flat();
    return { names: found.slice(0, most), total: found.length };
  }
}

