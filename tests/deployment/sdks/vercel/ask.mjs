// Asks the service by the Vercel AI SDK, whole and streamed, and prints what the SDK made of the answers as JSON.
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { APICallError, generateText, streamText } from "ai";

const [baseURL, apiKey, name] = process.argv.slice(2);
const provider = createOpenAICompatible({ name: "protoken", baseURL, apiKey, includeUsage: true });
const asked = { model: provider(name), prompt: "hello", maxRetries: 0 };
const sampled = { temperature: 0.5, topP: 0.9, frequencyPenalty: 0.1, presencePenalty: 0.1, seed: 7, maxOutputTokens: 9 };

const whole = await generateText({ ...asked, ...sampled, stopSequences: ["never"] });

const pieces = [];
const streamed = streamText({ ...asked, system: "be brief" });
for await (const piece of streamed.textStream) {
  pieces.push(piece);
}

const text = await generateText({ ...asked, model: provider.completionModel(name) });

let refused = null;
try {
  await generateText({ ...asked, model: provider("another") });
} catch (error) {
  refused = APICallError.isInstance(error) ? [error.statusCode, error.isRetryable, error.message] : String(error);
}

const counts = (usage) => [usage.inputTokens, usage.outputTokens, usage.totalTokens];
console.log(
  JSON.stringify({
    whole: [whole.text, whole.finishReason, counts(whole.usage)],
    streamed: [pieces, await streamed.finishReason, counts(await streamed.totalUsage)],
    text: [text.text, text.finishReason],
    refused,
  }),
);
