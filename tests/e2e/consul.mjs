// A real Consul agent, alone in its datacenter, and what is written there.
import { mkdtempSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Child, mustRun } from './process.mjs';
import { until } from './until.mjs';

const FIND = fileURLToPath(new URL('../consul/get-consul', import.meta.url));
const START_MS = 60_000;

export class Consul {
  /** Starts one at `ip`:8500 that leads `datacenter`. */
  static async start(folder, ip, datacenter) {
    const program = (await mustRun(FIND, [], { withinMs: 300_000 })).trim().split('\n').pop();
    const consul = new Consul();
    consul.address = `${ip}:8500`;
    const log = join(mkdtempSync(join(folder, 'consul-')), 'log');
    const args = ['agent', '-dev', '-datacenter', datacenter, '-bind', ip, '-client', ip, '-log-level', 'warn', '-disable-host-node-id', '-node', 'consul'];
    consul.process = new Child('consul', program, args, log);
    const leads = async () => {
      consul.process.mustRun();
      const answer = await fetch(`http://${consul.address}/v1/status/leader`).catch(() => null);
      return answer?.ok && (await answer.text()) !== '""';
    };
    await until(leads, START_MS, () => `Consul leads itself, see ${log}`);
    return consul;
  }

  async put(key, value) {
    const answer = await fetch(`http://${this.address}/v1/kv/${key}`, { method: 'PUT', body: value });
    if ((await answer.text()).trim() !== 'true') throw new Error(`Consul does not take ${key}: ${answer.status}`);
  }

  async delete(key) {
    await fetch(`http://${this.address}/v1/kv/${key}`, { method: 'DELETE' });
  }

  /** Registers a shard as its own agent does: `{ name, id, ip, address }`. */
  async register(environment, { name, id, ip, address }, release) {
    const number = release.replace('release-', '');
    const service = {
      ID: `${environment}-${name}`,
      Name: 'signal',
      Tags: [environment, release, `shard-${name}`],
      Address: ip,
      Port: 5280,
      Meta: { environment, shard: name, shard_id: String(id), release_number: number, http_backend_port: address.split(':')[1] },
    };
    const answer = await fetch(`http://${this.address}/v1/agent/service/register`, { method: 'PUT', body: JSON.stringify(service) });
    if (!answer.ok) throw new Error(`Consul does not take ${name}: ${answer.status} ${await answer.text()}`);
  }

  /** Hangs with its connections open, or goes on. */
  hang(hangs) {
    this.process.child.kill(hangs ? 'SIGSTOP' : 'SIGCONT');
  }

  /** A shard's census, as its report job writes it: `rooms` are `[name, participants]`, begun an hour ago. */
  async report(environment, shard, rooms) {
    const began = Math.floor(Date.now() / 1_000) - 3_600;
    const room_census = rooms.map(([room, participants]) => ({
      room_name: `${room}@conference.meet.example.com`,
      participants,
      created_time: began,
    }));
    // Which host is whose shows only where a tenant's stands beside it.
    room_census.push({ room_name: '__jicofo-health-check@conference.acme.meet.example.com', participants: 0, created_time: began });
    await this.put(`signal-report/${environment}/${shard}`, JSON.stringify({ healthy: true, room_census }));
  }

  stop() {
    return this.process.stop();
  }
}
