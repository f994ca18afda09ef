// One shard: a real Prosody with a configuration and a data folder of its own.
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Child } from '../process.mjs';
import { until } from '../until.mjs';

export const DOMAIN = 'meet.test';
export const MUC = 'conference.meet.test';
const PLUGINS = fileURLToPath(new URL('plugins', import.meta.url));
const PORT = 5280;
const START_MS = 15_000;

export class Shard {
  constructor({ name, id, region, ip, folder }) {
    Object.assign(this, { name, id, region, ip });
    this.address = `${ip}:${PORT}`;
    this.state = 'ready';
    this.home = join(folder, name);
    this.log = join(folder, 'logs', `${name}.log`);
    mkdirSync(join(this.home, 'data'), { recursive: true });
    writeFileSync(join(this.home, 'prosody.cfg.lua'), this.#config());
  }

  async start() {
    this.process = new Child(this.name, 'prosody', ['-F', '--config', join(this.home, 'prosody.cfg.lua')], this.log);
    await until(() => this.#answers(), START_MS, () => `${this.name} (prosody) does not answer on ${this.address}, see ${this.log}`);
  }

  async #answers() {
    this.process.mustRun();
    const answer = await fetch(`http://${this.address}/_unlock`).catch(() => null);
    return answer?.headers.get('x-jitsi-shard') === this.name;
  }

  // `storage = "memory"`: a shard that was killed knows nothing of its rooms, as a real one whose machine died.
  #config() {
    return `
run_as_root = ${process.getuid() === 0}
pidfile = "${this.home}/prosody.pid"
data_path = "${this.home}/data"
plugin_paths = { "${PLUGINS}" }
log = { { levels = { min = "info" }, to = "console" } }
storage = "memory"
authentication = "anonymous"
modules_enabled = { "saslauth", "disco", "ping", "bosh", "websocket", "jitsi_shard" }
modules_disabled = { "s2s", "admin_socket" }
c2s_ports = {}
c2s_direct_tls_ports = {}
s2s_ports = {}
c2s_require_encryption = false
http_interfaces = { "${this.ip}" }
http_ports = { ${PORT} }
https_ports = {}
http_default_host = "${DOMAIN}"
cross_domain_bosh = true
cross_domain_websocket = true
consider_bosh_secure = true
consider_websocket_secure = true
jitsi_shard = "${this.name}"
jitsi_region = "${this.region}"

VirtualHost "${DOMAIN}"

Component "${MUC}" "muc"
	muc_room_locking = false
	muc_room_default_public = false
`;
  }
}
