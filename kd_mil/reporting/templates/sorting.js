for (const head of document.querySelectorAll("th[data-sort]")) {
  head.tabIndex = 0;
  head.onclick = () => {
    const body = head.closest("table").tBodies[0], column = head.cellIndex;
    const key = row => row.cells[column].dataset.key ?? row.cells[column].textContent;
    const up = head.dataset.up = head.dataset.up === "1" ? "" : "1";
    for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const words = (a, b) => a.localeCompare(b, undefined, {numeric: true});
    const order = (a, b) => isNaN(key(a) - key(b)) ? words(key(a), key(b)) : key(a) - key(b);
    body.append(...[...body.rows].sort((a, b) => up ? order(a, b) : order(b, a)));
  };
  head.onkeydown = event => {
    if (event.key === "Enter" || event.key === " ") { event.preventDefault(); head.click(); }
  };
}
