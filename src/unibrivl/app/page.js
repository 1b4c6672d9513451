// What Gradio's parts do not say to a screen reader. The live region must exist before its words change.
(() => {
  const attributes = {
    status: { role: "status", "aria-live": "polite", "aria-atomic": "true" },
    question: { role: "region", "aria-label": "Your sound" },
    answer: { role: "region", "aria-label": "What came of it" },
  };
  const mark = () => {
    for (const [id, wanted] of Object.entries(attributes)) {
      const element = document.getElementById(id);
      if (!element) continue;
      for (const [name, value] of Object.entries(wanted)) {
        if (element.getAttribute(name) !== value) element.setAttribute(name, value);
      }
    }
  };
  new MutationObserver(mark).observe(document.documentElement, { childList: true, subtree: true });
})();
