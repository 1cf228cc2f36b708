// The playground: asks, shows the text as it comes, and puts the heat map in its place when it comes with the receipt.

import { attach } from "./heatmap_panel.js";

const root = document.getElementById("playground");
const form = root.querySelector("form");
const { ask, stop } = form.elements;
const part = Object.fromEntries(
  ["answer-panel", "state", "progress", "failure", "stream", "result", "colours", "told"].map((id) => [
    id, document.getElementById(id),
  ]),
);
let running = null;

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  if (running) return;
  running = new AbortController();
  const answer = { id: null, tokens: 0, isDone: false, error: null };
  begin();
  try {
    const response = await fetch(root.dataset.answer, {
      method: "POST",
      headers: { "Content-Type": "application/json", "X-CSRF-Token": root.dataset.csrf },
      body: JSON.stringify({
        prompt: form.elements.prompt.value,
        max_tokens: form.elements.max_tokens.valueAsNumber,
        temperature: form.elements.temperature.valueAsNumber,
        ...(form.elements.model && { model: form.elements.model.value }),
      }),
      signal: running.signal,
    });
    if (!response.ok) throw new Error(await refusal(response));
    for await (const { name, data } of events(response.body)) take(answer, name, data);
    if (answer.error) end("bad", "failed", answer.error);
    else if (answer.isDone) end("good", "finished", `The answer is complete: ${answer.tokens} tokens.`);
    else broken(answer);
  } catch (error) {
    if (running.signal.aborted) stopped(answer);
    else if (answer.id) broken(answer);
    else end("bad", "failed", error instanceof TypeError ? "The service cannot be reached." : error.message);
  } finally {
    running = null;
    ask.disabled = false;
    stop.disabled = true;
  }
});

stop.addEventListener("click", () => running?.abort());

form.elements.prompt.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
});

function begin() {
  ask.disabled = true;
  stop.disabled = false;
  part["answer-panel"].hidden = false;
  part.stream.hidden = false;
  part.colours.hidden = false;
  part.failure.hidden = true;
  part.stream.replaceChildren();
  part.result.replaceChildren();
  part.progress.textContent = "";
  part.told.textContent = "";
  mark("", "waiting");
}

function take(answer, name, data) {
  if (data === "[DONE]") {
    answer.isDone = true;
    return;
  }
  const document_ = JSON.parse(data);
  if (name === "map") {
    showMap(document_.html);
    return;
  }
  if (document_.error) {
    answer.error = sentence(document_.error.message);
    return;
  }
  answer.id = document_.id;
  for (const { delta } of document_.choices) {
    if (delta.content) {
      mark("", "answering");
      part.stream.append(delta.content);
      answer.tokens += 1;
    }
    if (delta.attribution) mark("", "colouring");
  }
  if (document_.usage) answer.tokens = document_.usage.completion_tokens;
  part.progress.textContent = answer.tokens ? `${answer.tokens} tokens` : "";
}

// The map is made of the service's own template, which escapes whatever a model says.
function showMap(html) {
  part.result.innerHTML = html;
  part.result.querySelectorAll("[data-heatmap]").forEach(attach);
  part.stream.hidden = part.result.querySelector("[data-heatmap]") !== null;
  part.colours.hidden = true;
}

function stopped(answer) {
  part.colours.hidden = true;
  end("warn", "stopped", "What was generated until then is credited, and will be in the books in a moment.");
  if (answer.id) linkTo(answer.id);
}

function broken(answer) {
  part.colours.hidden = true;
  end("bad", "broken off", "The connection broke off before the end. What was generated until then is credited.");
  linkTo(answer.id);
}

function linkTo(id) {
  const line = document.createElement("p");
  const link = document.createElement("a");
  link.href = root.dataset.responses + encodeURIComponent(id);
  link.textContent = "See its receipt";
  line.append(link);
  part.result.replaceChildren(line);
}

function end(kind, word, told) {
  mark(kind, word);
  if (kind === "bad") {
    part.failure.textContent = told;
    part.failure.hidden = false;
    part.colours.hidden = true;
    part.stream.hidden = part.stream.textContent === "";
  } else {
    part.told.textContent = kind === "warn" ? `Stopped. ${told}` : told;
    if (kind === "warn") part.progress.textContent = told;
  }
}

function mark(kind, word) {
  part.state.className = `state ${kind}`;
  part.state.textContent = word;
}

// What a page of the console says is wrong, with when to come back.
async function refusal(response) {
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  const told = page.querySelector(".lead")?.textContent ?? `The service answered with status ${response.status}.`;
  const seconds = Number(response.headers.get("Retry-After"));
  return seconds ? `${told} Try again in ${seconds} s.` : told;
}

function sentence(text) {
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}.`;
}

async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const event = { name: "message", data: "" };
      for (const line of block.split("\n")) {
        if (line.startsWith("event: ")) event.name = line.slice(7);
        if (line.startsWith("data: ")) event.data += line.slice(6);
      }
      yield event;
    }
  }
}
