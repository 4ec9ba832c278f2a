/* What a shop's own script does: it keeps the cart, and asks coterie.js for what goes with it. */
"use strict";
const place = (id) => document.getElementById(id);
const cart = new Map(); // by id; `from` is the answer that an article was taken from, if it was
const goods = new Map();
const REFRESH = 400; // milliseconds: what is sold out disappears from a page that stays open

const text = (tag, name, content) => {
  const made = document.createElement(tag);
  if (name) made.className = name;
  made.textContent = content;
  return made;
};

const money = (item) =>
  item.price == null
    ? ""
    : new Intl.NumberFormat("en", { style: "currency", currency: item.currency || "EUR" }).format(item.price);

const button = (label, of, act) => {
  const made = text("button", "", label);
  made.type = "button";
  made.setAttribute("aria-label", `${label} ${of}`);
  made.addEventListener("click", act);
  return made;
};

function drawShelf() {
  const focused = place("shelf").querySelector("li:focus-within")?.dataset.item;
  const wanted = place("search").value.trim().toLowerCase();
  const found = [...goods.values()].filter((item) => item.title.toLowerCase().includes(wanted)).slice(0, 24);
  place("shelf").replaceChildren(
    ...found.map((item) => {
      const entry = document.createElement("li");
      entry.dataset.item = item.item;
      entry.append(text("span", "", item.title), text("span", "price", money(item)));
      entry.append(button("Add", item.title, () => add(item)));
      return entry;
    }),
  );
  place("shelf").querySelector(`[data-item="${CSS.escape(focused || "")}"] button`)?.focus();
  place("nothing").hidden = found.length > 0;
}

function drawCart() {
  place("cart").replaceChildren(
    ...[...cart.values()].map((item) => {
      const entry = document.createElement("li");
      entry.dataset.item = item.item;
      entry.append(text("span", "", item.title), text("span", "price", money(item)));
      entry.append(button("Remove", item.title, () => remove(item)));
      return entry;
    }),
  );
  place("empty").hidden = cart.size > 0;
  place("buy").disabled = cart.size === 0;
}

async function suggest() {
  const answer = await coterie.show(place("with"), [...cart.keys()]);
  if (answer) place("with-title").textContent = answer.fallback ? "Popular" : "Goes well with it";
}

function changed(said) {
  place("said").textContent = said;
  drawCart();
  suggest();
}

function add(item, from) {
  cart.set(item.item, { ...item, from });
  coterie.event("add-to-cart", { item: item.item, recommendationId: from });
  changed(`${item.title} is in the cart.`);
}

function remove(item) {
  cart.delete(item.item);
  coterie.event("remove", { item: item.item });
  changed(`${item.title} is out of the cart.`);
  (place("cart").querySelector("button") || place("search")).focus();
}

/* One event for each answer that something was taken from, so that each answer gets what is its due. */
function buy() {
  const basket = `${Date.now()}-${Math.random()}`;
  for (const recommendationId of new Set([...cart.values()].map((item) => item.from))) {
    const items = [...cart.values()].filter((item) => item.from === recommendationId);
    coterie.event("purchase", { basket, recommendationId, items: items.map(({ item }) => ({ item, quantity: 1 })) });
  }
  cart.clear();
  changed("Thank you.");
  place("search").focus();
}

/* The shop's own look of a suggestion: a button that puts it into the cart. */
coterie.card = (item) => {
  const made = document.createElement("button");
  const title = item.title || item.item;
  made.type = "button";
  made.className = "coterie-card";
  made.append(text("span", "coterie-title", title), text("span", "coterie-price", money(item)), text("b", "", "Add"));
  made.addEventListener("click", () => {
    add({ ...item, title }, place("with").answer.recommendationId);
    [...place("cart").querySelectorAll("button")].at(-1).focus(); // the suggestion goes
  });
  return made;
};

async function restock() {
  const answer = await coterie.popular({ k: 100 }).catch(() => null);
  if (!answer) return;
  const before = JSON.stringify([...goods.values()]);
  goods.clear();
  for (const item of answer.items) goods.set(item.item, { ...item, title: item.title || item.item });
  if (before !== JSON.stringify([...goods.values()])) drawShelf();
}

async function refresh() {
  if (!document.hidden) await Promise.all([restock(), suggest()]);
  setTimeout(refresh, REFRESH);
}

place("search").addEventListener("input", drawShelf);
place("buy").addEventListener("click", buy);
drawCart();
refresh();
