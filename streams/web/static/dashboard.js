// The dashboard: asks the JSON API every second and shows what it says. Text goes into the page as text only.
import { ask, keep, key } from "/assets/asking.js";
import { amount, ago, count, element, fraction, less, show, until } from "/assets/drawing.js";

const EVERY_MS = 1000;
const BARS_MAX = 8;
const MARKS = [50, 75, 90, 100];
const LADDER_TOP = 115;
const SEVERITIES = ["emergency", "critical", "warning", "info"];
const PERIOD_NAMES = { today: "today", "7d": "in 7 days", "30d": "in 30 days", all: "of all time" };

const byId = (id) => document.getElementById(id);
let period = new URLSearchParams(location.search).get("period") ?? "today";
if (!(period in PERIOD_NAMES)) period = "today";
let lastAnswer = null;
let round = 0;
const opened = new Date().toISOString();

// A key of one team may not see the sources, which concern all.
async function askSources() {
  try {
    return await ask("/v1/sources");
  } catch (error) {
    if (error.status !== 403) throw error;
    return { sources: [], hidden: true };
  }
}

const requests = (number) => `${count(number)} request${number === 1 ? "" : "s"}`;

function figures(spend, hour, alerts, throttles) {
  byId("spend-label").textContent = `Spend ${PERIOD_NAMES[period]}`;
  show("spend-total", [amount(spend.total.cost)]);
  const total = spend.total;
  const unpriced = total.unpriced_requests ? ` · ${count(total.unpriced_requests)} requests without a price: not in it` : "";
  byId("spend-note").textContent = `${requests(total.requests)} · ${count(total.tokens)} tokens${unpriced}`;
  show("spend-hour", [amount(hour.total.cost)]);
  byId("hour-note").textContent = requests(hour.total.requests);
  const worst = SEVERITIES.find((severity) => alerts.some((alert) => alert.severity === severity));
  const value = byId("alert-count");
  value.textContent = count(alerts.length);
  if (worst && worst !== "info") value.dataset.severity = worst;
  else delete value.dataset.severity;
  byId("alert-note").textContent = SEVERITIES.map((s) => [alerts.filter((a) => a.severity === s).length, s])
    .filter(([n]) => n).map(([n, s]) => `${n} ${s}`).join(" · ") || "nothing to do";
  byId("throttle-count").textContent = count(throttles.length);
  byId("throttle-note").textContent = throttles.length ? throttles.map((t) => t.scope_id).join(", ") : "nobody is held back";
}

function bars(where, rows, total, label) {
  const shown = rows.slice(0, BARS_MAX);
  if (!shown.length) return show(where, [element("p", "empty", "Nothing in this period.")]);
  const most = shown[0].cost;
  const items = shown.map((row) => element("li", "", element("span", "name", ...label(row)), track(fraction(row.cost, most)), element("span", "amount", amount(row.cost))));
  if (rows.length > BARS_MAX) {
    const rest = shown.reduce((left, row) => less(left, row.cost), total);
    items.push(element("li", "others", element("span", "name", `${count(rows.length - BARS_MAX)} more`), track(fraction(rest, most)), element("span", "amount", amount(rest))));
  }
  show(where, [element("ol", "bars", ...items)]);
}

function track(part) {
  const fill = element("span", "fill");
  fill.style.width = `${Math.min(Math.max(part, 0), 1) * 100}%`;
  const node = element("span", "track", fill);
  node.setAttribute("aria-hidden", "true");
  return node;
}

const unowned = (name) => (name === "__unattributed__" ? "without a team" : name || "without a name");
const teamLabel = (row) => [unowned(row.team)];
const featureLabel = (row) => (row.feature ? [row.feature, " ", element("small", "", unowned(row.team))] : ["no feature ", element("small", "", unowned(row.team))]);

function overTime(spend, now, anySource) {
  if (!spend.rows.length) return show("time", [anySource ? element("p", "empty", "Nothing in this period.") : firstEvent()]);
  const hourly = spend.group_by[0] === "hour";
  const found = new Map(spend.rows.map((row) => [row[spend.group_by[0]], row]));
  const labels = slots(spend, hourly, [...found.keys()]);
  const most = spend.rows.reduce((top, row) => (fraction(row.cost, top) > 1 ? row.cost : top), "0.000000001");
  const current = hourly ? `${now.slice(0, 13)}:00:00Z` : now.slice(0, 10);
  const items = labels.map((label) => {
    const column = element("span", "");
    const cost = found.get(label)?.cost ?? "0";
    column.style.height = `${Math.max(fraction(cost, most), 0) * 100}%`;
    const item = element("li", label === current ? "now" : "", column);
    item.title = `${label.replace("T", " ").replace(":00Z", "")}: $${cost}`;
    return item;
  });
  const list = element("ol", "columns", ...items);
  list.setAttribute("aria-label", `${labels.length} ${hourly ? "hours" : "days"}, the highest $${most}`);
  const short = (label) => (hourly ? label.slice(11, 16) : label);
  const axis = element("p", "axis", element("span", "", short(labels[0])), element("span", "", "highest ", amount(most)), element("span", "", short(labels.at(-1))));
  show("time", [list, axis]);
}

// Hours and days without usage are gaps that have to be seen.
function slots(spend, hourly, keys) {
  const step = hourly ? 3_600_000 : 86_400_000;
  const name = (t) => { const text = new Date(t).toISOString(); return hourly ? `${text.slice(0, 19)}Z` : text.slice(0, 10); };
  const sorted = keys.sort();
  const all = period === "all";
  const first = Date.parse(all && sorted.length ? sorted[0] : spend.from);
  const last = all && sorted.length ? Date.parse(sorted.at(-1)) + step : Date.parse(spend.to);
  const names = [];
  for (let t = first; t < last && names.length < 400; t += step) names.push(name(t));
  return names;
}

function budgets(answer) {
  if (!answer.budgets.length) {
    return show("budgets", [element("p", "empty", answer.idle.length ? `${count(answer.idle.length)} defined, and nothing was counted in them yet: ${answer.idle.slice(0, 5).join(", ")}` : "No budget has been charged yet. Write a budgets.yaml and define it: ", answer.idle.length ? "" : element("code", "", "sluice budgets set budgets.yaml --why …"))]);
  }
  const parts = answer.budgets.map((budget) => {
    const used = Number(budget.used_percent);
    const ladder = element("div", "ladder");
    ladder.dataset.crossed = String(MARKS.findLast((mark) => budget.crossed_percent >= mark) ?? 0);
    ladder.setAttribute("role", "img");
    ladder.setAttribute("aria-label", `${used.toFixed(1)} percent used; highest threshold crossed: ${budget.crossed_percent || "none"}`);
    const fill = element("span", "fill");
    fill.style.width = `${Math.min(used / LADDER_TOP, 1) * 100}%`;
    ladder.append(fill, ...MARKS.map((mark) => at(element("span", used >= mark ? "mark crossed" : "mark"), mark)));
    const state = budget.period_over ? "period over" : until(answer.now, budget.period_end, "left");
    return element("li", "budget",
      element("div", "line", element("strong", "", budget.budget_id), element("span", "", amount(budget.spent), element("span", "soft", " of "), amount(budget.amount))),
      ladder,
      element("div", "line soft", element("span", "", `${budget.value ? `${budget.scope_type} ${budget.value}` : `${budget.scope_type} ${budget.scope_id}`} · ${budget.period} · ${state}`),
        element("span", "", `${used.toFixed(1)} % `, commanded(budget))),
      ...inForce(budget), ...measured(budget, answer.now), ...outlook(budget), ...overridden(budget, answer.now));
  });
  const scale = element("div", "scale", ...MARKS.map((mark) => at(element("span", "", mark === 50 ? "50 %" : String(mark)), mark)));
  scale.setAttribute("aria-hidden", "true");
  show("budgets", [scale, element("ul", "", ...parts)]);
}

// What BUDGET measures, where it has something to say.
function measured(budget, now) {
  const { exhausted_at: ends, overshoot, gap, ack_delay_ms: delay } = budget.details;
  const some = (text) => text !== undefined && text !== null && Number(text) > 0;
  const facts = [];
  if (ends && budget.crossed_percent < 100 && !budget.period_over) facts.push(["used up in ", until(now, ends, "at this rate")]);
  if (some(overshoot)) facts.push(["overshoot ", amount(overshoot)]);
  if (some(delay)) facts.push([`obeyed after ${(Number(delay) / 1000).toFixed(2)} s`]);
  if (some(gap)) facts.push([tag("enforcement gap", "critical"), " ", amount(gap)]);
  if (!facts.length) return [];
  return [element("p", "soft", ...facts.flatMap((fact, place) => (place ? [" · ", ...fact] : fact)))];
}

// Who gave more, or lifted the measures, and until when.
function overridden(budget, now) {
  return budget.overrides.map((given) => element("p", "soft",
    tag(given.lifts ? "measures lifted" : "override", "info"), " ",
    ...(Number(given.extra) > 0 ? ["+", amount(given.extra), " in the amount, "] : []),
    `${given.value ? `for ${given.value}, ` : ""}by ${given.by}: ${given.reason} · ${until(now, given.until, "left")}`));
}

// Everything that gateways are told, the strictest first; of a budget that only observes what they would be.
function inForce(budget) {
  if (!budget.measures.length || budget.period_over) return [];
  const tags = budget.measures.map((measure) => tag(measureWords(measure), measure.dry_run ? "" : measure.action === "block" ? "emergency" : "warning"));
  return [element("p", "measures", ...(budget.measures[0].dry_run ? [element("span", "soft", "would hold:")] : []), ...tags)];
}

function measureWords(measure) {
  const most = [measure.rpm && `${count(measure.rpm)} calls/min`, measure.tpm && `${count(measure.tpm)} tokens/min`].filter(Boolean).join(", ");
  const models = Object.entries(measure.models).map(([from, to]) => `${from === "*" ? "all" : from} → ${to}`).join(", ");
  const what = { block: "blocked", rate_limit: `at most ${most}`, cap_tokens: `at most ${count(measure.max_tokens ?? 0)} output tokens`, downgrade: models || "cheaper model" }[measure.action] ?? measure.action;
  const names = [...measure.request_types, ...measure.environments];
  const only = names.filter((name) => !name.startsWith("!"));
  const spared = names.filter((name) => name.startsWith("!")).map((name) => name.slice(1));
  return [what, only.length ? `: ${only.join(", ")}` : "", spared.length ? ` (not ${spared.join(", ")})` : ""].join("");
}

// What the period will cost, as three methods say it, each with how wrong it was before.
function outlook(budget) {
  if (!budget.forecasts.length || budget.period_over) return [];
  const best = budget.forecasts.find((each) => each.is_best) ?? budget.forecasts[0];
  const passes = best.exhausts_at !== null;
  const rows = budget.forecasts.map((each) => {
    const past = each.past_error;
    const record = past.statements ? `was ${past.mean_percent} % off (${count(past.statements)} judged)` : "no history yet";
    const cells = [each.method.replace("_", " "), amount(each.projected), `${each.projected_percent} %`, record].map((cell) => element("td", "", cell));
    return element("tr", each === best ? "best" : "", ...cells);
  });
  return [
    element("p", "ahead", element("span", "soft", "forecast "), passes ? tag(best.exhausts, "warning") : element("span", "soft", best.exhausts)),
    element("table", "methods", element("tbody", "", ...rows)),
  ];
}

function at(node, percent) {
  node.style.left = `${(percent / LADDER_TOP) * 100}%`;
  return node;
}

function commanded(budget) {
  if (budget.mode === "observe") return element("span", "tag", "observes");
  if (budget.commanded === "allow" || budget.period_over || budget.measures.length) return "";
  return tag(budget.commanded === "block" ? "blocked" : budget.commanded.replace("_", " "), "emergency");
}

function tag(text, severity) {
  const node = element("span", "tag", text);
  if (severity) node.dataset.severity = severity;
  return node;
}

function alertList(alerts, now) {
  if (!alerts.length) return show("alerts", [element("p", "empty", "No open alerts. What was resolved is at ", link("/alerts"), ".")]);
  const order = (alert) => (alert.historic ? 10 : 0) + SEVERITIES.indexOf(alert.severity);
  const items = [...alerts].sort((a, b) => order(a) - order(b)).map((alert) => {
    const facts = [alert.rule.replaceAll("_", " "), ago(now, alert.occurred_at), alert.historic ? "history: paged nobody" : alert.tier, alert.action];
    const summary = link(`/alerts#${encodeURIComponent(alert.dedup_key)}`);
    summary.textContent = alert.summary;
    const stage = alert.stage === "firing" ? "" : tag(alert.acknowledged && alert.stage === "acknowledged" ? `in hand: ${alert.acknowledged.by}` : alert.stage, "");
    return element("li", "item", element("div", "line", element("span", "", tag(alert.severity, alert.severity), " ", stage), element("span", "soft", facts.filter(Boolean).slice(0, 3).join(" · "))),
      element("p", "summary", summary), alert.action ? element("p", "soft", alert.action) : "");
  });
  show("alerts", [element("ul", "", ...items)]);
}

function link(path) {
  const node = element("a", "", path);
  node.href = path;
  return node;
}

function throttleList(answer) {
  if (!answer.throttles.length) return show("throttles", [element("p", "empty", "No gateway is told to hold anybody back. A budget with a block at 100 % does so when it is used up.")]);
  const items = answer.throttles.map((t) => {
    const rejected = t.acks.reduce((sum, ack) => sum + ack.rejected_count, 0);
    const limits = [t.rpm_limit && `${count(t.rpm_limit)} requests/min`, t.tpm_limit && `${count(t.tpm_limit)} tokens/min`, t.model_fallback && `to ${t.model_fallback}`];
    const gates = t.acks.length ? `${count(t.acks.length)} gateway${t.acks.length > 1 ? "s" : ""} obey${t.acks.length > 1 ? "" : "s"}, ${count(rejected)} calls refused` : "no gateway has acknowledged it yet";
    return element("li", "item", element("div", "line", element("strong", "", `${t.scope_type} ${t.scope_id}`), tag([t.action.replace("_", " "), ...limits].filter(Boolean).join(" · "), t.action === "block" ? "emergency" : "warning")),
      element("p", "summary", t.reason), element("p", "soft", `${gates} · ${until(answer.now, t.expires_at, "until it ends by itself")}`));
  });
  show("throttles", [element("ul", "", ...items)]);
}

function sourceTable(answer) {
  if (answer.hidden) return show("sources", [element("p", "empty", "This key belongs to one team; the sources concern all.")]);
  if (!answer.sources.length) return show("sources", [element("p", "empty", "No partition of a usage topic has been read yet. ", link("/readyz"), " says whether a part is missing.")]);
  const topics = Map.groupBy(answer.sources, (source) => source.topic);
  const rows = [...topics].map(([topic, parts]) => {
    const top = (name) => Math.max(...parts.map((part) => part[name]));
    const sum = (name) => parts.reduce((total, part) => total + part[name], 0);
    const silent = top("silent_seconds");
    const lags = parts.map((part) => part.lag_seconds).filter((lag) => lag !== null);
    const state = tag(silent > 60 ? "quiet" : "flows", "");
    return element("tr", "", ...[topic, count(parts.length), lags.length ? duration(Math.min(...lags)) : "–", lags.length ? duration(Math.max(...lags)) : "–", count(sum("duplicates")), sum("dead_letters") ? tag(count(sum("dead_letters")), "warning") : "0", state].map((cell) => element("td", "", cell)));
  });
  const heads = ["topic", "parts", "newest", "furthest behind", "duplicates", "dead letters", ""].map((head) => element("th", "", head));
  heads.forEach((head) => { head.scope = "col"; });
  show("sources", [element("table", "", element("thead", "", element("tr", "", ...heads)), element("tbody", "", ...rows))]);
}

function duration(seconds) {
  return ago(new Date(seconds * 1000).toISOString(), new Date(0).toISOString()).replace(" ago", "");
}

function firstEvent() {
  const call = `curl ${location.origin}/v1/events -H 'Authorization: Bearer slk_…' \\\n  -H 'Content-Type: application/cloudevents+json' -d '{"specversion":"1.0","id":"1",\n  "source":"/me","type":"ai.usage.recorded.v1","time":"${opened}",\n  "data":{"provider":"openai","request_model":"gpt-4o","input_tokens":1200,\n  "output_tokens":300,"team_id":"search","feature":"answers"}}'`;
  return element("div", "empty", element("p", "", "No usage has arrived yet. Make a key with ", element("code", "", "sluice keys create me --scope ingest"), " and send an event:"), element("pre", "", call));
}

// A trace of another year is in the ledger and yet not in any of the recent periods.
function hint(spend, sources) {
  const newest = sources.sources.map((source) => source.stream_time).filter(Boolean).sort().at(-1);
  const old = newest && spend.total.requests === 0 && period !== "all";
  banner(old ? `Nothing was used ${PERIOD_NAMES[period]}. The newest usage is of ${newest.slice(0, 10)}: choose “All” to see it.` : "");
}

function banner(text) {
  const node = byId("banner");
  if (node.textContent !== text) node.textContent = text;
  node.hidden = !text;
}

async function refresh() {
  const step = period === "today" ? "hour" : "day";
  const mine = ++round;
  const paths = [`/v1/spend?period=${period}&group_by=team`, `/v1/spend?period=${period}&group_by=team,feature`, `/v1/spend?period=${period}&group_by=${step}`,
    "/v1/spend?period=hour", "/v1/budgets", "/v1/alerts?status=open&limit=200", "/v1/throttles"];
  const [sources, teams, features, time, hour, budget, alerts, throttles] = await Promise.all([askSources(), ...paths.map(ask)]);
  if (mine !== round) return;
  figures(teams, hour, alerts.alerts, throttles.throttles);
  bars("teams", teams.rows, teams.total.cost, teamLabel);
  bars("features", features.rows, features.total.cost, featureLabel);
  overTime(time, budget.now, sources.hidden || sources.sources.length > 0);
  budgets(budget);
  alertList(alerts.alerts, budget.now);
  throttleList(throttles);
  sourceTable(sources);
  hint(teams, sources);
  lastAnswer = new Date();
  live("live", `live · ${budget.now.slice(0, 10)} ${budget.now.slice(11, 19)} UTC`);
}

function live(state, text) {
  byId("live").dataset.state = state;
  byId("live-text").textContent = text;
}

function failed(error) {
  byId("key-form").hidden = error.status !== 401 && error.status !== 403;
  if (error.status === 401 || error.status === 403) {
    live("lost", "needs a key");
    return banner(key() ? error.message : "");
  }
  const since = lastAnswer ? `Figures are of ${lastAnswer.toISOString().slice(11, 19)} UTC.` : "";
  live("lost", "no answer");
  banner(`The API does not answer: ${error.message}. ${since} This page tries again by itself.`);
}

async function run() {
  let took = 0;
  if (!document.hidden) {
    const began = performance.now();
    try {
      await refresh();
      byId("key-form").hidden = true;
    } catch (error) {
      failed(error);
    }
    took = performance.now() - began;
  }
  // A slow ledger is asked less often, so that looking at it never makes it slower.
  setTimeout(run, Math.max(EVERY_MS - took, took, 100));
}

byId("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  keep(byId("key").value);
  byId("key").value = "";
  refresh().then(() => { byId("key-form").hidden = true; }, failed);
});
// A link cannot carry the key, so with one the file is fetched first.
byId("csv").addEventListener("click", async (event) => {
  if (!key()) return;
  event.preventDefault();
  const answer = await fetch(event.target.href, { headers: { Authorization: `Bearer ${key()}` } });
  if (!answer.ok) return failed(Object.assign(new Error((await answer.json()).detail), { status: answer.status }));
  const file = link(URL.createObjectURL(await answer.blob()));
  file.download = "spend.csv";
  file.click();
  URL.revokeObjectURL(file.href);
});
for (const input of document.querySelectorAll("#periods input")) {
  input.checked = input.value === period;
  input.addEventListener("change", () => { period = input.value; refresh().catch(failed); });
}
run();
