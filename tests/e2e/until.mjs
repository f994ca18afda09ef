// Waiting for a condition, with a deadline and a reason to print when it passes.
import { setTimeout as delay } from 'node:timers/promises';

const POLL_MS = 20;

export class DeadlinePassed extends Error {}

/**
 * Asks `condition` until it answers something truthy, and answers that. `missing` is a function that says what is still missing
 * when `withinMs` have passed.
 */
export async function until(condition, withinMs, missing) {
  const deadline = performance.now() + withinMs;
  for (;;) {
    const answer = await condition();
    if (answer) return answer;
    if (performance.now() > deadline) throw new DeadlinePassed(`after ${withinMs} ms: ${await missing()}`);
    await delay(POLL_MS);
  }
}

/** Lets `ms` pass: for promises about time itself ("three times expire"), never to wait for something to happen. */
export function elapse(ms) {
  return delay(ms);
}
