// XMLHttpRequest over Node's fetch: as much of it as Strophe's BOSH asks for. Node keeps the connections of an origin open and
// shares them between requests, as browsers do, so a proxy that routes by connection instead of by request is found out.

const UNSENT = 0;
const OPENED = 1;
const DONE = 4;

/** An HTTP request as browsers offer it. `DOMParser` must be there (Strophe's Node build brings it). */
export class XMLHttpRequest {
  #headers = new Headers();
  #answer;
  #abort = new AbortController();

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
    this.#headers.set(name, value);
  }

  /** A failed or aborted request ends with status 0, as in a browser. */
  async send(body) {
    try {
      const { method, url } = this;
      this.#answer = await fetch(url, { method, body, headers: this.#headers, signal: this.#abort.signal });
      this.responseText = await this.#answer.text();
      if (this.responseText) this.responseXML = new DOMParser().parseFromString(this.responseText, 'text/xml');
      this.status = this.#answer.status;
    } catch {
      this.status = 0;
    }
    this.#enter(DONE);
  }

  abort() {
    this.#abort.abort();
  }

  getAllResponseHeaders() {
    return [...(this.#answer?.headers ?? [])].map(([name, value]) => `${name}: ${value}\r\n`).join('');
  }

  #enter(state) {
    this.readyState = state;
    this.onreadystatechange();
  }
}
