// Brings the explorer to life: draws its figure, takes the choices of the page's address, shows the run clicked on.
const data = JSON.parse(document.getElementById("explore-data").textContent);
const figure = document.getElementById("explore-figure");
const byId = new Map(data.runs.map(run => [run.run, run]));
const choices = data.spec.params.filter(each => each.bind).map(each => each.name.replace(/^by_/, ""));

const element = (tag, text = "", more = {}) => Object.assign(document.createElement(tag), { textContent: text, ...more });

function record(run) {  // links to a run's row in the list of all and to its file
  const part = element("span");
  part.append(
    element("a", "its row", { href: `made.html#run-${run.run}` }), ", ",
    element("a", "its JSON", { href: `../_static/records/${run.file}`, download: `${run.run}.json` }),
  );
  return part;
}

function tell(run) {
  const place = document.getElementById("explore-run");
  place.replaceChildren();
  if (!run) return;
  const table = element("table");
  for (const [name, value] of Object.entries(run.config)) {
    const row = table.insertRow();
    row.append(element("th", name, { scope: "row" }), element("td", Array.isArray(value) ? value.join(", ") : value));
  }
  const head = element("p", `Run ${run.run}: `);
  head.append(record(run));
  place.append(head, table);
}

async function draw() {
  const columns = figure.clientWidth < 700 ? 1 : figure.clientWidth < 1000 ? 2 : 3;
  data.spec.columns = columns;
  data.spec.config.view.continuousWidth = Math.max(200, Math.floor(figure.clientWidth / columns) - 85);
  data.spec.datasets = { runs: data.runs };
  const { view } = await vegaEmbed(figure, data.spec, { actions: false, renderer: "canvas" });
  const asked = new URLSearchParams(location.search);
  if ([...asked.keys()].some(name => choices.includes(name))) {
    for (const name of choices) view.signal(`by_${name}`, asked.get(name));
    await view.runAsync();
  }
  const picked = (_, value) => tell(byId.get(value.run?.[0]));
  const count = () => {
    const left = data.runs.filter(run => choices.every(name => [null, run[name]].includes(view.signal(`by_${name}`))));
    document.getElementById("explore-count").textContent = `${left.length} of ${data.runs.length} runs. Click one for its settings.`;
    document.querySelector("#explore-list ul").replaceChildren(...left.map(run => {
      const item = element("li", `${run.name}, ${run.augmentation}, seed ${run.seed}, ${run.epochs} epochs: `);
      item.append(record(run));
      return item;
    }));
  };
  for (const name of choices) view.addSignalListener(`by_${name}`, count);
  view.addSignalListener("picked", picked);
  count();
  window.explorer = view;  // for who wants to look further from the browser's console
}

draw();
