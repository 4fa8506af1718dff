// One stream a page says what has changed; the elements that show it are fetched anew.
//
// Each connection begins with "hello", after which all of them are fetched: whatever was missed while there was none,
// because of a dropped line, a restart of the api or a hidden tab, is caught up by that.
//
// What no object tells of, such as calls that gateways count, is fetched every data-live-seconds while somebody looks.

const FIRST_PAUSE = 500;
const LONGEST_PAUSE = 10000;

let source = null;
let pause = FIRST_PAUSE;
let timer = 0;
let repeating = 0;

function show(text) {
  const state = document.getElementById("live-state");
  if (!state) return;
  state.hidden = !text;
  if (state.textContent !== text) state.textContent = text;
}

function fetchAnew(changed) {
  for (const element of document.querySelectorAll("[data-live]")) {
    const kinds = element.dataset.live.split(" ");
    const id = element.dataset.liveId;
    if (changed && !kinds.includes(changed.kind)) continue;
    if (changed && id && id !== changed.id) continue;
    // What shows many objects waits for something that is worth telling of one of them.
    if (changed && !id && changed.what === "progress") continue;
    // Nobody sees it; it is fetched when it is opened.
    if (element.closest("details:not([open])")) continue;
    if (element.dataset.chart) element.dispatchEvent(new Event("chart", { bubbles: true }));
    else element.dispatchEvent(new Event("live"));
  }
}

function repeat() {
  clearInterval(repeating);
  const seconds = document.querySelector("[data-live-seconds]")?.dataset.liveSeconds;
  if (!seconds || document.hidden) return;
  repeating = setInterval(() => {
    for (const element of document.querySelectorAll("[data-live-seconds]:not(.htmx-request)")) {
      element.dispatchEvent(new Event("live"));
    }
  }, 1000 * seconds);
}

function close() {
  clearTimeout(timer);
  source?.close();
  source = null;
}

function open() {
  close();
  const main = document.getElementById("main");
  const kinds = main?.dataset.liveKinds.trim();
  if (!kinds || document.hidden) return;
  const query = new URLSearchParams({ kinds });
  if (main.dataset.liveNamespace.trim()) query.set("namespace", main.dataset.liveNamespace.trim());
  source = new EventSource(`/live?${query}`);
  source.addEventListener("hello", () => {
    pause = FIRST_PAUSE;
    main.dataset.liveOpen = "true";
    show("");
    fetchAnew(null);
  });
  source.addEventListener("changed", (event) => fetchAnew(JSON.parse(event.data)));
  source.onerror = () => {
    // A browser comes again by itself only after some failures, and with no pause that grows.
    close();
    main.dataset.liveOpen = "false";
    show("The connection was lost; what you see may be old. Trying again…");
    timer = setTimeout(open, pause * (0.75 + Math.random() / 2));
    pause = Math.min(2 * pause, LONGEST_PAUSE);
  };
}

export function startLive() {
  const begin = () => { open(); repeat(); };
  const end = () => { close(); clearInterval(repeating); };
  document.addEventListener("visibilitychange", () => (document.hidden ? end() : begin()));
  addEventListener("pagehide", end);
  addEventListener("pageshow", (event) => { if (event.persisted) begin(); });
  begin();
}
