// Nodes with a path of their own to each other, and shards, on addresses of this part alone: 127.90.0.0/16.
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Mesh } from '../mesh.mjs';
import { Child, mustRun } from '../process.mjs';
import { until } from '../until.mjs';
import { Path } from './path.mjs';

const SHARD = fileURLToPath(new URL('shard.mjs', import.meta.url));
const PORT = 8443;
const START_MS = 20_000;
// Where packets are lost in one direction, one side notices after its own silence has made the other one silent.
const LINKS_MS = 45_000;
let sites = 0;

export class Site {
  /** `nodes` nodes with paths of `delayMs` one way, and `shards` shards; `prepared(folder)` is called before they start. */
  static async start({ binary, ctl, nodes = 4, shards = 4, delayMs = 0, expire = '60s', hooks = [], settings = () => '', prepared = () => {}, hooksOf, envOf }) {
    const site = new Site();
    sites += 1;
    const net = `127.90.${sites}`;
    Object.assign(site, { ctl, net, folder: mkdtempSync(join(tmpdir(), 'shardgate-faults-')), paths: new Map(), others: 0 });
    prepared(site.folder);
    site.shards = Array.from({ length: shards }, (_, n) => {
      const ip = `${net}.${100 + n}`;
      return { name: `s${n + 1}`, id: n + 1, ip, region: 'here', state: 'ready', address: `${ip}:${PORT}` };
    });
    await Promise.all(site.shards.map((shard) => site.#startShard(shard)));
    const list = Array.from({ length: nodes }, (_, n) => ({ name: `n${n + 1}`, region: 'here', ip: `${net}.${10 + n}` }));
    site.mesh = new Mesh({
      name: 'mesh',
      binary,
      hooks,
      hooksOf,
      envOf,
      nodes: list,
      folder: site.folder,
      shards: site.shards,
      release: 'release-1',
      expire,
      settings: (node) => `[[admin]]\nlisten = "unix:${site.orders(node)}"\nserve = ["status", "admin"]\n${settings(node)}`,
      peerAddressOf: (node, peer) => site.paths.get(`${node.name} ${peer.name}`)?.from ?? peer.mesh,
    });
    for (const [a, near] of site.nodes.entries()) {
      for (const [b, far] of site.nodes.entries()) {
        if (a === b) continue;
        const path = new Path(`${net}.${150 + a}:${7100 + b}`, far.mesh, { delayMs });
        await path.open();
        site.paths.set(`${near.name} ${far.name}`, path);
      }
    }
    await site.mesh.start();
    return site;
  }

  async #startShard(shard) {
    shard.log = join(this.folder, `${shard.name}.log`);
    shard.process = new Child(shard.name, 'node', [SHARD, shard.name, shard.ip, String(PORT)], shard.log, { stdin: 'pipe' });
    const listening = () => readFileSync(shard.log, 'utf8').includes('listening');
    await until(() => shard.process.mustRun() ?? listening(), START_MS, () => `${shard.name} listens`);
  }

  /** An address of its own for something else. */
  free() {
    this.others += 1;
    return `${this.net}.${199 + this.others}`;
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

  /** The paths that nodes of one group dial nodes of another by. */
  #dialled(some, others) {
    return some.flatMap((a) => others.map((b) => this.paths.get(`${a.name} ${b.name}`)));
  }

  /** Cuts the paths between two groups, in both directions or from the first to the second, and waits until all have noticed. */
  async cut(some, others, direction = 'both') {
    for (const path of this.#dialled(some, others)) path.cut(direction === 'both' ? 'both' : 'there');
    for (const path of this.#dialled(others, some)) path.cut(direction === 'both' ? 'both' : 'back');
    await this.linked(some, some.length - 1);
    await this.linked(others, others.length - 1);
  }

  heal(some, others) {
    for (const path of [...this.#dialled(some, others), ...this.#dialled(others, some)]) path.heal();
  }

  /** Waits until each of these nodes has so many peers. */
  async linked(nodes, peers) {
    const counts = () => Promise.all(nodes.map((node) => this.metric(node, 'peer_reconciled')));
    let seen = [];
    const all = async () => (seen = await counts()).every((count) => count === peers);
    await until(all, LINKS_MS, () => `${nodes.map((node) => node.name)} have ${peers} peers each: ${seen}`);
  }

  /** The sum of a metric's values. */
  async metric(node, name) {
    const text = await (await fetch(`http://${node.admin}/metrics`)).text();
    const lines = text.split('\n').filter((line) => new RegExp(`^shardgate_${name}(_total)?[{ ]`).test(line));
    return lines.reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(' ') + 1)), 0);
  }

  async total(name) {
    const values = await Promise.all(this.nodes.map((node) => this.metric(node, name)));
    return values.reduce((sum, value) => sum + value, 0);
  }

  /** What shardgatectl says of one node, a JSON document a line. */
  async ask(node, ...words) {
    const text = await mustRun(this.ctl, ['--node', `unix:${this.orders(node)}`, '--output', 'json', ...words]);
    return text.split('\n').filter(Boolean).map((line) => JSON.parse(line));
  }

  /** A node's live entries: conference to shard and generation. */
  async table(node) {
    const rows = await this.ask(node, 'table', 'show');
    return new Map(rows.filter((row) => row.shard).map((row) => [row.key, `${row.shard} g${row.generation}`]));
  }

  /** Waits until all nodes' tables are the same; answers when they were found to be. */
  async tablesEqual(withinMs) {
    let differ = '';
    const equal = async () => {
      const [first, ...others] = await Promise.all(this.nodes.map((node) => this.table(node)));
      const unlike = others.flatMap((other) => [...first].filter(([key, entry]) => other.get(key) !== entry).map(([key]) => key));
      const sizes = [first, ...others].map((table) => table.size);
      differ = `${new Set(unlike).size} entries differ, tables have ${sizes}`;
      return unlike.length === 0 && sizes.every((size) => size === first.size);
    };
    await until(equal, withinMs, () => differ);
    return Date.now();
  }

  async stop({ keep = false } = {}) {
    await this.mesh?.stop();
    await Promise.all([...this.paths.values()].map((path) => path.close()));
    await Promise.all(this.shards.map((shard) => shard.process?.kill()));
    if (!keep) rmSync(this.folder, { recursive: true, force: true });
  }
}
