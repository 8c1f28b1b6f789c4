// What ipywidgets leaves out: names of groups, and news that a screen reader hears. The
// field beside a slider is its control for the keyboard.
function names(name, tries = 600) {
  const box = document.querySelector(`.${name}`);
  const said = box?.querySelector(".mtmm-said .widget-html-content");
  if (!said) return tries && setTimeout(() => names(name, tries - 1), 100);
  said.setAttribute("role", "status");
  box.querySelectorAll(".noUi-handle").forEach(handle => {
    handle.tabIndex = -1;
    handle.closest(".slider-container").setAttribute("aria-hidden", "true");
  });
  box.querySelectorAll(".widget-radio").forEach((group, place) => {
    group.setAttribute("role", "radiogroup");
    group.setAttribute("aria-label", group.querySelector("label").textContent);
    group.querySelectorAll("input").forEach(button => {
      button.name = `${name}-${place}`;
    });
  });
}
