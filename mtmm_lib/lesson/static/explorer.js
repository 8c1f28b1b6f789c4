// Shows the point's frame, which is found by counting as through nested loops.
function explorer(id, options) {
  const box = document.getElementById(id);
  const controls = [...box.querySelectorAll("input, select")];
  const frames = [...box.querySelectorAll("img")];
  function show() {
    let at = 0;
    controls.forEach((control, k) => {
      at = at * options[k].length + Number(control.value);
      if (control.type !== "range") return;
      control.setAttribute("aria-valuetext", options[k][control.value]);
      control.nextElementSibling.textContent = options[k][control.value];
    });
    frames.forEach((frame, i) => { frame.style.display = i === at ? "" : "none"; });
  }
  controls.forEach(control => control.addEventListener("input", show));
  show();
}
