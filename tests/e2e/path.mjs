// The path of packets from one node to another, which can be slow, or cut in one direction or both: a UDP relay.
import { createSocket } from 'node:dgram';
import { once } from 'node:events';

export class Path {
  #door;
  /** A socket towards the far end for each near one: QUIC tells connections apart by more than that, but answers go back where they came from. */
  #far = new Map();
  #timers = new Set();
  #lost = { there: false, back: false };

  /** `from` and `to` are `IP:PORT`; `delayMs` in each direction. */
  constructor(from, to, { delayMs = 0 } = {}) {
    Object.assign(this, { from, to, delayMs });
  }

  async open() {
    const [ip, port] = this.from.split(':');
    this.#door = createSocket('udp4');
    this.#door.on('message', (packet, near) => this.#there(packet, near));
    this.#door.bind(Number(port), ip);
    await once(this.#door, 'listening');
  }

  /** Loses every packet `there`, `back`, or in `both` directions from now on. */
  cut(direction = 'both') {
    this.#lost = { there: direction !== 'back', back: direction !== 'there' };
  }

  heal() {
    this.#lost = { there: false, back: false };
  }

  async close() {
    for (const timer of this.#timers) clearTimeout(timer);
    const sockets = [this.#door, ...this.#far.values()];
    this.#far.clear();
    await Promise.all(
      sockets.map(async (socket) => {
        socket.close();
        await once(socket, 'close');
      }),
    );
  }

  #there(packet, near) {
    const [ip, port] = this.to.split(':');
    const far = this.#towards(near);
    this.#carry('there', () => far.send(packet, Number(port), ip));
  }

  #towards(near) {
    const key = `${near.address}:${near.port}`;
    const known = this.#far.get(key);
    if (known) return known;
    const far = createSocket('udp4');
    // What nobody listens for comes back as an error: the far end's process is gone.
    far.on('error', () => {});
    far.on('message', (packet) => this.#carry('back', () => this.#door.send(packet, near.port, near.address)));
    this.#far.set(key, far);
    return far;
  }

  #carry(direction, send) {
    if (this.#lost[direction]) return;
    if (this.delayMs === 0) {
      send();
      return;
    }
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      send();
    }, this.delayMs);
    this.#timers.add(timer);
  }
}
