// People: over WebSockets (health/client.mjs) and over BOSH, both coming back after 0.2 to 1.5 s.
import { Agent, request } from 'node:http';
import { setTimeout as delay } from 'node:timers/promises';
import { Person } from '../health/client.mjs';

const pause = () => 200 + Math.random() * 1_300;

/** Over a WebSocket. */
export class Talker extends Person {
  constructor(room, addresses) {
    super(room, addresses, { pingMs: 5_000, pause });
  }
}

/** Over BOSH: one request is always held; whose session is unknown begins anew. */
export class Poller {
  #gone = false;
  #agent = new Agent({ keepAlive: true, maxSockets: 1 });
  #asked;
  #sid;
  shard;
  /** `{ at, shard }` of each session's beginning, `{ at, closed }` of each end. */
  events = [];
  /** Answers other than 200, and broken connections: after these a real client stays away for 8 s and more. */
  errors = [];

  constructor(room, addresses) {
    Object.assign(this, { room, addresses, address: addresses[Math.floor(Math.random() * addresses.length)] });
  }

  get closes() {
    return this.events.filter((event) => event.closed).length;
  }

  /** Comes in; answers the shard. */
  async enter() {
    const { said, shard } = await this.#ask({});
    this.#sid = said.sid;
    this.shard = shard;
    this.events.push({ at: Date.now(), shard });
    this.#poll();
    return shard;
  }

  async #poll() {
    while (!this.#gone) {
      try {
        const { said } = await this.#ask({ sid: this.#sid });
        if (!said.condition) continue;
      } catch (error) {
        if (this.#gone) return;
        this.errors.push(error.message);
      }
      this.shard = undefined;
      this.events.push({ at: Date.now(), closed: true });
      this.#comeBack();
      return;
    }
  }

  async #comeBack() {
    for (;;) {
      await delay(pause());
      if (this.#gone) return;
      try {
        await this.enter();
        return;
      } catch (error) {
        this.errors.push(error.message);
      }
    }
  }

  #ask(words) {
    const body = JSON.stringify(words);
    return new Promise((resolve, reject) => {
      const asked = request(`http://${this.address}/http-bind?room=${this.room}`, {
        agent: this.#agent,
        method: 'POST',
        headers: { 'content-length': Buffer.byteLength(body) },
      });
      this.#asked = asked;
      asked.setTimeout(30_000, () => asked.destroy(new Error('nothing in time')));
      asked.on('error', reject);
      asked.on('response', (response) => {
        let text = '';
        response.on('data', (part) => (text += part));
        response.on('error', reject);
        response.on('end', () => {
          if (response.statusCode !== 200) return reject(new Error(`status ${response.statusCode}`));
          return resolve({ said: JSON.parse(text), shard: response.headers['x-jitsi-shard'] });
        });
      });
      asked.end(body);
    });
  }

  leave() {
    this.#gone = true;
    this.#asked?.destroy();
    this.#agent.destroy();
  }
}
