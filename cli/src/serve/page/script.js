"use strict";
// Puts what is new into the parts of the page that change by themselves. Everything else works without it.

const local = (root) => {
  for (const time of root.querySelectorAll("time[datetime]")) {
    const at = new Date(time.dateTime);
    if (!Number.isNaN(at.getTime())) {
      time.textContent = at.toLocaleString(undefined, { dateStyle: "short", timeStyle: "medium" });
      time.title = time.dateTime;
    }
  }
};
local(document);

const live = document.body.dataset.live;
if (live && "EventSource" in window) {
  const lost = document.getElementById("lost");
  const source = new EventSource(live);
  source.onopen = () => { lost.hidden = true; };
  source.onerror = () => { lost.hidden = false; };
  source.onmessage = (event) => {
    const { id, html } = JSON.parse(event.data);
    const place = document.getElementById(id);
    if (!place) return;
    const active = document.activeElement;
    const inside = active && active !== place && place.contains(active);
    // Nobody's typing is thrown away.
    if (inside && active.matches("input, textarea, select")) return;
    const focused = inside ? active.id : "";
    const scrolled = [...place.querySelectorAll(".scroll")].map((part) => part.scrollLeft);
    place.innerHTML = html;
    local(place);
    place.querySelectorAll(".scroll").forEach((part, at) => { part.scrollLeft = scrolled[at] || 0; });
    if (focused) document.getElementById(focused)?.focus();
  };
  // A page that is left does not keep its connection.
  window.addEventListener("pagehide", () => source.close());
}
