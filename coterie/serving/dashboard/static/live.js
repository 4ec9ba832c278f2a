// Keeps the overview current by server-sent events. Without them the page shows what was so when it was loaded.
"use strict";
(() => {
  const place = document.getElementById("now");
  const pulse = document.getElementById("pulse");
  if (!place || !window.EventSource) return;

  const say = (text) => {
    if (pulse.textContent !== text) pulse.textContent = text; // once: screen readers read it out
    pulse.hidden = false;
  };
  // A reader who is inside is not disturbed: what has the focus, or is selected, is not replaced.
  const busy = () => place.contains(document.activeElement) || (!getSelection().isCollapsed && place.contains(getSelection().anchorNode));

  const source = new EventSource("/dashboard/live");
  source.addEventListener("overview", (event) => {
    if (busy()) return;
    place.innerHTML = JSON.parse(event.data);
    say("This page follows by itself.");
  });
  source.addEventListener("open", () => say("This page follows by itself."));
  source.addEventListener("error", () => say("The service does not answer; this page shows what was so before, and tries again."));
  addEventListener("pagehide", () => source.close());
})();
