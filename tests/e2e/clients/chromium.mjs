// Headless Chromium, driven by its DevTools protocol over a pair of pipes: no library and no port.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

const ANSWER_MS = 20_000;
const STOP_MS = 10_000;

export class Chromium {
  #waiting = new Map();
  #listeners = [];
  #next = 1;
  #rest = '';

  /** Starts a browser with a profile in `folder`; `spki` are hashes of keys whose certificates it takes without a CA. */
  constructor(folder, { netLog, spki }) {
    this.folder = join(folder, 'profile');
    this.child = spawn(
      'chromium',
      [
        '--headless=new',
        '--remote-debugging-pipe',
        '--no-sandbox',
        '--disable-gpu',
        '--disable-dev-shm-usage',
        '--no-first-run',
        '--disable-background-networking',
        '--disable-component-update',
        '--disable-sync',
        '--window-size=1100,760',
        `--user-data-dir=${this.folder}`,
        `--ignore-certificate-errors-spki-list=${spki.join(',')}`,
        `--log-net-log=${netLog}`,
      ],
      { stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'] },
    );
    this.ended = once(this.child, 'exit');
    this.child.stdio[4].setEncoding('utf8').on('data', (piece) => this.#hear(piece));
    // A browser that ends early is told by the calls that wait for it.
    this.child.stdio[3].on('error', () => {});
    this.ended.then(([code, signal]) => {
      for (const { reject } of this.#waiting.values()) reject(new Error(`chromium ended: ${code ?? signal}`));
    });
  }

  /** Calls a method of the protocol and answers its result. */
  async call(method, params = {}, sessionId = undefined) {
    const id = this.#next;
    this.#next += 1;
    const bound = new AbortController();
    const answer = new Promise((resolve, reject) => this.#waiting.set(id, { resolve, reject }));
    this.child.stdio[3].write(`${JSON.stringify({ id, method, params, sessionId })}\0`);
    const late = delay(ANSWER_MS, null, { signal: bound.signal }).then(
      () => Promise.reject(new Error(`chromium did not answer ${method} within ${ANSWER_MS} ms`)),
      () => {},
    );
    try {
      return await Promise.race([answer, late]);
    } finally {
      bound.abort();
      this.#waiting.delete(id);
    }
  }

  /** Calls `listener(method, params, sessionId)` for every event. */
  onEvent(listener) {
    this.#listeners.push(listener);
  }

  /** A new tab. */
  async open() {
    const { targetId } = await this.call('Target.createTarget', { url: 'about:blank' });
    const { sessionId } = await this.call('Target.attachToTarget', { targetId, flatten: true });
    const tab = new Tab(this, sessionId);
    for (const domain of ['Network', 'Page', 'Runtime', 'Log']) await this.call(`${domain}.enable`, {}, sessionId);
    return tab;
  }

  /** Ends the browser as its user would: the net log is whole only then. */
  async stop() {
    await this.call('Browser.close').catch(() => {});
    const bound = new AbortController();
    await Promise.race([this.ended, delay(STOP_MS, null, { signal: bound.signal })]);
    bound.abort();
    if (this.child.exitCode === null && this.child.signalCode === null) this.child.kill('SIGKILL');
    await this.ended;
    rmSync(this.folder, { recursive: true, force: true, maxRetries: 5 });
  }

  #hear(piece) {
    const messages = (this.#rest + piece).split('\0');
    this.#rest = messages.pop();
    for (const text of messages) {
      const { id, result, error, method, params, sessionId } = JSON.parse(text);
      if (id === undefined) {
        for (const listener of this.#listeners) listener(method, params, sessionId);
      } else if (error) {
        this.#waiting.get(id)?.reject(new Error(error.message));
      } else {
        this.#waiting.get(id)?.resolve(result);
      }
    }
  }
}

/** One tab, and what its network did. */
export class Tab {
  constructor(browser, sessionId) {
    this.browser = browser;
    this.sessionId = sessionId;
    /** Events of the Network domain: `{ method, params }`. */
    this.network = [];
    /** What went wrong in the page. */
    this.faults = [];
    browser.onEvent((method, params, session) => {
      if (session !== sessionId) return;
      if (method.startsWith('Network.')) this.network.push({ method, params });
      if (method === 'Runtime.exceptionThrown') this.faults.push(params.exceptionDetails.text);
    });
  }

  /** Opens a page; an error of the network is an error here. */
  async navigate(url) {
    const { errorText } = await this.browser.call('Page.navigate', { url }, this.sessionId);
    if (errorText) throw new Error(`${url}: ${errorText}`);
  }

  /** The value of an expression in the page. */
  async evaluate(expression) {
    const params = { expression, returnByValue: true, awaitPromise: true };
    const { result, exceptionDetails } = await this.browser.call('Runtime.evaluate', params, this.sessionId);
    if (exceptionDetails) throw new Error(`in the page: ${exceptionDetails.text}`);
    return result.value;
  }

  /** A picture of the page, PNG. */
  async screenshot() {
    const { data } = await this.browser.call('Page.captureScreenshot', { format: 'png' }, this.sessionId);
    return Buffer.from(data, 'base64');
  }
}
