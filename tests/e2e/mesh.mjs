// The real binary: certificates, configuration, one process per node.
import { mkdirSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Child, mustRun, run } from './process.mjs';
import { until } from './until.mjs';

const ENVIRONMENT = 'e2e';
const READY_MS = 20_000;
const FRONTEND_PORT = 8000;
const MESH_PORT = 7001;
const ADMIN_PORT = 8405;
const START_REFUSED_MS = 10_000;

/** `expire` of the stick table in these tests; production has 5 min. */
export const EXPIRE_MS = 4000;

/**
 * Nodes with a certificate authority and a discovery file each. `nodes`: `{ name, region, ip }` each; `settings(node)`: more of its
 * configuration; `hooksOf(node)`: its planted faults; `envOf(node)`: what its environment has beside this process' own; `addressOf(node, shard)` and
 * `peerAddressOf(node, peer)`: where that node finds them.
 */
export class Mesh {
  constructor({
    name,
    binary,
    hooks = [],
    hooksOf = () => [],
    envOf = () => ({}),
    nodes,
    folder,
    shards,
    release,
    expire = `${EXPIRE_MS / 1000}s`,
    settings = () => '',
    addressOf = (_, shard) => shard.address,
    peerAddressOf = (_, peer) => peer.mesh,
  }) {
    Object.assign(this, { binary, hooks, hooksOf, envOf, shards, release, expire, settings, addressOf, peerAddressOf });
    /** Whether a node's discovery does not list a shard. */
    this.hides = () => false;
    this.folder = join(folder, name);
    this.logs = join(folder, 'logs');
    mkdirSync(this.folder);
    mkdirSync(this.logs, { recursive: true });
    this.pki = join(this.folder, 'pki');
    this.nodes = nodes.map((node) => ({
      ...node,
      address: `${node.ip}:${FRONTEND_PORT}`,
      mesh: `${node.ip}:${MESH_PORT}`,
      admin: `${node.ip}:${ADMIN_PORT}`,
      config: join(this.folder, `${node.name}.toml`),
      discovery: join(this.folder, `discovery-${node.name}.toml`),
    }));
  }

  /** Creates certificates and files, starts every node and waits until all are ready. */
  async start() {
    await this.prepare();
    for (const node of this.nodes) {
      const args = ['serve', '--config', node.config, ...[...this.hooks, ...this.hooksOf(node)].flatMap((hook) => ['--test-hook', hook])];
      node.log = join(this.logs, `${node.name}.log`);
      node.process = new Child(node.name, this.binary, args, node.log, { env: { ...process.env, ...this.envOf(node) } });
    }
    await Promise.all(this.nodes.map((node) => this.#ready(node)));
  }

  async prepare() {
    await mustRun(this.binary, ['pki', 'init', '--dir', this.pki, '--environment', ENVIRONMENT]);
    this.writeDiscovery();
    for (const node of this.nodes) {
      await mustRun(this.binary, ['pki', 'issue', '--dir', this.pki, '--environment', ENVIRONMENT, '--peer', node.name]);
      writeFileSync(node.config, this.#config(node));
    }
  }

  /** How a node refuses `args` behind its `serve --config FILE`: exit code and output. */
  serveRefused(node, args) {
    return run(this.binary, ['serve', '--config', node.config, ...args], { withinMs: START_REFUSED_MS });
  }

  /** Writes the shards as they are now; the nodes pick it up. */
  writeDiscovery() {
    for (const node of this.nodes) this.#writeDiscovery(node);
  }

  #writeDiscovery(node) {
    const shards = this.shards.filter((shard) => !this.hides(node, shard)).map((shard) => `
[[shards]]
name = "${shard.name}"
id = ${shard.id}
region = "${shard.region}"
release = "${this.release}"
address = "${this.addressOf(node, shard)}"
state = "${shard.state}"
`);
    const peers = this.nodes.map((peer) => `
[[peers]]
id = "${peer.name}"
region = "${peer.region}"
address = "${this.peerAddressOf(node, peer)}"
`);
    const edited = `${node.discovery}.edited`;
    writeFileSync(edited, [`live_release = "${this.release}"\n`, ...shards, ...peers].join(''));
    renameSync(edited, node.discovery);
  }

  async stop() {
    await Promise.all(this.nodes.map((node) => node.process?.stop()));
  }

  mustRun() {
    for (const node of this.nodes) node.process?.mustRun();
  }

  async #ready(node) {
    let last = 'no answer';
    const readyz = async () => {
      node.process.mustRun();
      const answer = await fetch(`http://${node.admin}/readyz`).catch(() => null);
      if (answer) last = `${answer.status} ${(await answer.text()).trim()}`;
      return answer?.status === 200;
    };
    await until(readyz, READY_MS, () => `${node.name} is not ready (${last}), see ${node.log}`);
  }

  #config(node) {
    return `
[node]
id = "${node.name}"
region = "${node.region}"
environment = "${ENVIRONMENT}"

[frontend]
listen = ["${node.address}"]

[mesh]
listen = "${node.mesh}"
ca = "${this.pki}/ca.pem"
cert = "${this.pki}/${node.name}.pem"
key = "${this.pki}/${node.name}.key"

[discovery]
file = "${node.discovery}"

[stick_table]
expire = "${this.expire}"

[[admin]]
listen = "${node.admin}"
serve = ["status", "metrics"]
${this.settings(node)}`;
  }
}

/** The shard that `node` would choose for a room now, asked as lib-jitsi-meet asks: `GET /_unlock?room=R`, `x-jitsi-shard`. */
export async function shardChosenBy(node, room) {
  const answer = await fetch(`http://${node.address}/_unlock?room=${encodeURIComponent(room)}`);
  await answer.arrayBuffer();
  if (answer.status !== 200) throw new Error(`${node.name}: /_unlock?room=${room} answered ${answer.status}`);
  const region = answer.headers.get('x-proxy-region');
  if (region !== node.region) throw new Error(`${node.name}: its answers carry x-proxy-region: ${region}`);
  return answer.headers.get('x-jitsi-shard');
}
