// A click on a column's name sorts the table by it: numbers first with the largest above, names from
// A; a second click turns the order. Cells without a number stay below.
for (const table of document.querySelectorAll("table.results")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.firstElementChild.addEventListener("click", () => {
    const numeric = head.classList.contains("number");
    const before = head.getAttribute("aria-sort");
    const descending = before ? before === "ascending" : numeric;
    heads.forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", descending ? "descending" : "ascending");
    const value = row => row.cells[column].dataset.value;
    const rows = [...table.tBodies[0].rows];
    rows.sort((one, other) => {
      const [a, b] = [value(one), value(other)];
      if (!numeric) return descending ? b.localeCompare(a) : a.localeCompare(b);
      if (a === "" || b === "") return (a === "") - (b === "");
      return descending ? b - a : a - b;
    });
    table.tBodies[0].append(...rows);
  }));
}
document.body.dataset.ready = "";
