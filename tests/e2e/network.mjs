// Nodes with a path of their own to each other, which can be slow or cut, and a socket each where they take orders.
import { join } from 'node:path';
import { Mesh } from './mesh.mjs';
import { Path } from './path.mjs';
import { mustRun } from './process.mjs';
import { until } from './until.mjs';

// Where packets are lost in one direction, one side notices after its own silence has made the other one silent.
const LINKS_MS = 45_000;

export class Network {
  #doorOf;
  #delayMs;

  /** `ctl` is shardgatectl; `doorOf(n)` the address at which the n-th node finds its paths, of `delayMs` one way; the rest is as a Mesh has it. */
  constructor({ ctl, folder, doorOf, delayMs = 0, settings = () => '', ...mesh }) {
    this.ctl = ctl;
    this.folder = folder;
    this.paths = new Map();
    this.#doorOf = doorOf;
    this.#delayMs = delayMs;
    this.mesh = new Mesh({
      ...mesh,
      folder,
      settings: (node) => `[[admin]]\nlisten = "unix:${this.orders(node)}"\nserve = ["status", "admin"]\n${settings(node)}`,
      peerAddressOf: (node, peer) => this.paths.get(`${node.name} ${peer.name}`)?.from ?? peer.mesh,
    });
  }

  async start() {
    for (const [a, near] of this.nodes.entries()) {
      for (const [b, far] of this.nodes.entries()) {
        if (a === b) continue;
        const path = new Path(`${this.#doorOf(a)}:${7100 + b}`, far.mesh, { delayMs: this.#delayMs });
        await path.open();
        this.paths.set(`${near.name} ${far.name}`, path);
      }
    }
    await this.mesh.start();
  }

  async stop() {
    await this.mesh.stop();
    await Promise.all([...this.paths.values()].map((path) => path.close()));
    this.paths.clear();
  }

  mustRun() {
    this.mesh.mustRun();
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

  /** Waits until the nodes count so many sessions over BOSH: a sweep of each second does. */
  async boshSessions(expected, withinMs = 10_000) {
    let counted = 0;
    const all = async () => {
      const statuses = (await Promise.all(this.nodes.map((node) => this.ask(node, 'status')))).flat();
      counted = statuses.reduce((sum, status) => sum + status.bosh_sessions, 0);
      return counted === expected;
    };
    await until(all, withinMs, () => `${counted} BOSH sessions are counted of ${expected}`);
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
}
