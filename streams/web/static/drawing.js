// Small pieces that the dashboard is drawn with. Amounts are exact decimal strings and are added as integers.
const NANOS = 9;
const known = new Map();

/** A node with a class and children; strings become text, never markup. */
export function element(name, className, ...children) {
  const node = document.createElement(name);
  if (className) node.className = className;
  node.append(...children);
  return node;
}

/** Put nodes into an element, only where they differ from what is there: no flicker, no noise for screen readers. */
export function show(id, nodes) {
  const holder = element("div", "", ...nodes);
  const drawn = signature(holder);
  if (known.get(id) === drawn) return;
  known.set(id, drawn);
  document.getElementById(id).replaceChildren(...holder.childNodes);
}

function signature(node) {
  // Serialised for comparison only; it is never parsed again.
  return new XMLSerializer().serializeToString(node);
}

function nanos(text) {
  const negative = text.startsWith("-");
  const [whole, rest = ""] = text.replace("-", "").split(".");
  const value = BigInt(whole + rest.padEnd(NANOS, "0").slice(0, NANOS));
  return negative ? -value : value;
}

function decimal(value) {
  const digits = (value < 0n ? -value : value).toString().padStart(NANOS + 1, "0");
  const rest = digits.slice(-NANOS).replace(/0+$/, "");
  return (value < 0n ? "-" : "") + digits.slice(0, -NANOS) + (rest ? `.${rest}` : "");
}

/** The exact difference of two amounts. */

export const less = (a, b) => decimal(nanos(a) - nanos(b));

/** How much of ``whole`` an amount is, as a number for drawing. */
export function fraction(part, whole) {
  const all = nanos(whole);
  return all > 0n ? Number((nanos(part) * 10_000n) / all) / 10_000 : 0;
}

/** An amount as people read it, its exact value in the tooltip. */
export function amount(text) {
  const size = nanos(text) < 0n ? -nanos(text) : nanos(text);
  const places = size === 0n || size >= 10_000_000n ? 2 : 6;
  const unit = 10n ** BigInt(NANOS - places);
  const rounded = decimal(((size + unit / 2n) / unit) * unit);
  const [whole, rest = ""] = rounded.split(".");
  const node = element("span", "money", `${nanos(text) < 0n ? "−" : ""}$${BigInt(whole).toLocaleString("en-US")}.${rest.padEnd(2, "0")}`);
  node.title = `$${text}`;
  return node;
}

/** A count with thousands apart; large ones short. */
export function count(number) {
  return number < 1e6 ? number.toLocaleString("en-US") : new Intl.NumberFormat("en-US", { notation: "compact", maximumFractionDigits: 1 }).format(number);
}

function span(seconds) {
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 172_800) return `${Math.floor(seconds / 3600)} h`;
  return `${count(Math.floor(seconds / 86_400))} days`;
}

/** How long before ``now`` something was. */
export const ago = (now, then) => `${span(Math.max(Date.parse(now) - Date.parse(then), 0) / 1000)} ago`;

/** How long after ``now`` something is. */
export const until = (now, then, word) => `${span(Math.max(Date.parse(then) - Date.parse(now), 0) / 1000)} ${word}`;
