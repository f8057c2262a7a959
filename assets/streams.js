// Gradio's streams over connections that do not last: goes on where a gateway cut one off, and asks for one part after
// the other where a gateway holds answers back until they end. app/streams.py keeps what has not come yet. Runs before
// Gradio's own script. What a timer asks is asked again where a request fails.
(() => {
  const STREAMS = /\/gradio_api\/(queue\/data|heartbeat\/[^/]+)$/;
  const END = ": end\n\n";
  const PATIENCE_MS = 3000; // for the first byte, which the server sends at once
  const REFUSED = [400, 401, 403, 404];
  const RUN = /\/gradio_api\/run\/predict$/;
  const AGAIN_MS = [200, 500, 1000];
  const PAUSES_MS = [0, 200, 500, 1000, 2000, 2000]; // between attempts that bring nothing
  const open = new Set();
  const fetch = window.fetch.bind(window);

  window.fetch = (input, init) => {
    if (init?.method === "POST" && RUN.test(String(input)) && isTick(init)) return persistent(input, init);
    const url = input instanceof Request ? new URL(input.url) : null;
    if (!url || input.method !== "GET" || !STREAMS.test(url.pathname)) return fetch(input, init);
    // Not randomUUID: plain http has none.
    const random = crypto.getRandomValues(new Uint8Array(16));
    url.searchParams.set("stream", [...random].map((byte) => byte.toString(16).padStart(2, "0")).join(""));
    const body = new ReadableStream({ start: (sink) => follow(input, url, sink) });
    return Promise.resolve(new Response(body, { headers: { "content-type": "text/event-stream" } }));
  };

  /** Whether the request of `init` is a timer's: of those the server may get two where one was sent. */
  function isTick(init) {
    const asked = typeof init.body === "string" ? /"fn_index":(\d+)/.exec(init.body) : null;
    const found = asked && window.gradio_config.dependencies.find(({ id }) => id === Number(asked[1]));
    return Boolean(found?.targets.length) && found.targets.every(([, event]) => event === "tick");
  }

  /** Gradio takes one request that fails for the end of its server and loads the whole page again: an open dialog would
   * be gone, and whatever else is not kept. */
  async function persistent(input, init) {
    for (const pause of AGAIN_MS) {
      try {
        return await fetch(input, init);
      } catch {
        await new Promise((resolve) => setTimeout(resolve, pause));
      }
    }
    return fetch(input, init);
  }

  async function follow(request, url, sink) {
    const state = { from: 0, poll: false, ended: false, tail: "" };
    open.add(url);
    try {
      for (let failed = 0; !state.ended; ) {
        const before = state.from;
        const refused = await attempt(request, url, sink, state);
        if (request.signal.aborted) throw new DOMException("closed by the page", "AbortError");
        failed = state.from > before || state.quiet ? 0 : failed + 1;
        if (refused || failed >= PAUSES_MS.length) throw new TypeError("the stream is lost");
        // A tab out of sight may wait a minute for any timer, even for one of no time.
        if (PAUSES_MS[failed]) await new Promise((resolve) => setTimeout(resolve, PAUSES_MS[failed]));
      }
      sink.close();
    } catch (error) {
      leave(url);
      sink.error(error);
    } finally {
      open.delete(url);
    }
  }

  /** One connection. Resolves, true when the server knows nothing of the stream, once it has ended in whatever way. */
  async function attempt(request, url, sink, state) {
    const aborting = new AbortController();
    const abort = () => aborting.abort();
    request.signal.addEventListener("abort", abort);
    url.searchParams.set("from", state.from);
    state.poll ? url.searchParams.set("poll", "1") : url.searchParams.delete("poll");
    state.quiet = false;
    // A stream that is gone on with may be silent; only the first connection shows whether bytes get through.
    const first = state.from === 0 && !state.poll;
    const patience = first ? setTimeout(() => ((state.poll = true), abort()), PATIENCE_MS) : 0;
    try {
      const response = await fetch(url, { headers: request.headers, signal: aborting.signal });
      if (REFUSED.includes(response.status)) return true;
      if (!response.ok) return false;
      const reader = response.body.getReader();
      for (let part = await reader.read(); !part.done; part = await reader.read()) {
        clearTimeout(patience);
        state.from += part.value.length;
        state.tail = (state.tail + new TextDecoder("latin1").decode(part.value)).slice(-END.length);
        state.ended = state.tail === END;
        sink.enqueue(part.value);
      }
      state.quiet = true; // ended as it should: an answer without news
    } catch {
      // Cut off: the next attempt goes on from here.
    } finally {
      clearTimeout(patience);
      request.signal.removeEventListener("abort", abort);
    }
    return false;
  }

  function leave(url) {
    url.searchParams.set("leave", "1");
    navigator.sendBeacon(url);
  }

  // Said at once, so that no answer is written for a page that is closed.
  addEventListener("pagehide", () => open.forEach(leave));
})();
