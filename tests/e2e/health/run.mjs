#!/usr/bin/env node
// Shards that fail, drain and return, in front of several real nodes: what conferences notice of it, in numbers.
//
//   SHARDGATE_BIN=…       the binary under test (default: target/sim/shardgate)
//   SHARDGATECTL_BIN=…    its operator's side (default: target/sim/shardgatectl)
//   node run.mjs [WORD]   only the cases whose name contains WORD
import { existsSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { CASES } from './cases.mjs';

const REPOSITORY = fileURLToPath(new URL('../../..', import.meta.url));
const binary = resolve(process.env.SHARDGATE_BIN || join(REPOSITORY, 'target/sim/shardgate'));
const ctl = resolve(process.env.SHARDGATECTL_BIN || join(REPOSITORY, 'target/sim/shardgatectl'));

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
const word = process.argv[2] ?? '';
for (const [name, body] of failed ? [] : Object.entries(CASES)) {
  if (!name.includes(word)) {
    skipped += 1;
    continue;
  }
  const began = performance.now();
  const seconds = () => ((performance.now() - began) / 1000).toFixed(1);
  try {
    const told = await body({ binary, ctl });
    passed += 1;
    console.log(`ok - ${name} (${seconds()} s)${told ? `\n     ${told}` : ''}`);
  } catch (error) {
    failed += 1;
    console.log(`not ok - ${name} (${seconds()} s): ${error.stack}`);
  }
}
console.log(`${passed} passed, ${failed} failed, ${skipped} skipped${skipped ? `: by the word ${word}` : ''}`);
process.exit(failed ? 1 : 0);
