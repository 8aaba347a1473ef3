// What pages do beyond HTML: they follow the chain, copy hashes, and have a slider. Without it they still work.
"use strict";

const PAUSE = 2000; // milliseconds between two looks at the same page
const news = document.querySelector(".news");
const format = new Intl.NumberFormat("en-US");

/* Copying */

function addCopyButtons(root) {
  if (!navigator.clipboard) return;
  for (const code of root.querySelectorAll("[data-copy], td .hash")) {
    const button = document.createElement("button");
    const holder = code.closest("a") || code;
    if (holder.nextElementSibling?.classList.contains("copy")) continue;
    button.type = "button";
    button.className = "copy";
    button.textContent = "copy";
    button.setAttribute("aria-label", `Copy ${code.textContent.slice(0, 8)}…`);
    if (!code.hasAttribute("data-copy")) button.tabIndex = -1; // its own page has one for the keyboard
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(code.textContent);
        button.textContent = "copied";
      } catch {
        button.textContent = "not copied";
      }
      setTimeout(() => { button.textContent = "copy"; }, 1500);
    });
    holder.after(button);
  }
}

/* The slider: it is the number field in another form, and asks for the page when it is let go */

function addSliders(root) {
  for (const form of root.querySelectorAll("form[data-past]")) {
    const field = form.querySelector("input[type=number]");
    const holder = form.querySelector("[data-slider]");
    const slider = holder?.querySelector("input");
    if (!slider || Number(slider.min) >= Number(slider.max)) continue;
    holder.hidden = false;
    slider.addEventListener("input", () => { field.value = slider.value; });
    slider.addEventListener("change", () => form.requestSubmit());
    field.addEventListener("input", () => { slider.value = field.value; });
  }
}

/* Statements that can be clicked into the SQL box */

function addExamples(root) {
  const box = root.querySelector("#statement");
  for (const example of box ? root.querySelectorAll("[data-statement]") : []) {
    example.addEventListener("click", (event) => {
      event.preventDefault();
      box.value = example.dataset.statement;
      box.focus();
    });
  }
  box?.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) box.form.requestSubmit();
  });
}

function prepare(root) {
  addCopyButtons(root);
  addSliders(root);
  addExamples(root);
}

/* Following the chain */

function say(words, kind = "") {
  news.className = `news ${kind}`;
  news.textContent = words;
}

function isBusy(main) {
  const active = document.activeElement;
  if (active && main.contains(active) && active.matches("input, select, textarea")) return true;
  const selection = document.getSelection();
  return Boolean(selection && !selection.isCollapsed && main.contains(selection.anchorNode));
}

// Where the focus is, so that it can be put there again: by id, or by what a link leads to.
function placeOfFocus(main) {
  const active = document.activeElement;
  if (!active || !main.contains(active)) return null;
  if (active.id) return `#${CSS.escape(active.id)}`;
  const path = active.getAttribute("href");
  return path ? `a[href="${CSS.escape(path)}"]` : null;
}

let loadedAt = 0;
let waiting = null;
let html = document.querySelector("main").innerHTML; // as the server sent it

function refresh() {
  if (waiting) return;
  waiting = setTimeout(async () => {
    waiting = null;
    const main = document.querySelector("main");
    if (!main || !main.hasAttribute("data-live")) return;
    if (document.hidden || isBusy(main)) { refresh(); return; }
    loadedAt = Date.now();
    try {
      const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
      if (!(answer.headers.get("content-type") || "").startsWith("text/html")) return;
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const fresh = page.querySelector("main");
      if (!fresh || fresh.innerHTML === html) return;
      if (isBusy(main)) { refresh(); return; }
      html = fresh.innerHTML;
      document.title = page.title;
      const opened = [...main.querySelectorAll("details")].map((item) => item.open);
      const focus = placeOfFocus(main);
      const scrolled = [...main.querySelectorAll(".scroll")].map((item) => item.scrollLeft);
      const [left, top] = [scrollX, scrollY];
      main.replaceWith(document.adoptNode(fresh));
      fresh.querySelectorAll("details").forEach((item, place) => { if (opened[place]) item.open = true; });
      fresh.querySelectorAll(".scroll").forEach((item, place) => { item.scrollLeft = scrolled[place] || 0; });
      prepare(fresh);
      scrollTo(left, top);
      if (focus) fresh.querySelector(focus)?.focus({ preventScroll: true });
    } catch { /* the stream says when the server is back */ }
  }, Math.max(0, loadedAt + PAUSE - Date.now()));
}

let lastBlock = null;

function count(number, thing) {
  return `${format.format(number)} ${thing}${number === 1 ? "" : "s"}`;
}

function follow() {
  let isLost = false;
  const stream = new EventSource("/live");
  stream.addEventListener("open", () => {
    if (isLost) say("The server answers again.");
    isLost = false;
    refresh(); // a block may have come before the stream was open
  });
  stream.addEventListener("error", () => {
    if (!isLost) say("The server does not answer. This page shows what it last knew.", "is-lost");
    isLost = true;
  });
  stream.addEventListener("message", (message) => {
    const event = JSON.parse(message.data);
    if (event.unreachable) {
      say("The database cannot be reached. This page shows what it last knew.", "is-lost");
      isLost = true;
    } else if (event.rollback) {
      const { to, blocks, ops } = event.rollback;
      say(`A rollback: blocks above ${format.format(to)} were undone; ${count(blocks, "block")}, `
        + `${count(ops, "op")}. They are being replaced.`, "is-rollback");
      isLost = false;
    } else if (isLost) {
      say("The database can be reached again.");
      isLost = false;
    } else if (event.block_id !== null && event.block_id !== lastBlock) {
      say(`Block ${format.format(event.block_id)} was taken.`);
    }
    if (event.block_id !== undefined) lastBlock = event.block_id;
    if (!event.unreachable) refresh();
  });
  addEventListener("pagehide", () => stream.close());
  addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });
}

prepare(document);
if (document.querySelector("main[data-live]")) follow();
