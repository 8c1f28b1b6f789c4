// The first answer to a question counts. By keyboard one passes over choices: the one
// that is left counts.
function judge(id, sections, tries = 50) {
  const box = document.getElementById(id);
  const quizzes = [...box.querySelectorAll(".Quiz")];
  if (!quizzes.length && tries)
    return setTimeout(() => judge(id, sections, tries - 1), 200);
  const right = sections.map(() => null);
  function settle(k, choice) {
    if (right[k] !== null || !choice) return;
    right[k] = choice.dataset.correct === "true";
    if (right.includes(null)) return;
    const read = sections.filter((_, i) => !right[i]).map(name => `“${name}”`);
    const last = read.pop();
    const verdict = !last ? "You may skip this chapter."
      : !read.length ? `You may skip this chapter; only ${last} deserves a look.`
      : `Read ${read.join(", ")} and ${last}.`;
    const count = right.filter(Boolean).length;
    box.querySelector(".mtmm-verdict").textContent =
      `${count} of ${right.length} right at the first go. ${verdict}`;
  }
  quizzes.forEach((quiz, k) => {
    quiz.addEventListener("click",
      event => event.detail && settle(k, event.target.closest(".MCButton")));
    quiz.addEventListener("focusout", event => quiz.contains(event.relatedTarget)
      || settle(k, quiz.querySelector(".correctButton, .incorrectButton")));
  });
}
