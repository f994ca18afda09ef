// Two people in one browser, one through a node of each region, chat over WebSockets inside HTTP/2 (RFC 8441). The mesh is
// `shardgate dev --https`.
import { createHash, X509Certificate } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { connect } from 'node:tls';
import { once } from 'node:events';
import { Child } from '../process.mjs';
import { until } from '../until.mjs';
import { Chromium } from './chromium.mjs';

const IP = '127.0.0.1';
const START_MS = 30_000;
const PAGE_MS = 20_000;
const HTTPS_ABOVE_HTTP = 100;
const NODES = 4;

/** Starts the mesh and the browser, lets two people talk, and proves by what protocol they did. */
export async function chatOverHttp2({ binary, folder, logs }) {
  const base = await freeBase();
  const log = join(folder, 'dev.log');
  const dev = new Child('dev', binary, ['dev', '--https', '--base-port', String(base)], log);
  const netLog = join(logs, 'clients-netlog.json');
  let browser;
  try {
    const [here, there] = [0, NODES - 1].map((node) => base + HTTPS_ABOVE_HTTP + node);
    const told = () => readFileSync(log, 'utf8');
    for (const port of [here, there]) {
      await until(() => told().includes(`https://${IP}:${port}/hello`), START_MS, () => `dev tells of port ${port}: ${told()}`);
    }
    dev.mustRun();
    browser = new Chromium(folder, { netLog, spki: [await spkiOf(here)] });
    const [ann, ben] = [await browser.open(), await browser.open()];
    await ann.navigate(`https://${IP}:${here}/http2-room?name=Ann`);
    await joined(ann, 'Ann');
    await ben.navigate(`https://${IP}:${there}/http2-room?name=Ben`);
    await joined(ben, 'Ben');
    await say(ann, 'hello from region-a, inside HTTP/2');
    await heard(ben, 'hello from region-a, inside HTTP/2');
    await say(ben, 'and hello back from region-b');
    await heard(ann, 'and hello back from region-b');
    const shards = await Promise.all([ann, ben].map((tab) => tab.evaluate(`document.getElementById('shard').textContent`)));
    mustBe(shards[0] === shards[1], `one shard for both: ${shards}`);
    const regions = await ann.evaluate(`document.getElementById('people').innerText`);
    mustBe(/region-a/.test(regions) && /region-b/.test(regions), `both regions among the people: ${regions}`);
    for (const [name, tab] of Object.entries({ ann, ben })) {
      byHttp2(name, tab);
      writeFileSync(join(logs, `clients-room-${name}.png`), await tab.screenshot());
      mustBe(tab.faults.length === 0, `no error in the page of ${name}: ${tab.faults}`);
    }
  } finally {
    await browser?.stop();
    await dev.stop();
  }
  websocketsInStreams(netLog, 2);
}

function mustBe(holds, what) {
  if (!holds) throw new Error(`expected ${what}`);
}

/** What DevTools says: the page came by h2, and the WebSocket's handshake was answered as HTTP/2 does. */
function byHttp2(name, tab) {
  const documents = tab.network.filter(({ method, params }) => method === 'Network.responseReceived' && params.type === 'Document');
  const protocols = documents.map(({ params }) => params.response.protocol);
  mustBe(protocols.length === 1 && protocols[0] === 'h2', `the page of ${name} by h2, not ${protocols}`);
  const sockets = tab.network.filter(({ method }) => method === 'Network.webSocketCreated');
  mustBe(sockets.length === 1 && sockets[0].params.url.startsWith('wss://'), `one wss socket of ${name}: ${JSON.stringify(sockets)}`);
  const frames = tab.network.filter(({ method }) => method === 'Network.webSocketFrameReceived');
  mustBe(frames.length >= 3, `frames in the socket of ${name}, not ${frames.length}`);
  const broken = tab.network.filter(({ method }) => method === 'Network.webSocketFrameError');
  mustBe(broken.length === 0, `no broken frame of ${name}: ${JSON.stringify(broken)}`);
}

/** What the browser's own log of its network says: extended CONNECT with `:protocol: websocket`, answered with 200. */
function websocketsInStreams(netLog, count) {
  const { constants, events } = JSON.parse(readFileSync(netLog, 'utf8'));
  const named = (name) => events.filter(({ type }) => type === constants.logEventTypes[name]);
  const sent = named('HTTP2_SESSION_SEND_HEADERS').filter(({ params }) => params?.headers?.includes(':protocol: websocket'));
  mustBe(sent.length === count, `${count} extended CONNECTs in the net log, not ${sent.length}`);
  for (const { params, source } of sent) {
    mustBe(params.headers.includes(':method: CONNECT'), `CONNECT in ${params.headers}`);
    const answer = named('HTTP2_SESSION_RECV_HEADERS').find(
      (event) => event.source.id === source.id && event.params.stream_id === params.stream_id,
    );
    mustBe(answer?.params.headers.includes(':status: 200'), `200 on stream ${params.stream_id}: ${answer?.params.headers}`);
    // The same connection carried the page.
    const pages = named('HTTP2_SESSION_SEND_HEADERS').filter(
      (event) => event.source.id === source.id && event.params.headers.some((field) => field.startsWith(':path: /http2-room?name=')),
    );
    mustBe(pages.length === 1, `the page in the connection of the WebSocket, ${pages.length} times`);
  }
  console.log(`# ${sent.length} WebSockets in HTTP/2 streams, each in the connection of its page`);
}

async function joined(tab, name) {
  const state = () => tab.evaluate(`document.getElementById('state')?.textContent + ' ' + document.getElementById('people')?.innerText`);
  await until(async () => (await state()).startsWith('connected') && (await state()).includes(name), PAGE_MS, async () => `${name} is connected, the page says ${await state()}`);
}

function say(tab, text) {
  return tab.evaluate(`(() => { const form = document.getElementById('say'); form.text.value = ${JSON.stringify(text)}; form.requestSubmit(); })()`);
}

async function heard(tab, text) {
  const talk = () => tab.evaluate(`document.getElementById('talk').innerText`);
  await until(async () => (await talk()).includes(text), PAGE_MS, async () => `"${text}" in the talk, which is ${await talk()}`);
}

/** The first port of four, with four more a hundred above, that nobody listens on. */
async function freeBase() {
  for (let base = 18_101; base < 28_000; base += 4) {
    const ports = [...Array(NODES).keys()].flatMap((n) => [base + n, base + HTTPS_ABOVE_HTTP + n]);
    const free = await Promise.all(ports.map(isFree));
    if (free.every(Boolean)) return base;
  }
  throw new Error('no eight free ports');
}

async function isFree(port) {
  const server = createServer().listen(port, IP);
  try {
    await once(server, 'listening');
    return true;
  } catch {
    return false;
  } finally {
    server.close();
  }
}

async function certificateOf(port) {
  const socket = connect({ port, host: IP, rejectUnauthorized: false });
  try {
    await once(socket, 'secureConnect');
    return socket.getPeerX509Certificate() ?? new X509Certificate(socket.getPeerCertificate().raw);
  } finally {
    socket.destroy();
  }
}

/** What Chromium calls a key: SHA-256 of its SubjectPublicKeyInfo. */
async function spkiOf(port) {
  const { publicKey } = await certificateOf(port);
  return createHash('sha256').update(publicKey.export({ type: 'spki', format: 'der' })).digest('base64');
}
