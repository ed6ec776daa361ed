(() => {
  "use strict";
  const bar = document.getElementById("verdict-filter");
  if (!bar) return;
  const items = Array.from(document.querySelectorAll("#verdict-list > details"));
  const word = document.getElementById("verdict-search");
  const picks = Array.from(bar.querySelectorAll("select"));
  const told = document.getElementById("verdict-count");
  const texts = new Map();
  const plain = (text) => text.normalize("NFKC").toLowerCase();
  const textOf = (item) => {
    if (!texts.has(item)) texts.set(item, plain(item.textContent));
    return texts.get(item);
  };
  const matches = (item, wanted) =>
    picks.every((pick) => pick.value === "" || (item.dataset[pick.dataset.of] || "").split(" ").includes(pick.value)) &&
    wanted.every((part) => textOf(item).includes(part));
  const apply = () => {
    const wanted = plain(word.value).split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const item of items) {
      item.hidden = !matches(item, wanted);
      if (!item.hidden) shown += 1;
    }
    told.textContent = shown === 0 ? "Nothing matches." : shown + " of " + items.length + " shown";
  };
  let waiting = 0;
  word.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(apply, 120);
  });
  for (const pick of picks) pick.addEventListener("change", apply);
  const set = (open) => () => {
    for (const item of items) if (!item.hidden) item.open = open;
  };
  document.getElementById("verdict-open").addEventListener("click", set(true));
  document.getElementById("verdict-close").addEventListener("click", set(false));
  document.getElementById("verdict-reset").addEventListener("click", () => {
    word.value = "";
    for (const pick of picks) pick.value = "";
    apply();
    word.focus();
  });
  bar.hidden = false;
  apply();
})();
