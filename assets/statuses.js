// At each part of an answer, and twice a second besides, Gradio tells every component that any event ever read or changed
// how that event stands, and copies all that the component holds to do so: 20 to 90 ms each time, in which no click is
// heard. Who shows no such signs need not be told. Runs before Gradio's own script; where Gradio keeps its statuses
// otherwise, nothing is changed.
(() => {
  const entries = Object.entries;

  const isShown = ([, status]) => status.show_progress !== "hidden";

  Object.entries = (of) => (isStatuses(of) ? entries(of).filter(isShown) : entries(of));

  /** Whether `of` is Gradio's record of how the events of each component stand. */
  function isStatuses(of) {
    for (const name in of) {
      const first = of[name];
      return Boolean(first) && typeof first === "object" && "show_progress" in first && "fn_index" in first;
    }
    return false;
  }
})();
