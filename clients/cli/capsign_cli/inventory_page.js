"use strict";
// Sorts a table by the header that is pressed, and hides rows that do not have what is typed.
for (const head of document.querySelectorAll("th button")) {
  head.addEventListener("click", () => {
    const cell = head.closest("th"), table = cell.closest("table"), body = table.tBodies[0];
    const down = cell.getAttribute("aria-sort") === "ascending";
    const place = [...cell.parentNode.children].indexOf(cell);
    const value = (row) => row.cells[place].dataset.sort ?? row.cells[place].textContent.trim();
    const compare = new Intl.Collator("en", { numeric: true }).compare;
    const rows = [...body.rows].sort((a, b) => compare(value(a), value(b)) * (down ? -1 : 1));
    for (const other of table.querySelectorAll("th")) other.removeAttribute("aria-sort");
    cell.setAttribute("aria-sort", down ? "descending" : "ascending");
    body.append(...rows);
  });
}
const field = document.querySelector("input[type=search]");
field.hidden = false;
field.addEventListener("input", () => {
  const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const row of document.querySelectorAll("tbody tr")) {
    const text = row.textContent.toLowerCase();
    row.hidden = !words.every((word) => text.includes(word));
  }
  for (const part of document.querySelectorAll("section[data-count]")) {
    const all = part.querySelectorAll("tbody tr").length;
    const left = part.querySelectorAll("tbody tr:not([hidden])").length;
    part.querySelector("h2 small").textContent = left === all ? `${all}` : `${left} of ${all}`;
  }
});
document.body.classList.add("ready");
