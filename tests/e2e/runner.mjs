// Runs cases by name and says what came of each: `CASES` is `{ name: async ({ binary, ctl, hooked }) => words }`.
import { existsSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const REPOSITORY = fileURLToPath(new URL('../..', import.meta.url));

/** Runs those whose name contains `word`, and ends the process with what came of it. */
export async function runCases(CASES, word = '') {
  const binary = resolve(process.env.SHARDGATE_BIN || join(REPOSITORY, 'target/sim/shardgate'));
  const ctl = resolve(process.env.SHARDGATECTL_BIN || join(REPOSITORY, 'target/sim/shardgatectl'));
  const hooked = process.env.SHARDGATE_BIN_TEST_HOOKS ? resolve(process.env.SHARDGATE_BIN_TEST_HOOKS) : undefined;
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
    // process.mjs kills every child on exit.
    process.on(signal, () => process.exit(130));
  }
  let [passed, failed, skipped] = [0, 0, 0];
  for (const file of [binary, ctl]) {
    if (existsSync(file)) continue;
    failed += 1;
    console.log(`not ok - start: ${file} does not exist`);
  }
  for (const [name, body] of failed ? [] : Object.entries(CASES)) {
    if (!name.includes(word)) {
      skipped += 1;
      continue;
    }
    const began = performance.now();
    const seconds = () => ((performance.now() - began) / 1000).toFixed(1);
    try {
      const told = await body({ binary, ctl, hooked });
      passed += 1;
      console.log(`ok - ${name} (${seconds()} s)${told ? `\n     ${told}` : ''}`);
    } catch (error) {
      failed += 1;
      console.log(`not ok - ${name} (${seconds()} s): ${error.stack}`);
    }
  }
  console.log(`${passed} passed, ${failed} failed, ${skipped} skipped${skipped ? `: by the word ${word}` : ''}`);
  process.exit(failed ? 1 : 0);
}
