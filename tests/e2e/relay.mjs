// A way from one process to another, which can be slow, or cut: a TCP relay that refuses while it is.
import { once } from 'node:events';
import { connect, createServer } from 'node:net';

export class Way {
  #server;
  #sockets = new Set();

  /** `from` and `to` are `IP:PORT`; `delayMs` in each direction. */
  constructor(from, to, { delayMs = 0 } = {}) {
    Object.assign(this, { from, to, delayMs });
  }

  async open() {
    if (this.#server) return;
    const [toIp, toPort] = this.to.split(':');
    const [ip, port] = this.from.split(':');
    this.#server = createServer((near) => {
      const far = connect(Number(toPort), toIp);
      for (const socket of [near, far]) {
        this.#sockets.add(socket);
        socket.setNoDelay(true);
        socket.on('close', () => this.#sockets.delete(socket));
        socket.on('error', () => {
          near.destroy();
          far.destroy();
        });
      }
      this.#carry(near, far);
      this.#carry(far, near);
    });
    this.#server.listen(Number(port), ip);
    await once(this.#server, 'listening');
  }

  /** Refuses from now on, and breaks what is there. */
  async cut() {
    const server = this.#server;
    if (!server) return;
    this.#server = undefined;
    for (const socket of this.#sockets) socket.resetAndDestroy();
    server.close();
    await once(server, 'close');
  }

  #carry(from, to) {
    if (this.delayMs === 0) {
      from.pipe(to);
      return;
    }
    from.on('data', (part) => setTimeout(() => to.write(part), this.delayMs));
    from.on('end', () => setTimeout(() => to.end(), this.delayMs));
  }
}
