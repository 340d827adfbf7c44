// RFC 4180. Names are kept as they are, also those that a spreadsheet would take for a formula:
// the file is read by programs, for which an apostrophe in front would be another name.

const COLUMNS = ["uri", "label", "verdict", "queue", "proposed", "score", "run_id", "who", "when"];

function cell(value) {
  const text = String(value ?? "");
  return /[",\r\n]|^\s|\s$/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function toCsv(records) {
  const lines = records.map((record) => COLUMNS.map((name) => cell(record[name])).join(","));
  return [COLUMNS.join(","), ...lines, ""].join("\r\n");
}

function* rowsOf(text) {
  const field = /("(?:[^"]|"")*"|[^",\r\n]*)(,|\r\n|\n|\r|$)/y;
  let row = [];
  while (field.lastIndex < text.length || row.length) {
    const match = field.exec(text);
    if (!match) throw new Error("a quotation mark is out of place");
    const [, value, end] = match;
    row.push(value.startsWith('"') ? value.slice(1, -1).replaceAll('""', '"') : value);
    if (end === ",") continue;
    yield row;
    row = [];
  }
}

function fromCsv(text) {
  const [header, ...rows] = rowsOf(text.replace(/^\uFEFF/, ""));
  if (!header?.includes("uri") || !header.includes("label")) {
    throw new Error("it lacks the columns uri and label");
  }
  const filled = rows.filter((row) => row.length > 1 || row[0]);
  return filled.map((row) => Object.fromEntries(header.map((name, at) => [name, row[at] ?? ""])));
}

const looksLikeFormula = (text) => /^[=+\-@\t]/.test(text);

