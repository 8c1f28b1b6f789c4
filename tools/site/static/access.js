// Names and values that the theme and the widgets leave out, for those who listen to the page or have no mouse.
function set(element, name, value) {
  if (element && element.getAttribute(name) !== value) element.setAttribute(name, value);
}

// A slider is called by the words beside it, and has the value that is written after it.
function nameSliders() {
  for (const slider of document.querySelectorAll(".widget-slider")) {
    const readout = slider.querySelector(".widget-readout");
    if (!readout) continue;
    readout.removeAttribute("contenteditable"); // nobody is there to take what is typed
    for (const handle of slider.querySelectorAll(".noUi-handle")) {
      set(handle, "aria-label", slider.querySelector(".widget-label").textContent);
      set(handle, "aria-valuetext", readout.textContent);
    }
  }
}

// What is wider than the page scrolls in its own box, and the keyboard has to get there.
function reachWide() {
  for (const box of document.querySelectorAll("div.math, mjx-container[display], .cell_output, .pst-scrollable-table-container, .highlight pre, .mtmm-code")) {
    if (box.scrollWidth > box.clientWidth) set(box, "tabindex", "0");
    else box.removeAttribute("tabindex");
  }
}

document.addEventListener("DOMContentLoaded", () => {
  for (const arrow of document.querySelectorAll(".toctree-toggle")) {
    const entry = arrow.closest("li").querySelector("a").textContent.trim();
    set(arrow.closest("summary"), "aria-label", `Pages below ${entry}`);
  }
  for (const button of document.querySelectorAll(".search-button-field, .theme-switch-button")) {
    button.removeAttribute("aria-label"); // it hides the words that are there
  }
  const logo = document.querySelector(".navbar-brand.logo")?.parentElement;
  set(logo, "role", "navigation");
  set(logo, "aria-label", "Front page");
  nameSliders();
  new MutationObserver(nameSliders).observe(document.body, {
    subtree: true, childList: true, characterData: true, attributeFilter: ["aria-valuetext"],
  });
  new ResizeObserver(reachWide).observe(document.body);
});
