// What Gradio's parts do not say to a screen reader. The live region must exist before its words change.
(() => {
  const live = { role: "status", "aria-live": "polite", "aria-atomic": "true" };
  const region = (name) => ({ role: "region", "aria-label": name });
  const attributes = {
    status: live, "edit-status": live, "style-status": live, "say-status": live, "find-status": live,
    "why-status": live,
    question: region("Your sound"), "edit-question": region("Your sound and picture"),
    "style-question": region("Your sound and words"),
    "say-question": region("What you say"), "find-question": region("What you look for"),
    "why-question": region("Your sound and picture"),
    answer: region("What came of it"), "edit-answer": region("What came of it"),
    "style-answer": region("What came of it"), "say-answer": region("What came of it"),
    "find-answer": region("What came of it"), "why-answer": region("What came of it"),
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
