// MathJax sets the formulas of the text by itself; widgets ask for theirs through MathJax 2's queue, kept up here.
window.MathJax = {
  tex: { inlineMath: [["$", "$"], ["\\(", "\\)"]] },
  options: {
    ignoreHtmlClass: "tex2jax_ignore|mathjax_ignore|document",
    processHtmlClass: "tex2jax_process|mathjax_process|math",
    enableMenu: false, // it would put each formula into the order of the Tab key
  },
  Hub: { Queue() {} }, // until MathJax is there: it sets the whole page when it comes
  startup: {
    ready() {
      MathJax.startup.defaultReady();
      let last = MathJax.startup.promise;
      MathJax.Hub = { Queue([, , element]) { last = last.then(() => MathJax.typesetPromise([element])); } };
    },
  },
};
