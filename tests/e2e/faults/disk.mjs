// A node that keeps what Consul says on a disk that is full.
import { closeSync, existsSync, mkdirSync, openSync, readFileSync, readdirSync, rmSync, statfsSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { equal, must } from '../clients/expect.mjs';
import { Consul } from '../consul.mjs';
import { ask, failed, kinds, join as joining, Load } from '../health/client.mjs';
import { onSite } from '../on.mjs';
import { Child, run } from '../process.mjs';
import { elapse, until } from '../until.mjs';
import { Talker } from './people.mjs';
import { Site } from './site.mjs';

const ENVIRONMENT = 'e2e';
const RELEASE = 'release-1';
const CANNOT = 'cannot be kept on disk';
const AGAIN = 'is kept on disk again';
/** A change is written a second after it came. */
const TRIED_AFTER_MS = 1_500;
const PAGE = 4_096;
const SIZE = 64 * 1_024;

const seconds = (ms) => `${(ms / 1000).toFixed(2)} s`;

/** A disk of 64 KiB that only those see who are let in, and that is gone with the process that holds it. */
class SmallDisk {
  static async mount(folder) {
    const disk = new SmallDisk();
    const log = join(folder, 'disk.log');
    const words = `mount -t tmpfs -o size=${SIZE} tmpfs "$0" && echo mounted && exec cat`;
    disk.holder = new Child('disk', 'unshare', ['--mount', '--propagation', 'private', 'sh', '-c', words, folder], log, { stdin: 'pipe' });
    const mounted = () => existsSync(log) && readFileSync(log, 'utf8').includes('mounted');
    await until(() => disk.holder.mustRun() ?? mounted(), 10_000, () => `a disk is mounted: ${readFileSync(log, 'utf8')}`);
    /** How others see it. */
    disk.outside = `/proc/${disk.holder.child.pid}/root${folder}`;
    return disk;
  }

  /** The words that start a program which sees it. */
  letIn(...words) {
    return [`--mount=/proc/${this.holder.child.pid}/ns/mnt`, ...words];
  }

  /** Leaves a page: who writes more than that has half of it written. */
  fill() {
    const file = openSync(join(this.outside, 'ballast'), 'w');
    try {
      for (let left = this.free() / PAGE; left > 1; left -= 1) writeSync(file, Buffer.alloc(PAGE, 1));
    } finally {
      closeSync(file);
    }
    equal(this.free(), PAGE, 'free bytes');
  }

  empty() {
    rmSync(join(this.outside, 'ballast'));
  }

  free() {
    const { bavail, bsize } = statfsSync(this.outside);
    return bavail * bsize;
  }
}

/** A node alone that has everything from Consul. */
class Node {
  constructor(site, ip, consul, disk, inside) {
    Object.assign(this, { site, ip, disk, name: 'kept', address: `${ip}:8000`, admin: `${ip}:8405`, state: join(disk.outside, 'consul.json') });
    this.config = join(site.folder, 'kept.toml');
    this.log = join(site.folder, 'kept.log');
    const config = `
[node]
id = "kept"
region = "here"
environment = "${ENVIRONMENT}"

[frontend]
listen = ["${this.address}"]

[consul]
address = "${consul.address}"
state_file = "${inside}/consul.json"
start_timeout = "1s"
register = "off"

[shutdown]
drain = "1s"

[[admin]]
listen = "${this.admin}"
serve = ["status", "metrics"]
`;
    writeFileSync(this.config, config);
  }

  async start(binary) {
    this.process = new Child(this.name, 'nsenter', this.disk.letIn(binary, 'serve', '--config', this.config), this.log);
    await until(() => this.process.mustRun() ?? this.ready(), 20_000, () => `the node is ready, see ${this.log}`);
  }

  /** What it says when it is ready. */
  async ready() {
    const answer = await fetch(`http://${this.admin}/readyz`).catch(() => undefined);
    return answer?.status === 200 && answer.text();
  }

  /** The lines of its log that say `words`. */
  says(words) {
    return readFileSync(this.log, 'utf8').split('\n').filter((line) => line.includes(words));
  }

  /** What it keeps. The file is whole, or not there. */
  kept() {
    return existsSync(this.state) ? JSON.parse(readFileSync(this.state, 'utf8')) : undefined;
  }

  /** Whether it keeps that a shard is drained. */
  keepsDrained(shard) {
    const states = this.kept()?.sources.find(({ keys }) => keys === 'shard-states').records.pairs ?? [];
    return states.some(({ Key, Value }) => Key.endsWith(`/${shard.name}`) && Buffer.from(Value, 'base64').toString() === 'drain');
  }

  /** Where `count` rooms are that nobody has come into. */
  async places(tag, count = 40) {
    const answers = await Promise.all(Array.from({ length: count }, (_, n) => ask(this.address, joining(`${tag}${n}`), { method: 'POST', body: '{}' })));
    equal(failed(answers).length, 0, `joins of new rooms that failed (${kinds(answers)})`);
    return new Set(answers.map(({ shard }) => shard));
  }

  /** Waits until no new room comes to a shard; answers how long that took. */
  async drained(shard, withinMs) {
    const began = Date.now();
    let tries = 0;
    const away = async () => !(await this.places(`${shard.name}-drained-${began}-${(tries += 1)}-`)).has(shard.name);
    await until(away, withinMs, () => `no new rooms come to ${shard.name}`);
    return Date.now() - began;
  }
}

/** `patient`: nothing happens in Consul when there is room again. */
const full = ({ patient = false } = {}) => async ({ binary, ctl }) => {
  return onSite(Site, { binary, ctl, nodes: 0 }, async (site) => {
    const consul = await Consul.start(site.folder, site.free(), `${ENVIRONMENT}-here`);
    const folder = join(site.folder, 'state');
    mkdirSync(folder);
    const disk = await SmallDisk.mount(folder);
    const node = new Node(site, site.free(), consul, disk, folder);
    try {
      await consul.put(`releases/${ENVIRONMENT}/live`, RELEASE);
      for (const shard of site.shards) await consul.register(ENVIRONMENT, shard, RELEASE);
      // More than a page.
      await Promise.all(Array.from({ length: 60 }, (_, n) => consul.put(`bans/${ENVIRONMENT}/room/nobody-comes-in-by-this-name-${n}`, 'ban')));
      const drain = (shard) => consul.put(`shard-states/${ENVIRONMENT}/${shard.name}`, 'drain');
      const [first, second, third] = site.shards;
      await node.start(binary);
      await drain(first);
      await until(() => node.keepsDrained(first), 10_000, () => 'it keeps what Consul says');
      const whole = readFileSync(node.state);
      must(whole.length > PAGE, 'what it keeps is more than a page', whole.length);

      disk.fill();
      const people = Array.from({ length: 40 }, (_, n) => new Talker(`people${n}`, [node.address]));
      await Promise.all(people.map((one) => one.enter()));
      const load = new Load({ addresses: [node.address], targets: people.map(({ room }) => `/_unlock?room=${room}`), perSecond: 100 });
      await drain(second);
      const drainedAfter = await node.drained(second, 5_000);
      await until(() => node.says(CANNOT).length > 0, 5_000, () => `its log says that it ${CANNOT}`);
      must(node.says(CANNOT)[0].includes('No space left on device'), 'its log says why', node.says(CANNOT)[0]);
      await until(async () => (await site.metric(node, 'discovery_not_kept')) === 1, 5_000, () => 'its metrics say so');
      const status = await run(ctl, ['--node', node.admin, 'status']);
      must(/^not kept on disk, .*No space left on device/m.test(status.output), 'its status says so', status.output);
      must(readFileSync(node.state).equals(whole), 'what was kept is as it was');
      // Tried again, and not told again.
      await drain(third);
      await node.drained(third, 5_000);
      await elapse(TRIED_AFTER_MS);
      const results = await load.stop();
      equal(failed(results).length, 0, `requests that failed (${kinds(results)})`);
      equal(people.filter(({ closes }) => closes > 0).length, 0, 'people who were disturbed');
      equal(node.says(CANNOT).length, 1, 'times that its log says so');
      const left = () => readdirSync(disk.outside).filter((name) => name.endsWith('.new'));
      equal(left(), [], 'what writes in vain have left');
      for (const one of people) one.leave();

      // What it knows last it cannot keep: it starts with what it could.
      consul.hang(true);
      const stopping = Date.now();
      await node.process.stop();
      equal(node.process.end, { code: 0, signal: null }, 'how it ended');
      const stoppedAfter = Date.now() - stopping;
      must(readFileSync(node.state).equals(whole), 'what was kept is as it was');
      await node.start(binary);
      must((await node.ready()).includes('kept on disk, '), 'it says that it goes by what was kept', await node.ready());
      const places = await node.places('cold');
      equal([...places].sort(), [second.name, third.name, site.shards[3].name].sort(), 'shards of new rooms, by what was kept');
      await node.process.kill();
      await node.start(binary);
      must((await node.ready()).includes('kept on disk, '), 'it says so after it was killed', await node.ready());

      consul.hang(false);
      await until(async () => (await site.metric(node, 'discovery_policy_stale')) === 0, 20_000, () => 'Consul is heard again');
      await node.drained(third, 5_000);
      await until(async () => (await site.metric(node, 'discovery_not_kept')) === 1, 10_000, () => 'it cannot keep what it hears');
      if (patient) await elapse(30_000);
      disk.empty();
      if (!patient) await consul.put(`bans/${ENVIRONMENT}/room/one-more`, 'ban');
      const emptied = Date.now();
      await until(() => node.keepsDrained(third), patient ? 20_000 : 5_000, () => `it keeps what it knows again: ${node.says('disk')}`);
      await until(async () => (await site.metric(node, 'discovery_not_kept')) === 0, 5_000, () => 'its metrics say so');
      await until(() => node.says(AGAIN).length > 0, 5_000, () => `its log says that it ${AGAIN}`);
      equal(node.says(AGAIN).length, 1, 'times that its log says so');
      return (
        `${results.length} requests and ${people.length} people undisturbed while nothing can be written, a drained shard followed after ${seconds(drainedAfter)}, ` +
        `told once; stopped in ${seconds(stoppedAfter)}, starts from the last whole file twice; keeps again ${seconds(Date.now() - emptied)} after there is room; no file is left half-written`
      );
    } finally {
      // Who hangs does not end.
      consul.hang(false);
      await node.process?.stop();
      await consul.stop();
      await disk.holder.kill();
    }
  });
};

const LONG = { 'disk full for long: nothing happens in Consul when there is room again': full({ patient: true }) };

export const DISK = {
  'disk full: what Consul says cannot be kept': full(),
  ...(process.env.FAULTS_LONG ? LONG : {}),
};
