// What every page does in the browser.
import { startCharts } from "./charts.js";
import { keepForms } from "./kept_forms.js";
import { startLive } from "./live.js";

function currentTheme() {
  return document.documentElement.dataset.theme
    || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
}

document.addEventListener("click", async (event) => {
  const target = event.target instanceof Element ? event.target : null;
  if (target?.closest("[data-theme-switch]")) {
    const theme = currentTheme() === "dark" ? "light" : "dark";
    document.documentElement.dataset.theme = theme;
    localStorage.setItem("theme", theme);
    document.dispatchEvent(new Event("theme"));
  }
  const copy = target?.closest("[data-copy]");
  if (copy) {
    const text = copy.closest("figure").querySelector("code").textContent;
    try {
      await navigator.clipboard.writeText(text);
      copy.textContent = "Copied";
    } catch {
      // Only https and localhost have a clipboard: select it for the person to copy.
      getSelection().selectAllChildren(copy.closest("figure").querySelector("code"));
      copy.textContent = "Selected";
    }
    setTimeout(() => { copy.textContent = "Copy"; }, 2000);
  }
});

// What is hidden until one opens it is fetched then.
document.addEventListener("toggle", (event) => {
  if (event.target.open) event.target.querySelectorAll("[data-live]").forEach((each) => each.dispatchEvent(new Event("live")));
}, true);
// A log is read from its end.
document.addEventListener("htmx:after:swap", () => {
  document.querySelectorAll(".log-text:not([data-shown])").forEach((each) => {
    each.dataset.shown = "true";
    each.scrollTop = each.scrollHeight;
  });
});
document.addEventListener("change", (event) => {
  if (event.target.matches?.("[data-submit]")) event.target.form.requestSubmit();
});

keepForms();
startCharts();
startLive();
