// The page of alerts: what fires, who has it in hand, what is silenced, and what came of it. Text goes in as text only.
import { ask, keep, key } from "/assets/asking.js";
import { ago, count, element, show, until } from "/assets/drawing.js";

const EVERY_MS = 2000;
const SEVERITIES = ["emergency", "critical", "warning", "info"];
const ME = "sluice-me";
const NEEDS = "sluice keys create NAME --scope alerts:write --scope read";
const byId = (id) => document.getElementById(id);
let which = "open";
let team = "";
let review = null;
let round = 0;

const chosen = () => decodeURIComponent(location.hash.slice(1));
const path = (dedupKey) => `/v1/alerts/${encodeURIComponent(dedupKey)}`;
const clock = (text) => `${text.slice(0, 10)} ${text.slice(11, 16)}`;
// "Now" for people: this machine's clock, which the API does not say for alerts.
const now = () => new Date().toISOString();

function tag(text, severity) {
  const node = element("span", "tag", text);
  if (severity) node.dataset.severity = severity;
  return node;
}

function button(text, what, value) {
  const node = element("button", "quiet", text);
  node.type = "button";
  node.dataset.do = what;
  node.dataset.value = value;
  return node;
}

function stage(alert) {
  if (alert.stage === "acknowledged") return `in hand: ${alert.acknowledged.by}`;
  if (alert.stage === "silenced") return `silenced by ${alert.silenced.by}, ${until(now(), alert.silenced.until, "left")}`;
  return alert.stage;
}

function figures(alerts, reviews) {
  const of = (...stages) => alerts.filter((alert) => stages.includes(alert.stage) && !alert.historic);
  const firing = of("firing");
  const worst = SEVERITIES.find((severity) => firing.some((alert) => alert.severity === severity));
  byId("firing").textContent = count(firing.length);
  if (worst && worst !== "info") byId("firing").dataset.severity = worst;
  else delete byId("firing").dataset.severity;
  byId("firing-note").textContent = SEVERITIES.map((s) => [firing.filter((a) => a.severity === s).length, s]).filter(([n]) => n).map(([n, s]) => `${n} ${s}`).join(" · ") || "nothing to do";
  const hand = of("acknowledged");
  byId("hand").textContent = count(hand.length);
  byId("hand-note").textContent = [...new Set(hand.map((alert) => alert.acknowledged.by))].slice(0, 3).join(", ");
  const held = of("silenced", "inhibited");
  byId("held").textContent = count(held.length);
  byId("held-note").textContent = held.length ? `${of("silenced").length} silenced · ${of("inhibited").length} inhibited` : "nobody is kept in the dark";
  byId("overdue").textContent = count(reviews.overdue);
  if (reviews.overdue) byId("overdue").dataset.severity = "critical";
  else delete byId("overdue").dataset.severity;
  byId("overdue-note").textContent = `${reviews.reviews.length} open`;
}

function alertList(alerts) {
  if (!alerts.length) return show("alerts", [element("p", "empty", which === "open" ? "Nothing fires." : "Nothing was resolved yet.")]);
  const order = (alert) => (alert.historic ? 100 : 0) + (alert.stage === "firing" ? 0 : 10) + SEVERITIES.indexOf(alert.severity);
  const sorted = which === "open" ? [...alerts].sort((a, b) => order(a) - order(b)) : alerts;
  const items = sorted.map((alert) => {
    const facts = [alert.rule.replaceAll("_", " "), alert.team_id, alert.resolved_at ? `ended ${ago(now(), alert.resolved_at)}` : ago(now(), alert.occurred_at), alert.historic ? "history" : ""];
    const link = element("a", "", alert.summary);
    link.href = `#${encodeURIComponent(alert.dedup_key)}`;
    const node = element("li", alert.dedup_key === chosen() ? "item chosen" : "item",
      element("div", "line", element("span", "", tag(alert.severity, alert.severity), " ", tag(stage(alert), "")), element("span", "soft", facts.filter(Boolean).join(" · "))),
      element("p", "summary", link));
    return node;
  });
  show("alerts", [element("ul", "", ...items)]);
}

function oneAlert(found) {
  if (!found) return show("one", [element("p", "empty", "Choose an alert to see its story.")]);
  const { alert } = found;
  const where = `${alert.scope_type} ${alert.scope_id}${alert.team_id && alert.team_id !== alert.scope_id ? `, team ${alert.team_id}` : ""}`;
  const facts = [["Where", where], ["Since", `${clock(alert.occurred_at)} · episode ${alert.episode}`], ["Ended", alert.resolved_at && clock(alert.resolved_at)], ["Observed", alert.observed && `${alert.observed} ${alert.unit ?? "USD"}`], ["Done", alert.action],
    ["In hand", alert.acknowledged && `${alert.acknowledged.by}, ${ago(now(), alert.acknowledged.at)} (${alert.acknowledged.via})`],
    ["Silenced", alert.silenced && `until ${clock(alert.silenced.until)} by ${alert.silenced.by}: ${alert.silenced.reason}`],
    ...alert.held_back.map((held) => [held.by === "inhibition" ? "Inhibited" : "Quiet hours", `${held.by === "inhibition" ? "by " : ""}${held.what}${held.receivers.length ? ` (${held.receivers.join(", ")})` : ""}`]),
    ["Key", alert.dedup_key]];
  const buttons = alert.status === "resolved" ? [] : [
    alert.acknowledged ? button("Give it back", "withdraw", alert.dedup_key) : button("Take it in hand", "ack", alert.dedup_key),
    button("Silence it …", "silence", alert.dedup_key)];
  show("one", [
    element("div", "line", tag(alert.severity, alert.severity), tag(stage(alert), "")),
    element("p", "summary big", alert.summary),
    element("p", "measures", ...buttons),
    element("dl", "facts", ...facts.filter(([, text]) => text).flatMap(([name, text]) => [element("dt", "", name), element("dd", "", text)])),
    ...story(found), ...messages(found.deliveries)]);
}

// Episodes with what was said in them, and people's words, the newest first.
function story({ episodes, words }) {
  const items = episodes.flatMap((episode) => [
    ...episode.statements.map((said) => ({ at: said.at, episode: episode.episode, text: `${said.status}, ${said.severity}`, severity: said.status === "resolved" ? "" : said.severity })),
    ...words.filter((word) => word.episode === episode.episode).map((word) => ({ at: word.at, episode: word.episode, text: `${word.kind} by ${word.by} (${word.via})${word.note ? `: ${word.note}` : ""}`, severity: "" }))]);
  items.sort((a, b) => b.episode - a.episode || (a.at < b.at ? 1 : -1));
  const rows = items.map((item) => element("li", "", element("span", "soft", `${clock(item.at)} · ${item.episode}`), element("span", "", item.severity ? tag(item.text, item.severity) : item.text)));
  return [element("h3", "", "Episodes"), element("ol", "story", ...rows)];
}

function messages(deliveries) {
  if (!deliveries.length) return [element("h3", "", "Messages"), element("p", "empty", "None: it was only shown.")];
  const rows = deliveries.map((sent) => {
    const came = sent.state === "sent" ? `sent ${clock(sent.sent_at).slice(11)}` : sent.state.replace("_", " ");
    const tries = sent.attempts > 1 ? `, ${sent.attempts} tries` : "";
    const state = tag(`${came}${tries}`, sent.state === "given_up" ? "emergency" : sent.state === "owed" && sent.last_error ? "warning" : "");
    const detail = sent.state === "sent" ? sent.receipt : sent.last_error;
    return element("tr", "", ...[clock(sent.owed_at), sent.receiver, `${sent.action}, ${sent.reason}`, state].map((cell) => element("td", "", cell)), element("td", "detail", detail ?? ""));
  });
  return [element("h3", "", "Messages"), element("div", "scroll", element("table", "sent", element("tbody", "", ...rows)))];
}

function silenceList({ silences }) {
  if (!silences.length) return show("silences", [element("p", "empty", "Nothing is silenced.")]);
  const items = silences.map((one) => element("li", one.state === "ended" ? "item others" : "item",
    element("div", "line", element("code", "", one.matchers.join(" ")), element("span", "", one.state === "live" ? tag(`${until(now(), one.ends, "left")}`, "warning") : tag(one.state, ""), " ", one.state === "ended" ? "" : button("End", "end", one.id))),
    element("p", "soft", `${one.author}: ${one.reason} · until ${clock(one.ends)}${one.state === "live" ? ` · holds back ${count(one.holds_back)}` : ""}${one.ended_by ? ` · ended by ${one.ended_by}` : ""}`)));
  show("silences", [element("ul", "", ...items)]);
}

function reviewList({ reviews }) {
  if (!reviews.length) show("reviews", [element("p", "empty", "No review is open. A critical alert opens one.")]);
  else show("reviews", [element("ul", "", ...reviews.map((one) => element("li", "item",
    element("div", "line", element("span", "", tag(one.severity, one.severity), " ", tag(one.overdue ? `overdue since ${clock(one.due_at)}` : `due ${clock(one.due_at)}`, one.overdue ? "emergency" : "")), button("Close …", "review", one.id)),
    element("p", "summary", one.summary), element("p", "soft", `${one.owner || "nobody yet"}${one.team_id ? ` · team ${one.team_id}` : ""} · id ${one.id}`))))]);
  const form = byId("review-form");
  const found = reviews.find((one) => one.id === review);
  form.hidden = !found;
  if (found) byId("review-what").textContent = found.summary;
}

async function digest() {
  const spend = await ask("/v1/spend?period=30d&group_by=team&limit=30");
  const names = ["", ...spend.rows.map((row) => row.team).filter((name) => name && name !== "__unattributed__")];
  show("digest-teams", names.map((name) => { const node = button(name || "everything", "team", name); node.setAttribute("aria-pressed", String(name === team)); return node; }));
  const found = await ask(`/v1/digest?team=${encodeURIComponent(team)}`);
  show("digest", [element("p", "summary big", found.heading), ...found.paragraphs.map((text) => element("p", "digest", text))]);
}

// Of an alert that is not there any more the page says so, and goes on.
async function askOne() {
  if (!chosen()) return null;
  try {
    return await ask(path(chosen()));
  } catch (error) {
    if (error.status !== 404) throw error;
    banner(error.message);
    return null;
  }
}

async function refresh() {
  const mine = ++round;
  const shown = which;
  const [open, resolved, one, silences, reviews] = await Promise.all([ask("/v1/alerts?status=open&limit=300"),
    shown === "resolved" ? ask("/v1/alerts?status=resolved&limit=100") : null, askOne(), ask("/v1/silences"), ask("/v1/reviews")]);
  if (mine !== round) return;
  figures(open.alerts, reviews);
  alertList((resolved ?? open).alerts);
  oneAlert(one);
  silenceList(silences);
  reviewList(reviews);
  byId("live").dataset.state = "live";
  byId("live-text").textContent = `live · ${now().slice(11, 19)} UTC`;
}

function banner(text) {
  byId("banner").textContent = text;
  byId("banner").hidden = !text;
}

function failed(error) {
  const keyed = error.status === 401 || error.status === 403;
  if (keyed) {
    byId("key-form").hidden = false;
    byId("key-text").textContent = key() ? `${error.message}. Another key:` : `This needs a key (${NEEDS}).`;
    return byId("key").focus();
  }
  if (!error.status) {
    byId("live").dataset.state = "lost";
    byId("live-text").textContent = "no answer";
  }
  banner(error.status ? error.message : `The API does not answer: ${error.message}. This page tries again by itself.`);
}

// What people do. Who they are is the key's word, and their own beside it.
const me = () => byId("me").value.trim();
const send = (method, address, body) => ask(address, { method, ...(body ? { body: JSON.stringify(body) } : {}) });
const ACTIONS = {
  ack: (value) => send("PUT", `${path(value)}/acknowledgement`, { by: me(), via: "page" }),
  withdraw: (value) => send("DELETE", `${path(value)}/acknowledgement?by=${encodeURIComponent(me())}`),
  end: (value) => send("DELETE", `/v1/silences/${encodeURIComponent(value)}?by=${encodeURIComponent(me())}`),
  silence: async (value) => { byId("silence-what").value = `alert="${value}"`; byId("silence-why").focus(); },
  review: async (value) => { review = value; byId("review-form").hidden = false; byId("review-outcome").focus(); },
  team: async (value) => { team = value; await digest(); },
};

// Several conditions in one line; a value may have spaces in it where it stands in quotes. What is none goes to the
// API whole, which says what is wrong with it.
function matchers(text) {
  const found = text.match(/[A-Za-z_][\w.:-]*\s*(?:=~|!~|!=|=)\s*(?:"[^"]*"|'[^']*'|\S+)/g) ?? [];
  return found.join("").replace(/\s/g, "") === text.replace(/\s/g, "") ? found : [text];
}

async function act(work) {
  try {
    banner("");
    await work();
    await refresh();
  } catch (error) {
    failed(error);
  }
}

document.addEventListener("click", (event) => {
  const node = event.target.closest("button[data-do]");
  if (node) act(() => ACTIONS[node.dataset.do](node.dataset.value));
});
byId("silence-form").addEventListener("submit", (event) => {
  event.preventDefault();
  act(async () => {
    await send("POST", "/v1/silences", { matchers: matchers(byId("silence-what").value), ends: byId("silence-for").value, reason: byId("silence-why").value, by: me() });
    event.target.reset();
  });
});
byId("review-form").addEventListener("submit", (event) => {
  event.preventDefault();
  act(async () => {
    await send("PUT", `/v1/reviews/${encodeURIComponent(review)}/outcome`, { outcome: byId("review-outcome").value, by: me() });
    review = null;
    event.target.reset();
  });
});
byId("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  keep(byId("key").value);
  byId("key").value = "";
  byId("key-form").hidden = true;
  act(digest);
});
byId("me").value = sessionStorage.getItem(ME) ?? "";
byId("me").addEventListener("change", () => sessionStorage.setItem(ME, me()));
for (const input of document.querySelectorAll("#which input")) {
  input.addEventListener("change", () => { which = input.value; act(async () => {}); });
}
window.addEventListener("hashchange", () => act(async () => {}));

async function run() {
  let took = 0;
  if (!document.hidden) {
    const began = performance.now();
    try {
      await refresh();
    } catch (error) {
      failed(error);
    }
    took = performance.now() - began;
  }
  // A slow ledger is asked less often, so that looking at it never makes it slower.
  setTimeout(run, Math.max(EVERY_MS - took, took, 100));
}
run();
digest().catch(failed);
