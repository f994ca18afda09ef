// Shards and nodes as processes, on addresses of this part alone: 127.88.0.0/16.
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Child } from '../process.mjs';
import { Mesh } from '../mesh.mjs';
import { until } from '../until.mjs';
import { Way } from '../relay.mjs';

const SHARD = fileURLToPath(new URL('shard.mjs', import.meta.url));
const PORT = 8443;
const AGENT_PORT = 6060;
const START_MS = 20_000;
const RELEASE = 'release-1';
let sites = 0;

class Shard {
  constructor(name, id, ip, folder) {
    Object.assign(this, { name, id, ip, region: 'here', state: 'ready', address: `${ip}:${PORT}` });
    this.log = join(folder, `${name}.log`);
  }

  async start() {
    const args = [SHARD, this.name, this.ip, String(PORT), String(AGENT_PORT)];
    const listening = () => (readFileSync(this.log, 'utf8').match(/listening/g) ?? []).length;
    this.process = new Child(this.name, 'node', args, this.log, { stdin: 'pipe' });
    const before = listening();
    await until(() => this.process.mustRun() ?? listening() > before, START_MS, () => `${this.name} listens`);
  }

  /** See shard.mjs. */
  tell(order) {
    this.process.child.stdin.write(`${JSON.stringify(order)}\n`);
  }

  pause() {
    this.process.child.kill('SIGSTOP');
  }

  resume() {
    this.process.child.kill('SIGCONT');
  }
}

export class Site {
  /** `nodes` nodes and `shards` shards; `backend` are lines of `[backend]`. With `ways` each node has a way of its own to each shard. */
  static async start({ binary, nodes = 3, shards = 3, backend, ways = false, expire = '60s' }) {
    const site = new Site();
    sites += 1;
    const net = `127.88.${sites}`;
    site.folder = mkdtempSync(join(tmpdir(), 'shardgate-health-'));
    site.shards = Array.from({ length: shards }, (_, n) => new Shard(`s${n + 1}`, n + 1, `${net}.${100 + n}`, site.folder));
    await Promise.all(site.shards.map((shard) => shard.start()));
    site.ways = new Map();
    const list = Array.from({ length: nodes }, (_, n) => ({ name: `n${n + 1}`, region: 'here', ip: `${net}.${10 + n}` }));
    if (ways) {
      for (const [n, node] of list.entries()) {
        for (const shard of site.shards) {
          const way = new Way(`${net}.${150 + n}:${PORT + shard.id}`, shard.address);
          await way.open();
          site.ways.set(`${node.name} ${shard.name}`, way);
        }
      }
    }
    site.mesh = new Mesh({
      name: 'mesh',
      binary,
      nodes: list,
      folder: site.folder,
      shards: site.shards,
      release: RELEASE,
      expire,
      settings: (node) =>
        `[backend]\nagent_port = ${AGENT_PORT}\n${backend}\n[[admin]]\nlisten = "unix:${site.orders(node)}"\nserve = ["status", "admin"]\n`,
      addressOf: (node, shard) => site.ways.get(`${node.name} ${shard.name}`)?.from ?? shard.address,
    });
    await site.mesh.start();
    return site;
  }

  get nodes() {
    return this.mesh.nodes;
  }

  get addresses() {
    return this.nodes.map((node) => node.address);
  }

  /** Where a node takes orders. */
  orders(node) {
    return join(this.folder, `${node.name}.sock`);
  }

  /** What shardgatectl needs to speak to all nodes. */
  get everywhere() {
    return this.nodes.flatMap((node) => ['--node', `unix:${this.orders(node)}`]);
  }

  shard(name) {
    return this.shards.find((shard) => shard.name === name);
  }

  way(node, shard) {
    return this.ways.get(`${node} ${shard}`);
  }

  /** The value of a metric, summed over the labels that hold all of `labels`. */
  async metric(node, name, ...labels) {
    const text = await (await fetch(`http://${node.admin}/metrics`)).text();
    const lines = text.split('\n').filter((line) => line.startsWith(`shardgate_${name}`));
    const wanted = lines.filter((line) => /^[a-z_]+[{ ]/.test(line) && labels.every((label) => line.includes(label)));
    const exact = wanted.filter((line) => line.slice('shardgate_'.length).split(/[{ ]/)[0] === name);
    return exact.reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(' ') + 1)), 0);
  }

  async total(name, ...labels) {
    const values = await Promise.all(this.nodes.map((node) => this.metric(node, name, ...labels)));
    return values.reduce((sum, value) => sum + value, 0);
  }

  /** Waits until every node's checks say so of a shard; answers when the last one did. */
  async seen(shard, up, withinMs = 20_000) {
    const all = async () => (await Promise.all(this.nodes.map((node) => this.metric(node, 'shard_up', `"${shard}"`)))).every((value) => value === up);
    await until(all, withinMs, () => `every node sees that ${shard} is ${up ? 'up' : 'down'}`);
    return Date.now();
  }

  mustRun() {
    this.mesh.mustRun();
  }

  async stop({ keep = false } = {}) {
    await this.mesh?.stop();
    for (const way of this.ways?.values() ?? []) await way.cut();
    for (const shard of this.shards) {
      if (shard.process && !shard.process.end) {
        shard.resume();
        await shard.process.kill();
      }
    }
    if (!keep) rmSync(this.folder, { recursive: true, force: true });
  }
}
