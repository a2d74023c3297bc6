// Keeps a page up to date without a person's doing. The page says where its changes are told and which mark it shows:
//   <main data-live="/console/payments/…/live" data-live-mark="…"> … <section data-live-part id="timeline"> …
// When the mark is another, the page is fetched again, and each part marked data-live-part is replaced by its new
// self: what was unfolded stays unfolded, the focus stays, and what somebody is typing is never taken away.
// Without this module a page is as true as when it was loaded.

const root = document.querySelector("[data-live]");
const teller = document.querySelector("[data-live-told]");
let mark = root?.dataset.liveMark ?? "";
let isFetching = false;
let isAgain = false;

function tell(words) {
  if (teller) teller.textContent = words;
}

// Whether somebody has typed, or is about to.
function isInUse(part) {
  if (part.contains(document.activeElement) && document.activeElement.matches("input, textarea, select")) return true;
  return [...part.querySelectorAll("input, textarea, select")].some((field) => {
    if (field.type === "hidden") return false;
    if (field.type === "checkbox" || field.type === "radio") return field.checked !== field.defaultChecked;
    if (field instanceof HTMLSelectElement) {
      const first = [...field.options].findIndex((option) => option.defaultSelected);
      return field.selectedIndex !== Math.max(first, 0);
    }
    return field.value !== field.defaultValue;
  });
}

function replaced(old, fresh) {
  const open = new Map([...old.querySelectorAll("details[id]")].map((each) => [each.id, each.open]));
  const focused = old.contains(document.activeElement) ? document.activeElement : null;
  const focusId = focused?.id || focused?.closest("[id]")?.id;
  const isSummary = focused?.tagName === "SUMMARY";
  const scrolled = new Map([...old.querySelectorAll("[data-scrolls][id]")].map((each) => [each.id, [each.scrollLeft, each.scrollTop]]));
  old.replaceWith(fresh);
  for (const each of fresh.querySelectorAll("details[id]")) if (open.has(each.id)) each.open = open.get(each.id);
  for (const each of fresh.querySelectorAll("[data-scrolls][id]")) {
    const at = scrolled.get(each.id);
    if (at) [each.scrollLeft, each.scrollTop] = at;
  }
  if (!focusId) return;
  const holder = document.getElementById(focusId);
  const target = isSummary ? holder?.querySelector("summary") : holder;
  target?.focus({ preventScroll: true });
}

async function refresh(wanted) {
  if (isFetching) {
    isAgain = true;
    return;
  }
  isFetching = true;
  try {
    const answer = await fetch(location.href, { headers: { accept: "text/html" }, redirect: "error" });
    if (answer.status === 401) return over();
    if (!answer.ok) return tell("This page has changed, and could not be loaded again: reload it.");
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    let kept = 0;
    for (const old of document.querySelectorAll("[data-live-part]")) {
      const fresh = page.getElementById(old.id);
      if (!fresh || fresh.isEqualNode(old)) continue;
      if (isInUse(old)) kept += 1;
      else replaced(old, document.importNode(fresh, true));
    }
    mark = wanted;
    tell(kept ? "This page has changed. The part that you are writing in was left as it is." : "This page has just been brought up to date.");
    document.dispatchEvent(new CustomEvent("live:changed"));
  } catch {
    tell("This page has changed, and the service could not be reached: reload it.");
  } finally {
    isFetching = false;
    if (isAgain) {
      isAgain = false;
      refresh(wanted);
    }
  }
}

let source = null;

function over() {
  source?.close();
  source = null;
  root.dataset.liveState = "over";
  tell("Your session has ended: log in again to go on.");
}

function watch() {
  source = new EventSource(root.dataset.live);
  source.onopen = () => {
    root.dataset.liveState = "on";
  };
  source.onmessage = (event) => {
    if (mark && event.data !== mark) refresh(event.data);
    mark = mark || event.data;
  };
  source.addEventListener("over", over);
  source.onerror = () => {
    root.dataset.liveState = "off";
    // A refusal closes for good; the browser itself comes again only after a lost connection.
    if (source?.readyState === EventSource.CLOSED) {
      source = null;
      setTimeout(watch, 30_000);
    }
  };
}

if (root && "EventSource" in window) {
  // What is not looked at is not kept up to date: browsers allow few connections for one host.
  document.addEventListener("visibilitychange", () => {
    if (document.hidden && root.dataset.liveState !== "over") {
      source?.close();
      source = null;
    } else if (!document.hidden && !source && root.dataset.liveState !== "over") {
      watch();
    }
  });
  if (!document.hidden) watch();
}
