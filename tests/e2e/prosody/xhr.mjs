// XMLHttpRequest over Node's http: as much of it as Strophe's BOSH asks for. Connections are kept open and shared between all requests, so
// a proxy that routes by connection instead of by request is found out; or belong to one browser, when the header CONNECTIONS names it.
import { Agent, request } from 'node:http';

const UNSENT = 0;
const OPENED = 1;
const DONE = 4;
/** As many connections to one host as browsers have. */
const CONNECTIONS_MAX = 6;
const shared = new Agent({ keepAlive: true });

/** A header that is not sent: its value, from `browser()`, has the connections that the request may use. */
export const CONNECTIONS = 'x-connections';

/** Connections of one browser. */
export const browser = () => new Agent({ keepAlive: true, maxSockets: CONNECTIONS_MAX });

/** An HTTP request as browsers offer it. `DOMParser` must be there (Strophe's Node build brings it). */
export class XMLHttpRequest {
  /** `{ at, url, status }` of every answer that was not 200, and of every request that broke with an `error`; not of those given up here. */
  static failures = [];

  #agent = shared;
  #headers = {};
  #answer;
  #asked;
  #aborted = false;

  readyState = UNSENT;
  status = 0;
  responseText = '';
  responseXML = null;
  onreadystatechange = () => {};

  open(method, url) {
    this.method = method;
    this.url = url;
    this.#enter(OPENED);
  }

  setRequestHeader(name, value) {
    if (name === CONNECTIONS) this.#agent = value;
    else this.#headers[name] = value;
  }

  /** A failed or aborted request ends with status 0, as in a browser. */
  async send(body) {
    let broken;
    try {
      const text = await this.#ask(body);
      if (text) this.responseXML = new DOMParser().parseFromString(text, 'text/xml');
      this.responseText = text;
      this.status = this.#answer.statusCode;
    } catch (error) {
      broken = error.code ?? error.message;
      this.status = 0;
    }
    if (this.status !== 200 && !this.#aborted) {
      XMLHttpRequest.failures.push({ at: performance.now(), url: this.url, status: this.status, error: broken });
    }
    this.#enter(DONE);
  }

  abort() {
    this.#aborted = true;
    this.#asked?.destroy();
  }

  getAllResponseHeaders() {
    return Object.entries(this.#answer?.headers ?? {}).map(([name, value]) => `${name}: ${value}\r\n`).join('');
  }

  #ask(body) {
    return new Promise((resolve, reject) => {
      this.#asked = request(this.url, { method: this.method, headers: this.#headers, agent: this.#agent }, (answer) => {
        this.#answer = answer;
        const parts = [];
        answer.on('data', (part) => parts.push(part));
        answer.on('error', reject);
        answer.on('end', () => resolve(Buffer.concat(parts).toString()));
      });
      this.#asked.on('error', reject);
      this.#asked.end(body);
    });
  }

  #enter(state) {
    this.readyState = state;
    this.onreadystatechange();
  }
}
