// Hands what is pressed to the kernel, and shows its answers, as long as a run goes on.
function play(name) {
  const box = document.getElementById(name);
  const form = box.querySelector("form");
  const buttons = form.querySelectorAll("button");
  let going = false, wanted = null;
  form.querySelectorAll(".mtmm-number").forEach(row => {
    const [field, slider] = row.querySelectorAll("input");
    const log = "log" in slider.dataset;
    slider.addEventListener("input", () => {
      const value = Number(slider.value);
      field.value = Number((log ? 10 ** value : value).toPrecision(3));
      if (field.step === "1") field.value = Math.round(field.value);
    });
    field.addEventListener("change", () => {
      field.value = Math.min(field.max, Math.max(field.min, field.value));
      slider.value = log ? Math.log10(field.value) : field.value;
    });
  });
  function values() {
    const fields = [...form.querySelectorAll("input[name]")];
    return Object.fromEntries(fields
      .filter(field => field.type !== "radio" || field.checked)
      .map(field => [field.name,
        Number(field.type === "checkbox" ? field.checked : field.value)]));
  }
  async function ask(action) {
    const kernel = window.google?.colab?.kernel;
    if (!kernel?.accessAllowed) {
      box.querySelector(".mtmm-said").className = "mtmm-soft";
      box.querySelector("[role=status]").textContent = "Run this cell first.";
      return;
    }
    going = true;
    const result = await kernel.invokeFunction(name, [action, values()], {});
    const told = result.data["application/json"];
    going = told.going;
    for (const part of ["state", "picture", "words", "said"])
      box.querySelector(`.mtmm-${part}`).innerHTML = told[part];
    dim();
    const next = wanted;
    wanted = null;
    if (going) ask(next ?? "go on");
  }
  function dim() {
    for (const button of buttons)
      button.classList.toggle("mtmm-off", (button.name === "stop") !== going);
  }
  buttons.forEach(button => button.addEventListener("click", () => {
    if (going) wanted = button.name; else ask(button.name);
  }));
  form.addEventListener("submit", event => event.preventDefault());
  dim();
}
