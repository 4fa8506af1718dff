// What was typed into a form outlasts a reload and the way back to it, in its own tab, also from a refusal or an api that
// was away when it was sent; who goes to the form anew finds it empty.

const UNKEPT = new Set(["hidden", "password", "file", "submit", "button"]);

function fieldsOf(form) {
  return [...form.elements].filter((each) => each.name && !UNKEPT.has(each.type));
}

function valueOf(field) {
  return field.type === "checkbox" || field.type === "radio" ? field.checked : field.value;
}

function restore(form, kept) {
  const fields = fieldsOf(form);
  // The page has other fields by now.
  if (kept.length !== fields.length) return;
  let isChanged = false;
  fields.forEach((field, number) => {
    if (valueOf(field) === kept[number]) return;
    isChanged = true;
    if (typeof kept[number] === "boolean") field.checked = kept[number];
    else field.value = kept[number];
    field.closest("details")?.setAttribute("open", "");
  });
  if (isChanged) form.dispatchEvent(new Event("change", { bubbles: true }));
}

export function keepForms() {
  const isNew = performance.getEntriesByType("navigation")[0]?.type === "navigate";
  for (const form of document.querySelectorAll("form[data-kept]")) {
    const key = `form ${location.pathname}${location.search}#${form.id}`;
    const kept = sessionStorage.getItem(key);
    if (isNew) sessionStorage.removeItem(key);
    else if (kept) restore(form, JSON.parse(kept));
    const keep = () => sessionStorage.setItem(key, JSON.stringify(fieldsOf(form).map(valueOf)));
    form.addEventListener("input", keep);
    form.addEventListener("change", keep);
  }
}
