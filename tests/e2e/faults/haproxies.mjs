// The fleet that shardgate replaces: HAProxies that replicate their stick tables, with a way of their own to each other, and shards, on
// addresses of this part alone: 127.91.0.0/16.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { HaProxy } from '../haproxy.mjs';
import { Way } from '../relay.mjs';
import { until } from '../until.mjs';
import { shardsOn, startShard } from './site.mjs';

const PORT = 8000;
const PEER_PORT = 1024;
// They dial each other every 5 s.
const LINKS_MS = 20_000;
let fleets = 0;

export class Fleet {
  /** `nodes` HAProxies with ways of `delayMs` one way, and `shards` shards. */
  static async start({ nodes = 4, shards = 4, delayMs = 0 }) {
    fleets += 1;
    const net = `127.91.${fleets}`;
    const folder = mkdtempSync(join(tmpdir(), 'shardgate-faults-'));
    const fleet = Object.assign(new Fleet(), { folder, shards: shardsOn(net, shards), nodes: [], ways: new Map() });
    const own = (n) => `${net}.${10 + n}:${PEER_PORT}`;
    const numbers = Array.from({ length: nodes }, (_, n) => n);
    try {
      await Promise.all(fleet.shards.map((shard) => startShard(shard, folder)));
      for (const a of numbers) {
        for (const b of numbers) {
          if (a === b) continue;
          const way = new Way(`${net}.${150 + a}:${PEER_PORT + b}`, own(b), { delayMs });
          await way.open();
          fleet.ways.set(`${a} ${b}`, way);
        }
      }
      for (const n of numbers) {
        const peers = numbers.map((other) => ({ name: `h${other}`, address: other === n ? own(n) : fleet.ways.get(`${n} ${other}`).from }));
        fleet.nodes.push(await HaProxy.start(folder, `h${n}`, `${net}.${10 + n}:${PORT}`, fleet.shards, { peers }));
      }
      await fleet.linked(fleet.nodes, nodes - 1);
    } catch (error) {
      await fleet.stop();
      throw error;
    }
    return fleet;
  }

  /** Cuts the ways between two groups, and waits until all have noticed. */
  async cut(some, others) {
    for (const way of this.#between(some, others)) await way.cut();
    await this.linked(some, some.length - 1);
    await this.linked(others, others.length - 1);
  }

  async heal(some, others) {
    for (const way of this.#between(some, others)) await way.open();
  }

  /** Waits until each of these has so many peers. */
  async linked(nodes, peers) {
    let seen = [];
    const all = async () => (seen = await Promise.all(nodes.map((node) => node.peers()))).every((count) => count === peers);
    await until(all, LINKS_MS, () => `${nodes.length} HAProxies have ${peers} peers each: ${seen}`);
  }

  /** Lets each place new conferences on these shards alone. */
  async places(takes) {
    for (const node of this.nodes) {
      for (const shard of this.shards) await node.say(`set server nodes/1-${shard.name} weight ${takes(node, shard) ? '100%' : 0}`);
    }
  }

  /** How many keys not all of them have with the same server. */
  async differing() {
    const tables = await Promise.all(this.nodes.map((node) => node.table()));
    const keys = new Set(tables.flatMap((table) => [...table.keys()]));
    return [...keys].filter((key) => new Set(tables.map((table) => table.get(key))).size > 1).length;
  }

  mustRun() {
    for (const node of this.nodes) node.process.mustRun();
  }

  async stop({ keep = false } = {}) {
    for (const way of this.ways.values()) await way.cut();
    await Promise.all(this.nodes.map((node) => node.stop()));
    await Promise.all(this.shards.map((shard) => shard.process?.kill()));
    if (!keep) rmSync(this.folder, { recursive: true, force: true });
  }

  #between(some, others) {
    const number = (node) => this.nodes.indexOf(node);
    const pairs = some.flatMap((a) => others.flatMap((b) => [[a, b], [b, a]]));
    return pairs.map(([a, b]) => this.ways.get(`${number(a)} ${number(b)}`));
  }
}
