// Filters and sorts the ledger of claims in the page itself; without scripts the whole table is simply there.
document.addEventListener("DOMContentLoaded", () => {
  for (const table of document.querySelectorAll("table.ledger")) {
    const body = table.tBodies[0];
    const rows = [...body.rows];
    const tools = document.createElement("div");
    tools.className = "ledger-tools";
    const search = Object.assign(document.createElement("input"), { type: "search", placeholder: "Filter" });
    search.setAttribute("aria-label", "Filter the table by text");
    const select = document.createElement("select");
    select.setAttribute("aria-label", "Show one verdict");
    const verdicts = [...new Set(rows.map((row) => row.dataset.verdict))].sort();
    select.append(new Option("all verdicts", ""), ...verdicts.map((verdict) => new Option(verdict, verdict)));
    const count = document.createElement("span");
    count.setAttribute("aria-live", "polite");
    tools.append(search, select, count);
    table.parentElement.before(tools);

    const filter = () => {
      const text = search.value.toLowerCase();
      let shown = 0;
      for (const row of rows) {
        const fits = row.textContent.toLowerCase().includes(text) && (!select.value || row.dataset.verdict === select.value);
        row.hidden = !fits;
        shown += fits;
      }
      count.textContent = `${shown} of ${rows.length}`;
    };
    search.addEventListener("input", filter);
    select.addEventListener("change", filter);
    filter();

    table.querySelectorAll("thead th").forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = head.textContent;
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const ascending = head.getAttribute("aria-sort") !== "ascending";
        table.querySelectorAll("thead th").forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
        // data-sort holds a number, or nothing where the cell is empty; text sorts its first number as one.
        const key = (row) => {
          const { dataset, textContent } = row.cells[column];
          return "sort" in dataset ? (dataset.sort === "" ? -Infinity : Number(dataset.sort)) : textContent.trim();
        };
        const compare = (x, y) => (typeof x === "number" ? (x > y) - (x < y) : x.localeCompare(y, undefined, { numeric: true }));
        const order = (a, b) => compare(key(a), key(b));
        rows.sort((a, b) => (ascending ? order(a, b) : order(b, a)));
        body.append(...rows);
      });
    });
  }
});
