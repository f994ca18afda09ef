#!/usr/bin/env node
// Real clients against one shardgate with TLS and HTTP/2: curl, nghttp, h2load, openssl, testssl.sh, and Chromium in the mesh of
// `shardgate dev --https`.
//
//   SHARDGATE_BIN=…       the binary under test (default: target/sim/shardgate)
//   node run.mjs [WORD]   only the cases whose name contains WORD
//
// Screenshots, the browser's net log and testssl's findings are left in target/test-logs.
import { existsSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { cases as curl } from './curl.mjs';
import { cases as nghttp } from './nghttp.mjs';
import { cases as openssl } from './openssl.mjs';
import { chatOverHttp2 } from './room.mjs';
import { Site } from './site.mjs';
import { cases as testssl } from './testssl.mjs';

const REPOSITORY = fileURLToPath(new URL('../../..', import.meta.url));
const BINARY = resolve(process.env.SHARDGATE_BIN || join(REPOSITORY, 'target/sim/shardgate'));
const LOGS = join(REPOSITORY, 'target/test-logs');

const CASES = {
  ...curl,
  ...nghttp,
  ...openssl,
  'chromium: two people chat over WebSockets inside HTTP/2': ({ folder, logs }) => chatOverHttp2({ binary: BINARY, folder, logs }),
  ...testssl,
};

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
  // process.mjs kills every child on exit.
  process.on(signal, () => process.exit(130));
}

process.exitCode = await main();

async function main() {
  const counts = { passed: 0, failed: 0, skipped: 0 };
  if (!existsSync(BINARY)) {
    console.log(`not ok - start: SHARDGATE_BIN ${BINARY} does not exist`);
    return summary({ ...counts, failed: 1 });
  }
  mkdirSync(LOGS, { recursive: true });
  const folder = mkdtempSync(join(tmpdir(), 'shardgate-clients-'));
  let site;
  try {
    site = await Site.start(folder, BINARY);
    site.logs = LOGS;
    await runCases(site, counts);
  } catch (error) {
    counts.failed += 1;
    console.log(`not ok - start: ${error.stack}`);
  } finally {
    await site?.stop();
  }
  if (counts.failed === 0) rmSync(folder, { recursive: true });
  else console.log(`# logs: ${folder}`);
  return summary(counts);
}

async function runCases(site, counts) {
  const word = process.argv[2] ?? '';
  for (const [name, body] of Object.entries(CASES)) {
    if (!name.includes(word)) {
      counts.skipped += 1;
      continue;
    }
    const began = performance.now();
    try {
      await body(site);
      site.node.mustRun();
      counts.passed += 1;
      console.log(`ok - ${name} (${Math.round(performance.now() - began)} ms)`);
    } catch (error) {
      counts.failed += 1;
      console.log(`not ok - ${name}: ${error.message}`);
    }
  }
}

function summary({ passed, failed, skipped }) {
  console.log(`${passed} passed, ${failed} failed, ${skipped} skipped`);
  return failed === 0 && passed > 0 ? 0 : 1;
}
