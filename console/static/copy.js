// A button that copies what it stands beside: <button hidden data-copy="id of the text">Copy</button>.
// Without this module, or where the browser refuses, the text is there to be selected.
// One listener for all, so that a button which live.js brings anew works as the one before it did.

function uncover() {
  for (const button of document.querySelectorAll("button[data-copy]")) {
    if (document.getElementById(button.dataset.copy)) button.hidden = false;
  }
}

async function copy(button) {
  const text = document.getElementById(button.dataset.copy);
  if (!text) return;
  const label = button.textContent;
  try {
    await navigator.clipboard.writeText(text.textContent.trim());
    button.textContent = "Copied";
  } catch {
    const range = document.createRange();
    range.selectNodeContents(text);
    getSelection().removeAllRanges();
    getSelection().addRange(range);
    button.textContent = "Selected";
  }
  setTimeout(() => { button.textContent = label; }, 2000);
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-copy]");
  if (button) copy(button);
});
document.addEventListener("live:changed", uncover);
uncover();
