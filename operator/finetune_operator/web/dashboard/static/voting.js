// Voting by keyboard: keys press the buttons that name them. What counts is decided at the server.

function pressed(event) {
  const booth = document.getElementById("booth");
  if (!booth || event.repeat || event.defaultPrevented || event.ctrlKey || event.altKey || event.metaKey) return;
  const target = event.target instanceof Element ? event.target : null;
  if (target?.closest("input, select, textarea, a, summary")) return;
  // A button answers to Enter by itself, and a long text to the arrows up and down.
  if (event.key === "Enter" && target?.closest("button")) return;
  const text = target?.closest(".model-text");
  if (text && event.key === "ArrowDown" && text.scrollHeight > text.clientHeight) return;
  for (const button of booth.querySelectorAll("button[data-keys]")) {
    if (!button.dataset.keys.split(" ").includes(event.key)) continue;
    event.preventDefault();
    if (!button.disabled) button.click();
    return;
  }
}

function busy(isBusy) {
  for (const button of document.querySelectorAll("#booth button")) button.disabled = isBusy;
}

// Where a person goes on: at the question of a new pair, or at the button that leads to the next one.
function focus() {
  const booth = document.getElementById("booth");
  const next = booth?.querySelector(".verdict-line button");
  (next ?? booth?.querySelector("#question"))?.focus({ preventScroll: Boolean(next) });
}

document.addEventListener("keydown", pressed);
// After htmx has read the form, so that a second press of a button sends nothing.
document.addEventListener("htmx:before:request", () => setTimeout(() => busy(true)));
document.addEventListener("htmx:finally:request", () => busy(false));
document.addEventListener("htmx:after:swap", focus);
document.addEventListener("htmx:error", () => {
  busy(false);
  const notices = document.getElementById("notices");
  const note = document.createElement("p");
  note.className = "notice bad";
  note.textContent = "The api did not answer. Nothing is lost: press the same button again, and it counts once.";
  notices.replaceChildren(note);
});
document.addEventListener("htmx:before:request", () => document.getElementById("notices").replaceChildren());
