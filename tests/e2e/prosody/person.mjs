// One participant: a Strophe connection (WebSocket or BOSH) in one MUC room, which reconnects as lib-jitsi-meet does.
import { Strophe, $iq, $msg, $pres } from 'strophe.js';
import { DOMAIN, MUC } from './prosody.mjs';
import { until } from '../until.mjs';
import { CONNECTIONS, XMLHttpRequest, browser } from './xhr.mjs';

// Well inside `expire`, as 60 s are inside 5 min in production: an idle BOSH session is one request after the other.
const BOSH_WAIT_S = 2;
const RETRY_FIRST_MS = 100;
const RETRY_MOST_MS = 1500;
const ANSWER_MS = 20_000;

globalThis.XMLHttpRequest = XMLHttpRequest;
Strophe.setLogLevel(Strophe.LogLevel.FATAL);
// Strophe gives a request up after these multiples of the wait, meant for one of 60 s: with 2 s it would give up healthy ones.
Strophe.TIMEOUT = 5;
Strophe.SECONDARY_TIMEOUT = 3;

export class Person {
  /**
   * `node` is where this person comes in; `room` the conference, below `tenant` if given; `spelled` the room as written in
   * `?room=`, when it differs; `waitS` for how long a BOSH request is held; and `alone` means connections that nobody else uses.
   */
  constructor({ name, node, transport, room, tenant, spelled, waitS = BOSH_WAIT_S, alone = false }) {
    Object.assign(this, { name, node, transport, room, tenant, waitS });
    if (alone) this.connections = browser();
    const path = `${tenant ? `/${tenant}` : ''}/${transport === 'bosh' ? 'http-bind' : 'xmpp-websocket'}`;
    const scheme = transport === 'bosh' ? 'http' : 'ws';
    this.service = `${scheme}://${node.address}${path}?room=${encodeURIComponent(spelled ?? room)}`;
    // The name under which Jitsi's muc_domain_mapper keeps a tenant's room.
    this.muc = `${tenant ? `[${tenant}]` : ''}${room}@${MUC}`.toLowerCase();
    this.heard = new Set();
    /** `{ at, lost }` with the client library's reason for each lost connection, `{ at, shard }` for each time this person was in the room. */
    this.events = [];
    this.attempts = 0;
    this.#forget();
  }

  toString() {
    return `${this.name} (${this.transport} at ${this.node.name}, ${this.shard ?? 'not joined'})`;
  }

  /** How often this person's connection was lost. */
  get closes() {
    return this.events.filter((event) => event.lost).length;
  }

  /** In the room: the MUC has answered with this person's own presence, and the shard is known. */
  get joined() {
    return this.present && this.shard !== undefined;
  }

  /** Connects and joins. Whatever goes wrong later, the person comes back by itself until `leave`. */
  async join(withinMs = ANSWER_MS) {
    this.wanted = true;
    this.#connect();
    await until(() => this.joined, withinMs, () => `${this} could not join ${this.muc}: ${this.trouble ?? 'no answer'}`);
  }

  /** What somebody says who is not in the room is lost. */
  say(text) {
    if (!this.present) return;
    this.connection.send($msg({ to: this.muc, type: 'groupchat' }).c('body').t(text));
  }

  sees(other) {
    return this.present && this.occupants.has(other.nick);
  }

  hears(other, text) {
    return this.heard.has(`${other.name}: ${text}`);
  }

  /** Bytes that crossed this person's WebSocket in both directions. */
  get wireBytes() {
    // Strophe keeps the `ws` object as `_proto.socket`, and that one its TCP socket as `_socket`.
    const { bytesRead, bytesWritten } = this.connection._proto.socket._socket;
    return bytesRead + bytesWritten;
  }

  /** Says goodbye and waits until the connection is closed. */
  async leave() {
    this.wanted = false;
    clearTimeout(this.retry);
    const connection = this.connection;
    if (!connection || this.closed) return;
    if (this.present) connection.send($pres({ to: `${this.muc}/${this.nick}`, type: 'unavailable' }));
    connection.flush();
    connection.disconnect('leave');
    await until(() => this.closed, ANSWER_MS, () => `${this} could not leave`);
    this.connections?.destroy();
  }

  #forget() {
    this.present = false;
    this.shard = undefined;
    this.occupants = new Set();
    this.closed = false;
  }

  #connect() {
    this.#forget();
    this.attempts += 1;
    // A new nick per attempt: the last one may linger in a room whose shard has not noticed yet that its owner is gone.
    this.nick = `${this.name}#${this.attempts}`;
    const connection = new Strophe.Connection(this.service, this.connections && { customHeaders: { [CONNECTIONS]: this.connections } });
    this.connection = connection;
    connection.connect(DOMAIN, '', (status, reason) => this.#changed(connection, status, reason), this.waitS);
  }

  #changed(connection, status, reason) {
    if (connection !== this.connection) return;
    const { CONNECTED, DISCONNECTED, CONNFAIL, AUTHFAIL, ERROR } = Strophe.Status;
    if (reason) this.trouble = reason;
    if (status === CONNECTED) this.#enter();
    else if (status === DISCONNECTED || status === CONNFAIL || status === AUTHFAIL || status === ERROR) this.#lost(reason || 'closed');
  }

  #enter() {
    this.retries = 0;
    this.connection.addHandler((stanza) => this.#onPresence(stanza), null, 'presence');
    this.connection.addHandler((stanza) => this.#onMessage(stanza), null, 'message', 'groupchat');
    const info = $iq({ to: DOMAIN, type: 'get' }).c('query', { xmlns: Strophe.NS.DISCO_INFO });
    this.connection.sendIQ(info, (answer) => {
      Strophe.forEachChild(answer.firstElementChild, 'identity', (identity) => {
        if (identity.getAttribute('type') === 'shard') this.shard = identity.getAttribute('name');
      });
      this.#arrived();
    });
    const muc = $pres({ to: `${this.muc}/${this.nick}` }).c('x', { xmlns: Strophe.NS.MUC });
    // Without history: what is heard was said while being here.
    this.connection.send(muc.c('history', { maxstanzas: '0' }));
  }

  #onPresence(stanza) {
    const from = stanza.getAttribute('from');
    if (Strophe.getBareJidFromJid(from) !== this.muc) return true;
    const nick = Strophe.getResourceFromJid(from);
    const type = stanza.getAttribute('type');
    if (type === 'unavailable') this.occupants.delete(nick);
    else if (type === 'error') this.trouble = `presence error from ${from}`;
    else this.occupants.add(nick);
    this.present = this.occupants.has(this.nick);
    this.#arrived();
    return true;
  }

  #arrived() {
    if (this.joined && !this.events.at(-1)?.shard) this.events.push({ at: performance.now(), shard: this.shard });
  }

  #onMessage(stanza) {
    const nick = Strophe.getResourceFromJid(stanza.getAttribute('from'));
    const body = stanza.getElementsByTagName('body')[0];
    if (nick && body) this.heard.add(`${nick.split('#')[0]}: ${body.textContent}`);
    return true;
  }

  #lost(reason) {
    if (this.closed) return;
    this.#forget();
    this.closed = true;
    if (!this.wanted) return;
    this.events.push({ at: performance.now(), lost: reason });
    this.connection.reset();
    this.retries = (this.retries ?? 0) + 1;
    const backoff = Math.min(RETRY_FIRST_MS * 2 ** (this.retries - 1), RETRY_MOST_MS);
    this.retry = setTimeout(() => this.#connect(), backoff * (0.5 + Math.random() / 2));
  }
}
