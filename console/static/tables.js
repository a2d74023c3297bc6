// Of the tables: folding the filters, choosing every row of a page, and going on by itself while something is done
// about many rows.
// Everything works without it too.

const all = document.querySelector("[data-choose-all]");
const boxes = [...document.querySelectorAll('input[type="checkbox"][name="id"]')];

function count() {
  const chosen = boxes.filter((box) => box.checked).length;
  const told = document.querySelector("[data-chosen]");
  if (told) told.textContent = chosen ? `${chosen} chosen` : "";
  if (all) {
    all.checked = chosen > 0 && chosen === boxes.length;
    all.indeterminate = chosen > 0 && chosen < boxes.length;
  }
}

all?.closest("label").removeAttribute("hidden");
all?.addEventListener("change", () => {
  for (const box of boxes) box.checked = all.checked;
  count();
});
for (const box of boxes) box.addEventListener("change", count);
count();

// On a telephone the filters would stand before every row: they are folded until somebody wants them. How wide a
// telephone is says the style, so that turning it needs no script.
const sieve = document.querySelector(".sieve");
const unfold = sieve?.querySelector("[data-unfold]");
if (unfold) {
  sieve.classList.add("is-folded");
  unfold.removeAttribute("hidden");
  unfold.addEventListener("click", () => {
    const isFolded = sieve.classList.toggle("is-folded");
    unfold.setAttribute("aria-expanded", String(!isFolded));
  });
}

const onward = document.querySelector("form[data-onward]");
if (onward) setTimeout(() => onward.requestSubmit(), 400);
