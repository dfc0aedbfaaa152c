// When to try again: exponential backoff with jitter, so that many players do not come back in the same moment.

const FIRST_MS = 1000;
const LONGEST_MS = 20000;

// attempt: 0 for the first new try. random: from 0 to 1. Gives milliseconds, from half of the step to all of it.
export function delayMs(attempt, random = Math.random()) {
  const step = Math.min(LONGEST_MS, FIRST_MS * 2 ** attempt);
  return step / 2 + random * (step / 2);
}
