/* Suggestions in a shop's page: <script src="…/static/coterie.js" data-key="cpk_…" defer></script> and
   <div data-coterie data-items="A1,B2" data-k="4">what shows without an answer in 150 ms</div>.
   No cookie, nothing stored, no dependency. */
(() => {
  "use strict";
  const script = document.currentScript;
  const base = new URL(script.src).origin;
  const { key, patience = 150 } = script.dataset; // patience in milliseconds
  const headers = { "Content-Type": "application/json", ...(key && { Authorization: "Bearer " + key }) };

  const post = (path, content, more) =>
    fetch(base + path, { method: "POST", headers, credentials: "omit", body: JSON.stringify(content), ...more });

  const ask = async (path, question) => {
    const reply = await post("/v1/recommend/" + path, question);
    if (!reply.ok) throw new Error("coterie: " + reply.status);
    return reply.json();
  };

  /* What completes a basket; without items, what is popular. */
  const basket = (items, options) => ask("basket", { ...options, items });
  const similar = (item, options) => ask("similar", { ...options, item });
  const popular = (options) => ask("popular", options || {});

  /* Pages without TLS have no randomUUID. */
  const id = () => [...crypto.getRandomValues(new Uint8Array(16))].map((one) => one.toString(36)).join("-");

  /* Tell what happened; never in the way of the page: a failure is dropped. */
  const event = (type, content) =>
    post("/v1/events", { eventId: id(), type, time: new Date(), ...content }, { keepalive: true }).catch(() => {});

  const node = (tag, name, text) => {
    const made = document.createElement(tag);
    made.className = "coterie-" + name;
    if (text) made.textContent = text;
    return made;
  };

  const price = ({ price, currency }) => {
    const form = currency ? { style: "currency", currency } : { minimumFractionDigits: 2 };
    return new Intl.NumberFormat(document.documentElement.lang || undefined, form).format(price);
  };

  /* One suggestion as an element; a shop may put its own in place: coterie.card = (item) => element. */
  const card = (item) => {
    const link = node("a", "card");
    link.href = item.url || "#";
    if (item.image) {
      const image = node("img", "image");
      image.src = new URL(item.image, base).href;
      image.alt = "";
      image.loading = "lazy";
      link.append(image);
    }
    link.append(node("span", "title", item.title || item.item));
    if (item.price != null) link.append(node("span", "price", price(item)));
    return link;
  };

  const ids = (answer) => answer && answer.items.map((one) => one.item).join("\n");

  /* Told when it comes into view. */
  const seen = (place, { recommendationId, items }) =>
    new IntersectionObserver((entries, watch) => {
      if (!entries.some((one) => one.isIntersecting)) return;
      watch.disconnect();
      if (items.length && place.answer.recommendationId === recommendationId)
        event("impression", { recommendationId, items: items.map(({ item }, at) => ({ item, position: at + 1 })) });
    }).observe(place);

  /* The same items with a new price are drawn anew, and are no second impression. */
  const draw = (place, fresh) => {
    const again = ids(place.answer) === ids(fresh);
    if (again && JSON.stringify(place.answer.items) === JSON.stringify(fresh.items)) return;
    const answer = (place.answer = again ? { ...place.answer, items: fresh.items } : fresh);
    const { recommendationId } = answer;
    const focused = place.querySelector("li:focus-within")?.dataset.item;
    const list = node("ul", "list");
    place.replaceChildren(list);
    answer.items.forEach(({ item }, at) => {
      const entry = node("li", "item");
      entry.dataset.item = item;
      entry.append(api.card(answer.items[at]));
      entry.onclick = () => recommendationId && event("click", { item, position: at + 1, recommendationId });
      list.append(entry);
      if (item === focused) entry.firstChild.focus();
    });
    if (!again && recommendationId) seen(place, answer);
  };

  /* Show suggestions in an element. What is in it stays when no answer comes in time; a late one is not shown. */
  const show = (place, items, options) => {
    const turn = (place.turn = (place.turn || 0) + 1);
    const late = new Promise((_, fail) => setTimeout(fail, patience));
    return Promise.race([api.basket(items, { k: Number(place.dataset.k || 4), ...options }), late]).then(
      (answer) => {
        if (turn === place.turn) draw(place, answer);
        return answer;
      },
      () => null,
    );
  };

  const api = (window.coterie = { basket, similar, popular, event, show, card, ...window.coterie });
  const listed = (place) => (place.dataset.items || "").split(",").filter(Boolean);
  const start = () => document.querySelectorAll("[data-coterie]").forEach((place) => show(place, listed(place)));
  document.readyState === "loading" ? addEventListener("DOMContentLoaded", start) : start();
})();
