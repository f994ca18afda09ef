#!/usr/bin/env node
// People meet through shardgate on real Prosody shards: three nodes of the real binary in two regions, three shards, real XMPP
// clients over WebSocket and BOSH.
//
//   SHARDGATE_BIN=…                 the binary under test (default: target/sim/shardgate)
//   SHARDGATE_BIN_TEST_HOOKS=…      the same, built with the cargo feature `test-hooks`
//   SHARDGATECTL_BIN=…              its operator's side (default: target/sim/shardgatectl)
//   node run.mjs [WORD]             only the cases whose name contains WORD
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { mustRun } from '../process.mjs';
import { Shard } from './prosody.mjs';
import { Mesh } from '../mesh.mjs';
import { Network } from '../network.mjs';

const HERE = fileURLToPath(new URL('.', import.meta.url));
const BINARY = resolve(process.env.SHARDGATE_BIN || join(HERE, '../../../target/sim/shardgate'));
const CTL = resolve(process.env.SHARDGATECTL_BIN || join(HERE, '../../../target/sim/shardgatectl'));
const HOOKED_BINARY = process.env.SHARDGATE_BIN_TEST_HOOKS && resolve(process.env.SHARDGATE_BIN_TEST_HOOKS);
const RELEASE = 'release-1';
const LOCK_PORT = 5000;
const INSTALL_MS = 180_000;

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
  // process.mjs kills every child on exit.
  process.on(signal, () => process.exit(130));
}

// For example from a callback of the client library; process.mjs's exit handler still applies.
process.on('uncaughtException', (error) => {
  console.log(`not ok - runner: ${error.stack}`);
  process.exit(summary({ passed: 0, failed: 1, skipped: 0 }));
});

process.exitCode = await main();

async function main() {
  const missing = [BINARY, CTL].find((file) => !existsSync(file));
  if (missing) {
    console.log(`not ok - start: ${missing} does not exist`);
    return summary({ passed: 0, failed: 1, skipped: 0 });
  }
  await install();
  const folder = mkdtempSync(join(tmpdir(), 'shardgate-e2e-'));
  mkdirSync(join(folder, 'logs'));
  const block = await ownAddresses();
  const counts = { passed: 0, failed: 0, skipped: 0 };
  let world;
  try {
    world = await start(folder, block.prefix);
    await runCases(world, counts);
  } catch (error) {
    counts.failed += 1;
    console.log(`not ok - start: ${error.stack}`);
  } finally {
    await world?.stop();
    block.release();
  }
  if (counts.failed === 0) rmSync(folder, { recursive: true });
  else console.log(`# logs of all shards and nodes: ${join(folder, 'logs')}`);
  return summary(counts);
}

function summary({ passed, failed, skipped }) {
  console.log(`${passed} passed, ${failed} failed, ${skipped} skipped`);
  return failed === 0 && passed > 0 ? 0 : 1;
}

/** Prosody from Debian, the client libraries from npm; each only when it is missing. */
async function install() {
  await mustRun('sh', [join(HERE, 'install.sh')], { withinMs: INSTALL_MS });
  const stamp = join(HERE, 'node_modules', '.installed');
  const wanted = createHash('sha256').update(readFileSync(join(HERE, 'package-lock.json'))).digest('hex');
  if (existsSync(stamp) && readFileSync(stamp, 'utf8') === wanted) return;
  await mustRun('npm', ['ci', '--ignore-scripts', '--no-audit', '--no-fund'], { cwd: HERE, withinMs: INSTALL_MS });
  writeFileSync(stamp, wanted);
}

/** The first 127.31.N.0/24 that no other run uses; it stays taken as long as its lock listens. */
async function ownAddresses() {
  for (let n = 1; n < 255; n += 1) {
    const lock = createServer().listen(LOCK_PORT, `127.31.${n}.254`);
    try {
      await once(lock, 'listening');
      return { prefix: `127.31.${n}`, release: () => lock.close() };
    } catch (error) {
      if (error.code !== 'EADDRINUSE') throw error;
    }
  }
  throw new Error('every 127.31.N.0/24 is used by another run');
}

async function start(folder, prefix) {
  const shards = [
    { name: 'shard-a1', region: 'region-a' },
    { name: 'shard-a2', region: 'region-a' },
    { name: 'shard-b1', region: 'region-b' },
  ].map((shard, i) => new Shard({ ...shard, id: i + 1, ip: `${prefix}.${i + 1}`, folder }));
  const nodesFrom = (first) =>
    [
      { name: 'proxy-a1', region: 'region-a' },
      { name: 'proxy-a2', region: 'region-a' },
      { name: 'proxy-b1', region: 'region-b' },
    ].map((node, i) => ({ ...node, ip: `${prefix}.${first + i}` }));
  const meshes = [];
  const startMesh = async (mesh) => {
    meshes.push(mesh);
    await mesh.start();
    return mesh;
  };
  const stop = async () => {
    await Promise.all(meshes.map((mesh) => mesh.stop()));
    await Promise.all(shards.map((shard) => shard.process?.stop()));
  };
  const common = { folder, shards, release: RELEASE };
  try {
    await Promise.all(shards.map((shard) => shard.start()));
    const mesh = await startMesh(new Mesh({ ...common, name: 'mesh', binary: BINARY, nodes: nodesFrom(11) }));
    const hooked =
      HOOKED_BINARY &&
      ((hook) => startMesh(new Mesh({ ...common, name: 'hooked', binary: HOOKED_BINARY, hooks: [hook], nodes: nodesFrom(21) })));
    // Nodes that can be cut off from each other; stop them with the case.
    const network = (nodes, options) => {
      const all = nodes.map((node, i) => ({ ...node, ip: `${prefix}.${31 + i}` }));
      return startMesh(new Network({ ...common, ...options, name: 'network', binary: BINARY, ctl: CTL, nodes: all, doorOf: (n) => `${prefix}.${41 + n}` }));
    };
    return { shards, mesh, hooked, network, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

async function runCases(world, counts) {
  // Only now: these import the client libraries, which `install` may just have fetched.
  const { cases } = await import('./cases/index.mjs');
  const { Crowd } = await import('./meeting.mjs');
  const word = process.argv[2] ?? '';
  for (const [name, body] of Object.entries(cases)) {
    if (!name.includes(word)) {
      counts.skipped += 1;
      continue;
    }
    const crowd = new Crowd();
    const began = performance.now();
    try {
      const told = await body({ ...world, crowd });
      await crowd.leave();
      world.mesh.mustRun();
      counts.passed += 1;
      console.log(`ok - ${name} (${Math.round(performance.now() - began)} ms)${told ? `\n     ${told}` : ''}`);
    } catch (error) {
      counts.failed += 1;
      console.log(`not ok - ${name}: ${error.message}`);
      await crowd.leave().catch((problem) => console.log(`# and then: ${problem.message}`));
    }
  }
}
