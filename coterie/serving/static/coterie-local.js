/* Suggestions while the basket stays here: the model comes. Before coterie.js, whose questions it answers:
   <script src="…/static/coterie-local.js" data-key="cpk_…" data-signer="FINGERPRINT" defer></script> */
(() => {
  "use strict";
  const script = document.currentScript;
  const base = new URL(script.src).origin + "/v1/model/browser";
  const { key, signer } = script.dataset;

  const fail = (what) => {
    throw new Error("coterie: " + what);
  };

  const get = async (path) => {
    const headers = key ? { Authorization: "Bearer " + key } : {};
    const reply = await fetch(base + path, { headers, credentials: "omit" });
    return reply.ok ? reply.arrayBuffer() : fail(reply.status);
  };

  const bytes = (hex) => Uint8Array.from(hex.match(/../g), (pair) => parseInt(pair, 16));
  const sha256 = async (content) => {
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", content));
    return Array.from(digest, (one) => one.toString(16).padStart(2, "0")).join("");
  };

  /* The manifest as it was signed: without white space and signature. */
  const checked = async (text) => {
    const whole = text.replace(/("(?:[^"\\]|\\.)*")|\s+/g, "$1");
    const [cut, signature] = whole.match(/,"signature":"([0-9a-f]{128})"/) || fail("no signature");
    const content = whole.replace(cut, "");
    const manifest = JSON.parse(content);
    if (!signer) return manifest;
    const raw = bytes(manifest.public_key);
    const names = [manifest.public_key, (await sha256(raw)).slice(0, 32)];
    if (!names.includes(signer.toLowerCase())) fail("signed by another key");
    const { subtle } = crypto;
    const unknown = () => fail("this browser knows no Ed25519");
    const own = await subtle.importKey("raw", raw, "Ed25519", false, ["verify"]).catch(unknown);
    const holds = await subtle.verify("Ed25519", own, bytes(signature), new TextEncoder().encode(content));
    return holds ? manifest : fail("wrong signature");
  };

  const text = (content) => new TextDecoder().decode(content);
  const load = async () => {
    const manifest = await checked(text(await get("")));
    const [[name, digest]] = Object.entries(manifest.files);
    const content = await get("/" + name);
    if ((await sha256(content)) !== digest) fail("wrong digest");
    const [n, entries, width, texts] = new Uint32Array(content, 8, 4);
    let at = 24;
    const take = (type, count) => {
      const part = new type(content, at, count);
      at += part.byteLength;
      return part;
    };
    const model = {
      manifest,
      steps: take(Float32Array, 2),
      ptr: take(Uint32Array, n + 1),
      step: take(Float32Array, n),
      item: take(width === 2 ? Uint16Array : Uint32Array, entries),
      value: take(Int8Array, entries),
      popular: take(Int8Array, n),
      added: take(Int8Array, n),
      ...JSON.parse(text(take(Uint8Array, texts))),
    };
    model.place = new Map(model.ids.map((id, i) => [id, i]));
    return model;
  };

  let loading;
  const ready = () => (loading ||= load().catch((error) => ((loading = null), Promise.reject(error))));

  const scored = ({ steps, ptr, step, item, value, popular, added }, basket) => {
    if (!basket.length) return Float32Array.from(popular, (one) => one * steps[0]);
    const scores = Float32Array.from(added, (one) => one * steps[1]);
    for (const i of basket) for (let e = ptr[i]; e < ptr[i + 1]; e++) scores[item[e]] += step[i] * value[e];
    return scores;
  };

  /* As POST /v1/recommend/basket answers. */
  const basket = async (items, options) => {
    const { k = 10, exclude = [], includeOnly, ...others } = options || {};
    for (const name in others) fail(`no '${name}' without the server`);
    const model = await ready();
    const asked = [...new Set(items.map((one) => one.item || one))];
    const known = asked.map((id) => model.place.get(id)).filter((i) => i >= 0);
    const scores = scored(model, known);
    const out = new Set([...asked, ...exclude]);
    const only = includeOnly && new Set(includeOnly);
    const best = [];
    model.ids.forEach((item, j) => {
      const score = scores[j];
      if (best.length >= k && score <= best[k - 1].score) return;
      if (out.has(item) || (only && !only.has(item))) return;
      const more = window.coterie.about?.(item);
      if (more?.stock === 0) return;
      let to = best.length;
      while (to && best[to - 1].score < score) to--;
      best.splice(to, 0, { title: model.titles[j] || item, ...more, item, score });
      best.length = Math.min(best.length, k);
    });
    return {
      recommendationId: null,
      items: best,
      unknown: asked.filter((id) => !model.place.has(id)),
      fallback: known.length ? null : model.manifest.empty_basket,
      personal: false,
    };
  };

  const similar = (item, options) => basket([item], options);
  window.coterie = Object.assign(window.coterie || {}, { basket, similar, ready });
  ready().catch((error) => console.warn(error.message));
})();
