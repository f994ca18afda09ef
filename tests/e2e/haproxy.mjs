// A real HAProxy with a stick table of Jitsi's kind, and what its stats socket says.
import { writeFileSync } from 'node:fs';
import { createConnection } from 'node:net';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Child, mustRun } from './process.mjs';
import { until } from './until.mjs';

const bench = (file) => fileURLToPath(new URL(`../bench/${file}`, import.meta.url));
const ROOT = join(process.env.SHARDGATE_CACHE || join(homedir(), '.cache/shardgate'), 'haproxy-3');

export class HaProxy {
  /**
   * Starts one at `address` with these shards, which it calls and numbers as Jitsi's templates do. `peers` are `{ name, address }` each,
   * itself among them: they replicate the table.
   */
  static async start(folder, name, address, shards, { release = '1', keyLength = 200, peers = [] } = {}) {
    await mustRun(bench('get-haproxy'), [ROOT], { withinMs: 300_000 });
    const haproxy = Object.assign(new HaProxy(), { address, socket: join(folder, `${name}.stats`) });
    const servers = shards.map((shard) => `    server ${release}-${shard.name} ${shard.address} id ${shard.id + 10}`);
    const mesh = peers.length > 0 ? ['peers mesh', ...peers.map((peer) => `    peer ${peer.name} ${peer.address}`)] : [];
    const file = join(folder, `${name}.cfg`);
    writeFileSync(
      file,
      `global
    nbthread 1
    maxconn 4000
    stats socket ${haproxy.socket} mode 600 level admin
defaults
    mode http
    timeout connect 1s
    timeout client 1m
    timeout server 1m
    timeout tunnel 1h
frontend web
    bind ${address}
    default_backend nodes
${mesh.join('\n')}
backend nodes
    balance url_param room
    hash-type consistent sdbm avalanche
    hash-balance-factor 150
    stick-table type string len ${keyLength} size 200k expire 5m${peers.length > 0 ? ' peers mesh' : ''}
    stick match url_param(room)
    stick store-request url_param(room)
${servers.join('\n')}
`,
    );
    const env = { ...process.env, HAPROXY_ROOT: ROOT };
    const args = ['-L', name, '-f', file];
    await mustRun(bench('run-haproxy'), ['-c', ...args], { env });
    haproxy.process = new Child(name, bench('run-haproxy'), args, join(folder, `${name}.log`), { env });
    await until(async () => haproxy.process.mustRun() ?? (await haproxy.say('show info').catch(() => '')).includes('Version'), 20_000, () => `${name} listens`);
    return haproxy;
  }

  /** One command of its Runtime API. */
  say(command) {
    return new Promise((resolve, reject) => {
      const socket = createConnection(this.socket, () => socket.end(`${command}\n`));
      let said = '';
      socket.on('data', (part) => (said += part));
      socket.on('error', reject);
      socket.on('close', () => resolve(said));
    });
  }

  /** The server id of a key, as its table has it. */
  async idOf(key) {
    return Number((await this.say(`show table nodes key ${key}`)).match(/server_id=(\d+)/)?.[1]);
  }

  /** Its entries, key to server id. */
  async table() {
    const rows = (await this.say('show table nodes')).matchAll(/ key=(\S+) .*server_id=(\d+)/g);
    return new Map([...rows].map(([, key, id]) => [key, Number(id)]));
  }

  /** How many others its table is replicated with right now. */
  async peers() {
    return ((await this.say('show peers')).match(/\(remote,.*last_status=ESTA/g) ?? []).length;
  }

  stop() {
    return this.process.stop();
  }
}
