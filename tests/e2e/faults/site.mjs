// Nodes with a path of their own to each other, and shards, on addresses of this part alone: 127.90.0.0/16.
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Network } from '../network.mjs';
import { Child } from '../process.mjs';
import { until } from '../until.mjs';

const SHARD = fileURLToPath(new URL('shard.mjs', import.meta.url));
const PORT = 8443;
const START_MS = 20_000;
let sites = 0;

/** So many shards on `net`; start them. */
export function shardsOn(net, count) {
  return Array.from({ length: count }, (_, n) => {
    const ip = `${net}.${100 + n}`;
    return { name: `s${n + 1}`, id: n + 1, ip, region: 'here', state: 'ready', address: `${ip}:${PORT}` };
  });
}

export async function startShard(shard, folder) {
  shard.log = join(folder, `${shard.name}.log`);
  shard.process = new Child(shard.name, 'node', [SHARD, shard.name, shard.ip, String(PORT)], shard.log, { stdin: 'pipe' });
  const listening = () => readFileSync(shard.log, 'utf8').includes('listening');
  await until(() => shard.process.mustRun() ?? listening(), START_MS, () => `${shard.name} listens`);
}

export class Site extends Network {
  /** `nodes` nodes with paths of `delayMs` one way, and `shards` shards; `prepared(folder)` is called before they start. */
  static async start({ nodes = 4, shards = 4, expire = '60s', prepared = () => {}, ...more }) {
    sites += 1;
    const net = `127.90.${sites}`;
    const folder = mkdtempSync(join(tmpdir(), 'shardgate-faults-'));
    prepared(folder);
    const site = new Site({
      ...more,
      name: 'mesh',
      folder,
      expire,
      release: 'release-1',
      doorOf: (n) => `${net}.${150 + n}`,
      nodes: Array.from({ length: nodes }, (_, n) => ({ name: `n${n + 1}`, region: 'here', ip: `${net}.${10 + n}` })),
      shards: shardsOn(net, shards),
    });
    Object.assign(site, { net, others: 0 });
    await Promise.all(site.shards.map((shard) => startShard(shard, folder)));
    await site.start();
    return site;
  }

  get shards() {
    return this.mesh.shards;
  }

  /** An address of its own for something else. */
  free() {
    this.others += 1;
    return `${this.net}.${199 + this.others}`;
  }

  async stop({ keep = false } = {}) {
    await super.stop();
    await Promise.all(this.shards.map((shard) => shard.process?.kill()));
    if (!keep) rmSync(this.folder, { recursive: true, force: true });
  }
}
