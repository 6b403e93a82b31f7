// Shows events on the page of Hystrix's dashboard, by the dashboard's own scripts and templates, and prints its cards:
// node cards.js FOLDER <EVENTS, where the folder is the unpacked WAR, and each line of events is one message's JSON.
// What a browser would do is here as far as it decides what stands in a card: elements by their ids. What only moves and
// colours is left out, d3 among it.
const fs = require("fs"), path = require("path"), vm = require("vm");
const folder = process.argv[2], cards = {}, log = [];

function elements(selector) {
  const id = /^#((?:CIRCUIT|THREAD_POOL)_(?:\\.|[^ \\])*)( div\.monitor_data)?$/.exec(selector);
  const name = id && id[1].replace(/\\(.)/g, "$1");
  const found = {
    length: name in cards ? 1 : 0,
    append(html) {
      const card = /<div class="monitor" id="([^"]*)"/.exec(html);
      if (card) cards[card[1]] = "";
      return found;
    },
    html(text) {
      if (id && id[2] && name in cards) cards[name] = text;
      return found;
    },
    remove() {
      if (id && !id[2]) delete cards[name];
      return found;
    },
  };
  for (const verb of ["attr", "css", "last", "addClass", "removeClass", "tsort"]) found[verb] = () => found;
  return found;
}
elements.get = (file, then) => then(fs.readFileSync(path.join(folder, path.posix.normalize(file)), "utf8"));

const picture = new Proxy(function () {}, {
  get: (_, key) => (key === Symbol.toPrimitive ? () => 0 : picture),
  set: () => true,
  apply: () => picture,
});
const page = { jQuery: elements, $: elements, d3: picture, location: { pathname: "/monitor/monitor.html" }, setInterval() {}, console: { log: (m) => log.push(String(m)) } };
page.window = page;
vm.createContext(page);
for (const script of ["js/tmpl.js", "components/hystrixCommand/hystrixCommand.js", "components/hystrixThreadPool/hystrixThreadPool.js"]) {
  vm.runInContext(fs.readFileSync(path.join(folder, script), "utf8"), page, script);
}
const monitors = [new page.HystrixCommandMonitor(0, "circuits", {}), new page.HystrixThreadPoolMonitor(0, "pools")];
for (const data of fs.readFileSync(0, "utf8").split("\n").filter(Boolean)) {
  for (const m of monitors) m.eventSourceMessageListener({ data });
}
process.stdout.write(JSON.stringify({ cards, log }));
