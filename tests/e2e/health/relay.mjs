// The way from one node to one shard, which can be cut: a TCP relay that refuses while it is.
import { once } from 'node:events';
import { connect, createServer } from 'node:net';

export class Way {
  #server;
  #sockets = new Set();

  /** `from` and `to` are `IP:PORT`. */
  constructor(from, to) {
    this.from = from;
    this.to = to;
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
      near.pipe(far);
      far.pipe(near);
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
}
