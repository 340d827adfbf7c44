// A combobox as the ARIA Authoring Practices describe it: the list is moved through with the arrow
// keys while the focus stays in the box.

const SHOWN = 8;

class Search {
  constructor(classes, take, leave) {
    Object.assign(this, { classes, take, leave, at: 0 });
    this.box.addEventListener("input", () => this.show());
    this.box.addEventListener("keydown", (event) => this.onKey(event));
    this.box.addEventListener("blur", () => this.close());
    this.list.addEventListener("mousedown", (event) => event.preventDefault());
    this.list.addEventListener("click", (event) => this.choose(event.target.closest("li")));
  }

  get box() { return $("search"); }
  get list() { return $("found"); }

  clear() {
    this.box.value = "";
    this.close();
  }

  close() {
    this.list.hidden = true;
    this.list.replaceChildren();
    this.box.setAttribute("aria-expanded", "false");
    this.box.removeAttribute("aria-activedescendant");
    $("matches").textContent = "";
  }

  show() {
    const query = this.box.value.trim().replace(/\s+/g, " ");
    if (!query) return this.close();
    const { names, total } = this.classes.find(query, SHOWN);
    const options = names.map((name) => this.option(name, name));
    if (!names.some((name) => name === query)) options.push(this.option(`New class: ${query}`, query));
    options.forEach((option, at) => { option.id = `option-${at}`; });
    this.list.replaceChildren(...options);
    this.list.hidden = false;
    this.box.setAttribute("aria-expanded", "true");
    $("matches").textContent = total > SHOWN ? `${SHOWN} of ${total.toLocaleString()} classes` : "";
    this.move(0);
    return undefined;
  }

  option(text, name) {
    const item = element("li", { role: "option", "aria-selected": "false" }, text);
    item.name = name;
    return item;
  }

  move(to) {
    const options = [...this.list.children];
    if (!options.length) return;
    this.at = (to + options.length) % options.length;
    options.forEach((option, at) => option.setAttribute("aria-selected", String(at === this.at)));
    this.box.setAttribute("aria-activedescendant", options[this.at].id);
    options[this.at].scrollIntoView({ block: "nearest" });
  }

  choose(option) {
    if (!option) return;
    this.clear();
    this.classes.add(option.name);
    this.take(option.name);
  }

  onKey(event) {
    const moves = { ArrowDown: this.at + 1, ArrowUp: this.at - 1 };
    if (event.isComposing) return;
    if (event.key in moves && !this.list.hidden) this.move(moves[event.key]);
    else if (event.key === "Enter") this.choose(this.list.children[this.at]);
    else if (event.key === "Escape") {
      this.clear();
      this.leave();
    } else return;
    event.preventDefault();
  }
}

