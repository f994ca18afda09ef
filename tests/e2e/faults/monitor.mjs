// What `shardgatectl monitor` finds: each kind of finding made for real once, and nothing where nothing is wrong.
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { equal, must } from '../clients/expect.mjs';
import { Consul } from '../consul.mjs';
import { HaProxy } from '../haproxy.mjs';
import { ask, join as joining } from '../health/client.mjs';
import { onSite } from '../on.mjs';
import { Child, run } from '../process.mjs';
import { elapse, until } from '../until.mjs';
import { Talker } from './people.mjs';
import { Site } from './site.mjs';

const ENVIRONMENT = 'e2e';
/** Leases so long that what a table does not have counts as missing. */
const EXPIRE = '5m';
/** Longer than somebody who asked once over BOSH is counted. */
const CENSUS_LAG_S = 4;
const RUNS = process.env.FAULTS_LONG ? 100 : 20;

/** Runs the monitor; answers `{ code, report, output }`. */
async function monitor({ ctl, nodes = [], env = {} }, ...words) {
  const named = nodes.flatMap((node) => ['--node', node]);
  const args = [...named, '--output', 'json', 'monitor', '--settle', '1s', ...words];
  const { code, output } = await run(ctl, args, { env: { ...process.env, ...env } });
  const line = output.split('\n').find((text) => text.startsWith('{'));
  return { code, output, report: line && JSON.parse(line) };
}

const everyNode = (site) => site.nodes.map((node) => `unix:${site.orders(node)}`);
const of = (site, env) => ({ ctl: site.ctl, nodes: everyNode(site), env });

/** What was found, `kind subject` each, in order. */
const found = ({ report }) => report.findings.map(({ kind, subject }) => `${kind} ${subject}`).sort();

function clean({ code, report, output }) {
  equal(report?.findings, [], `findings (${output})`);
  equal(code, 0, `the exit code (${output})`);
}

/** A room's first join over HTTP; answers its shard. */
async function place(node, room) {
  const answer = await ask(node.address, joining(room), { method: 'POST', body: '{}' });
  equal(answer.status, 200, `the join of ${room}`);
  return answer.shard;
}

/** No false alarm, while conferences begin and end all the time. */
async function healthy({ binary, ctl }) {
  return onSite(Site, { binary, ctl, nodes: 3, shards: 3, expire: '3s' }, async (site) => {
    let [began, going] = [0, true];
    const load = (async () => {
      const start = performance.now();
      while (going) {
        const node = site.nodes[began % site.nodes.length];
        await Promise.all([0, 1, 2, 3].map((n) => place(node, `churn${began + n}`)));
        began += 4;
        await elapse(Math.max(0, start + began * 5 - performance.now()));
      }
    })();
    try {
      // At moments that have nothing to do with each other.
      for (let n = 0; n < RUNS; n += 1) {
        clean(await monitor(of(site)));
        await elapse(100 + Math.random() * 200);
      }
    } finally {
      going = false;
    }
    await load;
    const { report } = await monitor(of(site));
    must(report.conferences > 100, 'there are conferences', report.conferences);
    return `${RUNS} runs, each clean, while ${began} conferences began, 200 a second, and ended`;
  });
}

/** A mesh that is cut: tables differ, entries are missing, peers are not connected, people are on two shards. */
async function cut({ binary, ctl }) {
  return onSite(Site, { binary, ctl, nodes: 4, shards: 4, expire: EXPIRE }, async (site) => {
    const sides = [site.nodes.slice(0, 2), site.nodes.slice(2)];
    await place(site.nodes[0], 'before');
    await site.cut(...sides);
    for (const [n, side] of sides.entries()) {
      for (const node of side) {
        for (const shard of site.shards) await site.ask(node, 'shard', shard.id <= 2 === (n === 0) ? 'ready' : 'drain', shard.name);
      }
    }
    for (const side of sides) await place(side[0], 'apart');
    await place(sides[0][0], 'only-here');
    const people = sides.map((side) => new Talker('people', side.map((node) => node.address)));
    for (const one of people) await one.enter();
    const seen = await monitor(of(site));
    const links = sides[0].flatMap((a) => sides[1].flatMap((b) => [`${a.name} -> ${b.name}`, `${b.name} -> ${a.name}`]));
    const expected = [
      'conference-on-two-shards people',
      'missing-entry only-here',
      ...links.map((link) => `peer-not-connected ${link}`),
      'table-split-brain apart',
      'table-split-brain people',
    ];
    equal(found(seen), expected.sort(), 'what was found');
    equal(seen.code, 1, 'the exit code');
    const plan = await monitor(of(site), '--fix');
    equal([plan.report.fix.done, plan.report.fix.changes.map(({ key }) => key).sort()], [false, ['apart', 'only-here', 'people']], 'the plan');
    for (const node of site.nodes) for (const shard of site.shards) await site.ask(node, 'shard', 'ready', shard.name);
    site.heal(...sides);
    await site.linked(site.nodes, 3);
    await until(() => people[0].shard && people[0].shard === people[1].shard, 20_000, () => 'people meet');
    await site.tablesEqual(20_000);
    clean(await monitor(of(site)));
    const stopped = site.nodes[3];
    await stopped.process.kill();
    const partly = await monitor(of(site));
    equal([partly.code, partly.report.unasked.map(({ name }) => name)], [2, [`unix:${site.orders(stopped)}`]], 'a node that is gone');
    stopped.process = undefined;
    for (const one of people) one.leave();
    return `a cut of 2 and 2 nodes: ${expected.length} findings, named right; healed: clean; a node killed: exit code 2`;
  });
}

/** An entry that is overwritten in one node's table. */
async function flipped({ hooked, ctl }) {
  must(hooked, 'SHARDGATE_BIN_TEST_HOOKS names a binary with the feature test-hooks');
  let folder;
  const hooks = (node) => [`flips=${join(folder, `${node.name}.flips`)}`];
  const prepared = (site) => {
    folder = site;
  };
  return onSite(Site, { binary: hooked, ctl, nodes: 3, shards: 3, expire: EXPIRE, hooksOf: hooks, prepared }, async (site) => {
    const [victim] = site.nodes;
    const file = join(folder, `${victim.name}.flips`);
    for (let n = 0; n < 50; n += 1) await place(site.nodes[n % 3], `room${n}`);
    const rows = await site.ask(victim, 'table', 'show');
    // By the join the lower name wins: what is flipped upwards is put right, and not taken over.
    const { key } = rows.find((row) => row.shard !== 's3');
    const right = rows.find((row) => row.key === key).shard;
    await site.tablesEqual(10_000);
    clean(await monitor(of(site)));
    const flip = async () => {
      writeFileSync(`${file}.new`, `${key} s3`);
      writeFileSync(file, readFileSync(`${file}.new`));
      await until(() => !existsSync(file), 5_000, () => 'the entry is overwritten');
    };
    await flip();
    const flippedAt = Date.now();
    await site.tablesEqual(10_000);
    const repaired = Date.now() - flippedAt;
    must(repaired < 3 * 1_000 + 2_000, 'repaired in three heartbeats and 2 s', repaired);
    equal((await site.ask(victim, 'table', 'get', key))[0].shard, right, 'the shard after the repair');
    // Overwritten again and again it is there whenever somebody looks.
    let going = true;
    const again = (async () => {
      while (going) await flip();
    })();
    try {
      const at = async () => (await site.ask(victim, 'table', 'get', key))[0].shard;
      await until(async () => (await at()) === 's3', 5_000, () => 'it is overwritten again');
      const seen = await monitor(of(site));
      equal(found(seen), [`table-split-brain ${key}`], 'what was found');
      const tables = Object.fromEntries(seen.report.findings[0].tables.map(({ table, shard }) => [table, shard]));
      equal(tables, { n1: 's3', n2: right, n3: right }, 'what the tables have');
      let kinds = [];
      const disagree = async () => {
        kinds = [...new Set(found(await monitor(of(site))).map((text) => text.split(' ')[0]))].sort();
        return kinds.includes('peer-not-in-agreement');
      };
      await until(disagree, 30_000, () => `peers that are not in agreement are found: ${kinds}`);
      equal(kinds, ['peer-not-in-agreement', 'table-split-brain'], 'kinds, while it goes on');
    } finally {
      going = false;
      await again;
    }
    await site.tablesEqual(10_000);
    await until(async () => (await monitor(of(site))).code === 0, 20_000, () => 'all is well again');
    return `one entry overwritten: right again after ${(repaired / 1_000).toFixed(2)} s; overwritten again and again: exactly it is found`;
  });
}

/** Shards' own counts beside the tables, the lock, the pause, and putting things right. */
async function census({ binary, ctl }) {
  return onSite(Site, { binary, ctl, nodes: 3, shards: 3, expire: EXPIRE }, async (site) => {
    const consul = await Consul.start(site.folder, site.free(), `${ENVIRONMENT}-here`);
    try {
      const env = { SHARDGATE_ENVIRONMENT: ENVIRONMENT, CONSUL_HTTP_ADDR: consul.address };
      const look = (...words) => monitor(of(site, env), '--census-lag', `${CENSUS_LAG_S}s`, ...words);
      const report = (shard, rooms) => consul.report(ENVIRONMENT, shard, rooms);
      const [node] = site.nodes;
      for (const room of ['well', 'elsewhere', 'twice', 'leaked', 'orphan']) {
        await place(node, room);
        await site.ask(node, 'table', 'set', room, 's1');
      }
      const held = new Talker('orphan', [node.address]);
      await held.enter();
      await elapse(CENSUS_LAG_S * 1_100);
      await report('s1', [['well', 2], ['elsewhere', 0], ['twice', 2], ['leaked', 3], ['orphan', 1]].filter(([room]) => room !== 'elsewhere'));
      await report('s2', []);
      await report('s3', []);
      clean(await look());
      await report('s1', [['well', 2], ['twice', 2], ['leaked', 3]]);
      await report('s2', [['elsewhere', 4], ['twice', 3], ['leaked', 0], ['nowhere', 5]]);
      await report('gone', [['well', 9]]);
      const expected = [
        'conference-on-two-shards twice',
        'entry-shard-mismatch elsewhere',
        'leaked-conference leaked',
        'missing-entry nowhere',
        'orphan-entry orphan',
      ];
      const seen = await look();
      equal(found(seen), expected, `what was found (${seen.output})`);
      const audit = join(site.folder, 'audit.log');
      const metrics = join(site.folder, 'monitor.prom');
      const mended = await look('--fix', '--yes', '--audit', audit, '--metrics-file', metrics);
      const changes = mended.report.fix.changes.map(({ key, shard, outcome }) => `${key} ${shard} ${outcome}`).sort();
      equal(changes, ['elsewhere s2 set', 'nowhere s2 set', 'twice s2 set'], 'what was put right');
      equal(readFileSync(audit, 'utf8').trim().split('\n').map((line) => JSON.parse(line).key).sort(), ['elsewhere', 'nowhere', 'twice'], 'the audit log');
      const prom = readFileSync(metrics, 'utf8');
      must(prom.includes(`shardgate_monitor_findings{environment="${ENVIRONMENT}",kind="entry-shard-mismatch"} 1\n`), 'metrics of findings', prom);
      must(prom.includes(`shardgate_monitor_changes_total{environment="${ENVIRONMENT}"} 3\n`), 'metrics of changes', prom);
      await report('s1', [['well', 2], ['orphan', 1]]);
      await report('s2', [['elsewhere', 4], ['twice', 5], ['nowhere', 5]]);
      await elapse(CENSUS_LAG_S * 1_100);
      clean(await look());

      // One at a time, and none in a pause.
      const log = join(site.folder, 'every.log');
      const words = ['--output', 'json', ...everyNode(site).flatMap((it) => ['--node', it]), 'monitor', '--every', '1s', '--settle', '1s', '--census-lag', `${CENSUS_LAG_S}s`];
      const every = new Child('monitor', site.ctl, words, log, { env: { ...process.env, ...env } });
      const runs = () => readFileSync(log, 'utf8').split('\n').filter((line) => line.startsWith('{')).length;
      await until(() => every.mustRun() ?? runs() >= 2, 30_000, () => `two runs: ${readFileSync(log, 'utf8')}`);
      const second = await look('--lock', '--lock-wait', '2s');
      equal([second.code, second.report], [2, undefined], 'a second one');
      must(second.output.includes("the lock was somebody else's"), 'why', second.output);
      const pause = `shardgate/${ENVIRONMENT}/monitor-pause`;
      await consul.put(pause, 'pool recycled until five');
      await until(() => readFileSync(log, 'utf8').includes('pool recycled until five'), 10_000, () => 'the one that runs pauses');
      const paused = await look();
      equal([paused.code, paused.report], [0, undefined], 'while there is a pause');
      await consul.delete(pause);
      await every.stop();
      equal(every.end.code, 0, 'its exit code');
      clean(await look('--lock', '--lock-wait', '20s'));
      held.leave();
      return `5 kinds by the census, 3 of them put right with ${changes.length} audit lines; one runs at a time; it pauses`;
    } finally {
      await consul.stop();
    }
  });
}

/** Where shards are known from. */
async function discovery({ binary, ctl }) {
  // A home clears what it can know of whether it is held: not before holders had the time to report, by their leases.
  return onSite(Site, { binary, ctl, nodes: 3, shards: 3, expire: '20s' }, async (site) => {
    const [first, , last] = site.nodes;
    await place(first, 'lost');
    await site.ask(first, 'table', 'set', 'lost', 's3');
    clean(await monitor(of(site)));
    const shards = async (node) => (await site.ask(node, 'status'))[0].shards.length;
    site.mesh.hides = (node, shard) => node === last && shard.name === 's3';
    site.mesh.writeDiscovery();
    await until(async () => (await shards(last)) === 2, 20_000, () => 'a node forgets a shard');
    equal(found(await monitor(of(site))), ['stale-discovery n3'], 'what was found');
    site.mesh.hides = (_, shard) => shard.name === 's3';
    site.mesh.writeDiscovery();
    await until(async () => (await Promise.all(site.nodes.map(shards))).every((count) => count === 2), 20_000, () => 'all forget it');
    equal(found(await monitor(of(site))), ['orphan-entry lost'], 'what was found');
    let mended = '';
    const clears = async () => {
      mended = (await monitor(of(site), '--fix', '--yes')).report.fix.changes.map(({ key, outcome }) => `${key} ${outcome}`).join();
      // Whoever asked for it is counted for a while.
      return !['lost unanswered', 'lost held'].includes(mended);
    };
    await until(clears, 30_000, () => mended);
    equal(mended, 'lost cleared', 'what was put right');
    clean(await monitor(of(site)));
    return 'a shard that one node does not know; an entry of one that nobody knows, put right';
  });
}

/** A fleet in which HAProxies stand beside nodes. */
async function mixed({ binary, ctl }) {
  return onSite(Site, { binary, ctl, nodes: 2, shards: 3, expire: EXPIRE }, async (site) => {
    // They number servers as they like.
    const numbered = (shift) => site.shards.map((shard) => ({ ...shard, id: ((shard.id + shift) % 3) + 1 }));
    const haproxies = [];
    try {
      for (const n of [0, 1]) haproxies.push(await HaProxy.start(site.folder, `h${n}`, `${site.free()}:8000`, numbered(n), { keyLength: 40 }));
      const sockets = haproxies.flatMap(({ socket }) => ['--haproxy', `unix:${socket}`]);
      const look = (...words) => monitor(of(site), ...sockets, '--haproxy-key-len', '40', ...words);
      const idOf = (n, name) => numbered(n).find((shard) => shard.name === name).id + 10;
      const set = (n, key, name) => haproxies[n].say(`set table nodes key ${key} data.server_id ${idOf(n, name)}`);
      for (const room of ['same', 'other']) {
        const shard = await place(site.nodes[0], room);
        await set(0, room, shard);
        await set(1, room, room === 'same' ? shard : site.shards.find(({ name }) => name !== shard).name);
      }
      await place(site.nodes[0], 'unknown-to-haproxies');
      const long = 'r'.repeat(45);
      await set(0, long, 's1');
      await set(1, long, 's1');
      const cut = long.slice(0, 40);
      const seen = await look();
      equal(
        found(seen),
        [`ambiguous-key ${cut}`, 'missing-entry unknown-to-haproxies', 'table-split-brain other'],
        'what was found',
      );
      const { shard: right } = (await site.ask(site.nodes[0], 'table', 'get', 'other'))[0];
      const files = [];
      for (const [n, haproxy] of haproxies.entries()) {
        const [table, stat] = ['table', 'stat'].map((what) => join(site.folder, `h${n}.${what}`));
        writeFileSync(table, await haproxy.say('show table nodes'));
        writeFileSync(stat, await haproxy.say('show stat'));
        files.push('--haproxy', `files:${table},${stat}`);
      }
      equal(found(await monitor(of(site), ...files, '--haproxy-key-len', '40')), found(seen), 'what was found in files');
      const mended = await look('--fix', '--yes');
      must(mended.report.fix.changes.every(({ outcome }) => outcome === 'set'), 'all is put right', JSON.stringify(mended.report.fix));
      for (const [n, haproxy] of haproxies.entries()) equal(await haproxy.idOf('other'), idOf(n, right), `the id at HAProxy ${n}`);
      equal(found(await look()), [`ambiguous-key ${cut}`], 'what is left');
      for (const haproxy of haproxies) await haproxy.say(`clear table nodes key ${cut}`);
      clean(await look());
      const only = await monitor({ ctl: site.ctl }, ...sockets);
      clean(only);
      equal(only.report.tables.length, 2, 'tables, where only HAProxies are named');
      await haproxies[1].stop();
      equal((await look()).code, 2, 'the exit code when one is gone');
      return 'two HAProxies that number servers differently, by socket and by file: split brain and missing entries found, put right in each';
    } finally {
      for (const haproxy of haproxies) await haproxy.stop();
    }
  });
}

/** Before and after, as whoever recycles a pool looks. */
async function snapshots({ binary, ctl }) {
  // Entries end by themselves.
  return onSite(Site, { binary, ctl, nodes: 2, shards: 3, expire: '4s' }, async (site) => {
    const [node] = site.nodes;
    const where = {};
    for (const room of ['stays', 'moves', 'ends']) where[room] = await place(node, room);
    const people = ['stays', 'moves'].map((room) => new Talker(room, [node.address]));
    for (const one of people) await one.enter();
    const file = join(site.folder, 'before');
    clean(await monitor(of(site), '--snapshot', file));
    const to = site.shards.find(({ name }) => name !== where.moves).name;
    await site.ask(node, 'table', 'set', 'moves', to);
    await until(async () => !(await site.table(node)).has('ends'), 20_000, () => 'its entry ends');
    await place(node, 'begins');
    await site.tablesEqual(10_000);
    const { code, report } = await monitor(of(site), '--compare', file);
    const named = (sort) => report.compared[sort].first.map(({ key, before, now }) => `${key} ${before ?? '-'} ${now ?? '-'}`);
    equal([code, report.findings], [1, []], 'the exit code');
    equal(named('gone'), [`ends ${where.ends} -`], 'gone');
    equal(named('moved'), [`moves ${where.moves} ${to}`], 'moved');
    equal(report.compared.added.count, 1, 'added');
    for (const one of people) one.leave();
    return 'one is gone, one has moved, one is new';
  });
}

export const MONITOR = {
  'monitor healthy: clean while conferences come and go': healthy,
  'monitor cut: tables that differ, missing entries, peers apart': cut,
  'monitor flipped: one overwritten entry': flipped,
  'monitor census: what shards count, the lock and the pause': census,
  'monitor discovery: shards that are known to some, or to nobody': discovery,
  'monitor mixed: HAProxies beside nodes': mixed,
  'monitor snapshots: gone, moved and new': snapshots,
};
