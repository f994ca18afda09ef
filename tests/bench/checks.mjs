#!/usr/bin/env node
// What checks cost: 500 shards, each asked once a second, on one node. CPU of the thread that asks, and the latency of requests with and
// without checks, round by round in turns in one process: the configuration is changed while it runs.
//
//   tests/bench/run checks [--rounds N] [--seconds S] [--smoke]
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { Child, mustRun } from '../e2e/process.mjs';
import { until } from '../e2e/until.mjs';

const NET = '127.89';
const NODE = `${NET}.0.1`;
const PORT = 8000;
const ADMIN = 8405;
const SHARD_PORT = 8443;
const SHARDS = 500;
/** What is wanted: of one core, and of the p99 without checks. */
const CORE_MAX = 0.05;
const P99_MAX = 1.1;
/** Ticks a second of /proc/PID/stat. */
const HZ = 100;

const args = process.argv.slice(2);
const smoke = args.includes('--smoke');
const option = (name, usual) => (args.includes(name) ? Number(args[args.indexOf(name) + 1]) : usual);
const rounds = option('--rounds', smoke ? 1 : 7);
const seconds = option('--seconds', smoke ? 2 : 6);
const binary = process.env.SHARDGATE_BIN;

const folder = mkdtempSync(join(tmpdir(), 'shardgate-checks-'));
const file = (name) => join(folder, name);

function configuration(check) {
  return `[node]
id = "checks"
region = "here"
[frontend]
listen = ["${NODE}:${PORT}"]
workers = 1
[backend]
check = "${check}"
inter = "1s"
[discovery]
file = "${file('discovery.toml')}"
[[admin]]
listen = "${NODE}:${ADMIN}"
serve = ["status", "metrics"]
`;
}

function discovery() {
  const shards = Array.from({ length: SHARDS }, (_, n) => `[[shards]]
name = "s${n}"
id = ${n}
region = "here"
release = "r"
address = "${NET}.${1 + Math.floor(n / 200)}.${1 + (n % 200)}:${SHARD_PORT}"
`);
  return `live_release = "r"\n${shards.join('')}`;
}

/** CPU seconds of a process' threads of that name. */
function cpu(pid, name) {
  let ticks = 0;
  for (const thread of readdirSync(`/proc/${pid}/task`)) {
    const stat = readFileSync(`/proc/${pid}/task/${thread}/stat`, 'utf8');
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    if (stat.includes(`(${name})`)) ticks += Number(fields[11]) + Number(fields[12]);
  }
  return ticks / HZ;
}

async function metric(name) {
  const text = await (await fetch(`http://${NODE}:${ADMIN}/metrics`)).text();
  const lines = text.split('\n').filter((line) => line.startsWith(`shardgate_${name}`));
  return lines.reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(' ') + 1)), 0);
}

/** The p99 of requests' times in microseconds, at a rate that leaves the node idle half of the time. */
async function latency() {
  const log = file('h2load.log');
  rmSync(log, { force: true });
  const load = ['--h1', '-c', '16', '-t', '1', '--rps', '60', '-D', String(seconds), `--log-file=${log}`];
  await mustRun('h2load', [...load, `http://${NODE}:${PORT}/http-bind?room=bench`], { withinMs: 60_000 });
  const lines = readFileSync(log, 'utf8').trim().split('\n').map((line) => line.split('\t').map(Number));
  const bad = lines.filter(([, status]) => status !== 200).length;
  if (bad) throw new Error(`${bad} of ${lines.length} requests were not answered 200`);
  const times = lines.map(([, , micros]) => micros).sort((a, b) => a - b);
  return { p50: times[times.length >> 1], p99: times[Math.floor(times.length * 0.99)], count: times.length };
}

const median = (values) => [...values].sort((a, b) => a - b)[values.length >> 1];
const spread = (values) => (Math.max(...values) - Math.min(...values)) / median(values);

async function run() {
  writeFileSync(file('nginx.conf'), `daemon off;\nworker_processes 1;\npid ${file('nginx.pid')};\nerror_log stderr;
events { worker_connections 8192; }
http { access_log off; keepalive_requests 1000000; server { listen 0.0.0.0:${SHARD_PORT} backlog=4096; location / { return 200 "ok"; } } }\n`);
  writeFileSync(file('discovery.toml'), discovery());
  writeFileSync(file('shardgate.toml'), configuration('off'));
  const nginx = new Child('nginx', '/usr/sbin/nginx', ['-p', folder, '-c', file('nginx.conf')], file('nginx.log'));
  const node = new Child('shardgate', binary, ['serve', '--config', file('shardgate.toml')], file('node.log'));
  try {
    await until(async () => node.mustRun() ?? (await fetch(`http://${NODE}:${ADMIN}/readyz`).catch(() => null))?.ok, 20_000, () => 'the node is ready');
    const turn = async (check) => {
      writeFileSync(file('shardgate.toml'), configuration(check));
      node.child.kill('SIGHUP');
      const passed = async () => (await metric('shard_checks_passed_total{')) >= SHARDS;
      const wanted = check === 'off' ? async () => !(await passed()) : passed;
      await until(wanted, 20_000, () => `checks are ${check}`);
    };
    const found = { off: [], on: [], core: [], rate: [] };
    await latency();
    for (let round = 0; round < rounds; round += 1) {
      for (const check of round % 2 ? ['http', 'off'] : ['off', 'http']) {
        await turn(check);
        await delay(1_000);
        const [began, busy, checks] = [performance.now(), cpu(node.child.pid, 'health'), await metric('shard_checks_passed_total{')];
        const times = await latency();
        const took = (performance.now() - began) / 1000;
        found[check === 'off' ? 'off' : 'on'].push(times.p99);
        if (check === 'off') continue;
        found.core.push((cpu(node.child.pid, 'health') - busy) / took);
        found.rate.push(((await metric('shard_checks_passed_total{')) - checks) / took);
      }
    }
    const failed = await metric('shard_checks_failed_total{');
    const ratio = median(found.on.map((p99, n) => p99 / found.off[n]));
    const core = median(found.core);
    const percent = (share) => `${(100 * share).toFixed(1)} %`;
    console.log(`checks a second     ${median(found.rate).toFixed(0)} of ${SHARDS} shards, ${failed} failed`);
    console.log(`CPU of their thread ${percent(core)} of a core (spread ${percent(spread(found.core))}), wanted ${percent(CORE_MAX)}`);
    console.log(`p99 of requests     ${median(found.off)} us without, ${median(found.on)} us with checks; ratio ${ratio.toFixed(3)}, wanted ${P99_MAX}`);
    console.log(`                    rounds without ${found.off.join(' ')}, with ${found.on.join(' ')}`);
    if (failed > 0 || median(found.rate) < SHARDS * 0.9) return 1;
    if (smoke) return 0;
    return core <= CORE_MAX && ratio <= P99_MAX ? 0 : 4;
  } finally {
    await node.stop();
    await nginx.stop();
    rmSync(folder, { recursive: true, force: true });
  }
}

process.exit(await run());
