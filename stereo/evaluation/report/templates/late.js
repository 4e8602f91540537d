(() => {
  "use strict";
  const root = document.documentElement;

  // Light and dark: the system's choice until the button is pressed.
  const system = matchMedia("(prefers-color-scheme: dark)");
  const toggle = document.querySelector(".theme");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const name = () => { toggle.textContent = isDark() ? "Light" : "Dark"; };
  toggle.hidden = false;
  toggle.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    name();
  });
  system.addEventListener("change", name);
  name();

  // Tables: a press on a heading sorts, another one turns the order.
  for (const table of document.querySelectorAll("table.sortable")) {
    const body = table.tBodies[0];
    const headings = [...table.querySelectorAll("thead [data-column]")];
    for (const heading of headings) {
      const column = Number(heading.dataset.column);
      const button = document.createElement("button");
      button.type = "button";
      button.append(...heading.childNodes);
      heading.append(button);
      button.addEventListener("click", () => {
        const words = column === 0;
        const before = heading.getAttribute("aria-sort");
        const rising = before ? before === "descending" : words;
        for (const other of headings) other.removeAttribute("aria-sort");
        heading.setAttribute("aria-sort", rising ? "ascending" : "descending");
        const value = (row) => row.cells[column].dataset.value ?? "";
        const sign = rising ? 1 : -1;
        const rows = [...body.rows];
        rows.sort((one, other) => {
          const a = value(one), b = value(other);
          if (words) return sign * a.localeCompare(b, undefined, { numeric: true });
          if (a === "" || b === "") return (a === "") - (b === "");  // no figure: always last
          return sign * (Number(a) - Number(b));
        });
        body.append(...rows);
      });
    }
  }

  // Pictures: two of an image over each other, and a line between them that can be moved.
  for (const card of document.querySelectorAll(".card")) {
    const stage = card.querySelector(".stage");
    const panels = [...card.querySelectorAll(".panel")];
    if (!stage || panels.length < 2) continue;
    const view = stage.querySelector(".view");
    const pictures = [stage.querySelector(".over"), stage.querySelector(".under")];
    const tags = [...stage.querySelectorAll(".tag")];
    const choices = [...stage.querySelectorAll("select")];
    const line = stage.querySelector("input");
    const put = (side, index) => {
      const picture = panels[index].querySelector("img");
      pictures[side].src = picture.src;
      pictures[side].alt = picture.alt;
      tags[side].textContent = panels[index].dataset.name;
      choices[side].value = String(index);
      panels.forEach((panel, i) => panel.classList.toggle(
        "shown", choices.some((choice) => choice.value === String(i))));
    };
    choices.forEach((choice, side) => {
      panels.forEach((panel, i) => choice.add(new Option(panel.dataset.name, String(i))));
      choice.addEventListener("change", () => put(side, Number(choice.value)));
    });
    panels.forEach((panel, i) => panel.addEventListener("click", () => put(1, i)));
    const move = () => view.style.setProperty("--cut", `${line.value}%`);
    line.addEventListener("input", move);
    stage.hidden = false;
    const maps = panels.flatMap((panel, i) => (panel.dataset.kind === "disparity" ? [i] : []));
    const truth = panels.findIndex((panel) => panel.dataset.kind === "truth");
    put(0, maps[0] ?? 0);
    put(1, maps[1] ?? (truth < 0 ? 1 : truth));
    move();
  }
})();
