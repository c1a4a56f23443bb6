"use strict";
(() => {
  const table = document.getElementById("points");
  const body = table.tBodies[0];
  const rows = Array.from(body.rows);
  const count = document.getElementById("count");
  const value = (row, column) => {
    const text = row.cells[column].dataset.value ?? row.cells[column].textContent;
    const number = Number(text);
    return text === "" || Number.isNaN(number) ? text : number;
  };
  // Sorting: the header's button turns the order around; equal rows keep theirs.
  table.querySelectorAll("thead button").forEach((button, column) => {
    button.addEventListener("click", () => {
      const header = button.closest("th");
      const up = header.getAttribute("aria-sort") !== "ascending";
      table.querySelectorAll("thead th").forEach((other) => other.removeAttribute("aria-sort"));
      header.setAttribute("aria-sort", up ? "ascending" : "descending");
      const order = (a, b) => {
        const [x, y] = [value(a, column), value(b, column)];
        const sign = typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y));
        return up ? sign : -sign;
      };
      rows.sort(order).forEach((row) => body.appendChild(row));
    });
  });
  // Filtering: every word must be somewhere in the row, every choice must be the cell's text.
  const words = document.getElementById("words");
  const choices = Array.from(document.querySelectorAll(".filters select"));
  const filter = () => {
    const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      const chosen = choices.every((choice) => choice.value === "" || row.cells[Number(choice.dataset.column)].textContent === choice.value);
      row.hidden = !(chosen && wanted.every((word) => text.includes(word)));
      shown += row.hidden ? 0 : 1;
    }
    count.textContent = `${shown} of ${rows.length} rows`;
  };
  [words, ...choices].forEach((input) => input.addEventListener("input", filter));
  filter();
  // Saving figures and their numbers.
  const save = (name, blob) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  };
  const picture = (figure) => {
    const svg = figure.querySelector("svg").cloneNode(true);
    svg.setAttribute("style", "background:#fff;color:#222");
    return new XMLSerializer().serializeToString(svg);
  };
  const numbers = (figure) => JSON.parse(figure.querySelector("script").textContent);
  const quoted = (cell) => (/[",\n]/.test(cell) ? `"${cell.replaceAll('"', '""')}"` : cell);
  const kinds = {
    svg: (figure) => Promise.resolve(new Blob([picture(figure)], { type: "image/svg+xml" })),
    csv: (figure) => {
      const { columns, rows } = numbers(figure);
      return Promise.resolve(new Blob([[columns, ...rows].map((row) => row.map(quoted).join(",") + "\n").join("")], { type: "text/csv" }));
    },
    json: (figure) => Promise.resolve(new Blob([JSON.stringify(numbers(figure))], { type: "application/json" })),
    png: (figure) => new Promise((resolve, reject) => {
      const { width, height } = figure.querySelector("svg").viewBox.baseVal;
      const image = new Image();
      image.onload = () => {
        const canvas = document.createElement("canvas");
        [canvas.width, canvas.height] = [2 * width, 2 * height];
        const context = canvas.getContext("2d");
        context.fillStyle = "#fff";
        context.fillRect(0, 0, canvas.width, canvas.height);
        context.drawImage(image, 0, 0, canvas.width, canvas.height);
        canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error("no picture"))), "image/png");
      };
      image.onerror = () => reject(new Error("the picture cannot be drawn"));
      image.src = "data:image/svg+xml;charset=utf-8," + encodeURIComponent(picture(figure));
    }),
  };
  document.querySelectorAll("figure").forEach((figure) => {
    figure.querySelectorAll(".save button").forEach((button) => {
      const kind = button.textContent.toLowerCase();
      button.addEventListener("click", () => kinds[kind](figure).then((blob) => save(`${figure.id}.${kind}`, blob)));
    });
  });
  // For scripts that test the page.
  window.study = { kinds, figures: () => Array.from(document.querySelectorAll("figure")) };
})();
