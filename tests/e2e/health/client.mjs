// People: requests, WebSockets that come back, and a steady load of requests that is accounted for.
import { randomBytes } from 'node:crypto';
import { Agent, get, request } from 'node:http';
import { setTimeout as delay } from 'node:timers/promises';

/** One request; answers `{ status, shard }`, or `{ error }` when the connection broke or nothing came in time. */
export function ask(address, target, { agent, method = 'GET', body = '', withinMs = 20_000 } = {}) {
  const began = performance.now();
  const took = () => performance.now() - began;
  return new Promise((resolve) => {
    const options = { agent, method, headers: body ? { 'content-length': Buffer.byteLength(body) } : {} };
    const asked = request(`http://${address}${target}`, options, (response) => {
      response.resume();
      response.on('end', () => resolve({ status: response.statusCode, shard: response.headers['x-jitsi-shard'], tookMs: took() }));
      response.on('error', (error) => resolve({ error: error.code ?? error.message, tookMs: took() }));
    });
    asked.setTimeout(withinMs, () => asked.destroy(new Error('nothing in time')));
    asked.on('error', (error) => resolve({ error: error.code ?? error.message, tookMs: took() }));
    asked.end(body);
  });
}

/** The target of a join over BOSH. */
export const join = (room) => `/http-bind?room=${room}`;

/** A person who sits in a room over a WebSocket and comes back, through one of `addresses`, when it is closed. */
export class Person {
  #socket;
  #gone = false;
  #pings;
  /** `{ at, shard }` of each connection, `{ at, closed }` of each end. */
  events = [];

  constructor(room, addresses, { pingMs = 1_000, pause = () => 200 + Math.random() * 600 } = {}) {
    Object.assign(this, { room, addresses, pingMs, pause });
  }

  get shard() {
    return this.#socket ? this.events.findLast((event) => event.shard)?.shard : undefined;
  }

  get closes() {
    return this.events.filter((event) => event.closed).length;
  }

  /** Comes in; answers the shard. */
  async enter() {
    const address = this.addresses[Math.floor(Math.random() * this.addresses.length)];
    return new Promise((resolve, reject) => {
      const asked = get(`http://${address}/xmpp-websocket?room=${this.room}`, {
        headers: {
          connection: 'Upgrade',
          upgrade: 'websocket',
          'sec-websocket-version': '13',
          'sec-websocket-key': randomBytes(16).toString('base64'),
        },
      });
      asked.setTimeout(10_000, () => asked.destroy(new Error('no answer')));
      asked.on('upgrade', (response, socket) => {
        this.#socket = socket;
        const shard = response.headers['x-jitsi-shard'];
        this.events.push({ at: Date.now(), shard });
        socket.resume();
        socket.setNoDelay(true);
        socket.on('error', () => {});
        socket.on('close', () => this.#closed(socket));
        this.#pings = setInterval(() => socket.write(Buffer.from('ping')), this.pingMs);
        resolve(shard);
      });
      asked.on('response', (response) => {
        response.resume();
        reject(new Error(`${this.room}: status ${response.statusCode}`));
      });
      asked.on('error', reject);
    });
  }

  #closed(socket) {
    if (this.#socket !== socket) return;
    this.#socket = undefined;
    clearInterval(this.#pings);
    if (this.#gone) return;
    this.events.push({ at: Date.now(), closed: true });
    this.#comeBack();
  }

  async #comeBack() {
    while (!this.#gone && !this.#socket) {
      await delay(this.pause());
      await this.enter().catch(() => {});
    }
  }

  leave() {
    this.#gone = true;
    clearInterval(this.#pings);
    this.#socket?.destroy();
  }
}

/** Requests for rooms, so many a second, through all addresses in turn. */
export class Load {
  results = [];
  #going = true;
  #open = new Set();

  constructor({ addresses, targets, perSecond, fresh = false, options = {} }) {
    Object.assign(this, { addresses, targets, perSecond, options });
    this.agent = fresh ? new Agent({ keepAlive: false }) : new Agent({ keepAlive: true, maxSockets: 256 });
    this.ended = this.#run();
  }

  async #run() {
    const began = performance.now();
    for (let number = 0; this.#going; number += 1) {
      const target = this.targets[number % this.targets.length];
      const address = this.addresses[number % this.addresses.length];
      const at = Date.now();
      const asked = ask(address, target, { agent: this.agent, ...this.options }).then((result) => {
        this.results.push({ at, address, target, ...result });
        this.#open.delete(asked);
      });
      this.#open.add(asked);
      const due = began + ((number + 1) * 1_000) / this.perSecond;
      await delay(Math.max(0, due - performance.now()));
    }
    await Promise.all(this.#open);
    this.agent.destroy();
  }

  /** Ends it, and answers every result once all are there. */
  async stop() {
    this.#going = false;
    await this.ended;
    return this.results;
  }
}

/** Results that are no 200. */
export const failed = (results) => results.filter((result) => result.status !== 200);

/** `2 ECONNRESET, 1 503`. */
export function kinds(results) {
  const counts = new Map();
  for (const { status, error } of results) counts.set(error ?? status, (counts.get(error ?? status) ?? 0) + 1);
  return [...counts].map(([kind, count]) => `${count} ${kind}`).join(', ') || 'none';
}
