// The playground with a script: a combobox (ARIA authoring practices: list autocomplete with manual selection),
// a cart that changes in place, suggestions that follow it. Without it, the same page is a plain form.
"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const form = byId("cart-form"), input = byId("q"), combo = byId("combo"), cart = byId("cart");
  const place = byId("suggestions"), said = byId("said");
  const make = (tag, attributes = {}, ...content) => {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...content);
    return made;
  };

  document.querySelectorAll(".without-script").forEach((one) => one.remove());
  document.querySelectorAll(".with-script").forEach((one) => { one.hidden = false; });

  // --- suggestions ----------------------------------------------------------------------------------------------------
  const fields = () => {
    const found = {};
    for (const [name, value] of new FormData(form)) if (name !== "q") (found[name] ??= []).push(value);
    return found;
  };
  let asked = 0;
  const suggest = async () => {
    const mine = ++asked;
    place.setAttribute("aria-busy", "true");
    try {
      const answer = await fetch("/dashboard/suggest", { method: "POST", headers: { "Content-Type": "application/json", Accept: "text/html" }, body: JSON.stringify(fields()) });
      if (answer.redirected || answer.status === 401) { location.reload(); return; }
      const content = await answer.text();
      if (mine !== asked) return; // a later cart has been asked for
      if (!answer.ok) throw new Error(String(answer.status));
      place.innerHTML = content; // rendered and escaped by the server
      const first = place.querySelector(".title")?.textContent;
      said.textContent = (byId("told")?.textContent ?? "") + (first ? ` First: ${first}.` : "");
    } catch {
      if (mine === asked) said.textContent = "The service does not answer; the suggestions shown are of the cart before.";
    } finally {
      if (mine === asked) place.removeAttribute("aria-busy");
    }
  };
  let waiting;
  const suggestSoon = () => { clearTimeout(waiting); waiting = setTimeout(suggest, 150); };

  // --- the cart ---------------------------------------------------------------------------------------------------------
  const shown = () => {
    const empty = !cart.children.length;
    byId("cart-empty").hidden = !empty;
    byId("empty").hidden = empty;
  };
  const add = (id, title) => {
    if ([...cart.children].some((one) => one.dataset.id === id)) return;
    const row = make("li", { "data-id": id }, make("span", {}, title, make("small", {}, id)),
      make("input", { type: "hidden", name: "item", value: id }),
      make("button", { class: "quiet small", name: "remove", value: id, "aria-label": `Remove ${title}` }, "Remove"));
    cart.append(row);
    shown();
    suggest();
  };
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const button = event.submitter;
    if (button?.name === "add") {
      const title = button.closest("li").querySelector(".title")?.textContent ?? button.value;
      const next = input;
      add(button.value, title);
      next.focus(); // the button goes with the list that it was in
    } else if (button?.name === "remove") {
      const row = button.closest("li"), near = row.nextElementSibling ?? row.previousElementSibling;
      row.remove();
      shown();
      (near?.querySelector("button") ?? input).focus();
      suggest();
    } else if (button?.name === "empty") {
      cart.replaceChildren();
      shown();
      input.focus();
      suggest();
    }
  });
  for (const id of ["k", "diversity"]) byId(id).addEventListener("input", suggestSoon);
  form.querySelector("[name=anything]").addEventListener("change", suggest);

  // --- the combobox -----------------------------------------------------------------------------------------------------
  const list = make("ul", { id: "hits", role: "listbox", "aria-labelledby": "q-label", hidden: "" });
  combo.append(list);
  for (const [name, value] of Object.entries({ role: "combobox", "aria-autocomplete": "list", "aria-controls": "hits", "aria-expanded": "false" }))
    input.setAttribute(name, value);
  let at = -1;
  const close = () => {
    list.hidden = true;
    input.setAttribute("aria-expanded", "false");
    input.removeAttribute("aria-activedescendant");
    at = -1;
  };
  const choose = (to) => {
    const options = list.querySelectorAll("[role=option]");
    if (!options.length) return;
    at = (to + options.length) % options.length;
    options.forEach((one, i) => one.setAttribute("aria-selected", String(i === at)));
    options[at].scrollIntoView({ block: "nearest" });
    input.setAttribute("aria-activedescendant", options[at].id);
  };
  const take = (option) => {
    add(option.dataset.id, option.dataset.title);
    input.value = "";
    close();
  };
  const open = (hits) => {
    list.replaceChildren(...hits.map((hit, i) => {
      const option = make("li", { role: "option", id: `hit-${i}`, "aria-selected": "false" }, make("span", {}, hit.title), make("small", {}, hit.gone ? `${hit.id}, out of stock` : hit.id));
      Object.assign(option.dataset, { id: hit.id, title: hit.title });
      return option;
    }));
    list.hidden = !hits.length;
    input.setAttribute("aria-expanded", String(Boolean(hits.length)));
    input.removeAttribute("aria-activedescendant");
    at = -1;
    said.textContent = hits.length ? `${hits.length} found.` : "Nothing found.";
  };
  let typed = 0, pause;
  const search = async () => {
    const mine = ++typed, query = input.value.trim();
    if (!query) { close(); return; }
    try {
      const answer = await fetch(`/dashboard/search?q=${encodeURIComponent(query)}`, { headers: { Accept: "application/json" } });
      if (!answer.ok) throw new Error(String(answer.status));
      const hits = await answer.json();
      if (mine === typed) open(hits);
    } catch {
      if (mine === typed) { close(); said.textContent = "The search does not answer."; }
    }
  };
  input.addEventListener("input", () => { clearTimeout(pause); pause = setTimeout(search, 120); });
  input.addEventListener("keydown", (event) => {
    const expanded = !list.hidden;
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      if (!expanded) search().then(() => choose(event.key === "ArrowDown" ? 0 : -1));
      else choose(event.key === "ArrowDown" ? at + 1 : at < 0 ? -1 : at - 1);
    } else if (event.key === "Enter") {
      event.preventDefault(); // never the form's first button
      if (expanded) take(list.querySelectorAll("[role=option]")[Math.max(at, 0)]);
    } else if (event.key === "Escape") {
      if (expanded) { event.preventDefault(); close(); } else input.value = "";
    }
  });
  list.addEventListener("mousedown", (event) => event.preventDefault()); // the focus stays in the input
  list.addEventListener("click", (event) => {
    const option = event.target.closest("[role=option]");
    if (option) take(option);
  });
  input.addEventListener("blur", close);
})();
