// nghttp and h2load (nghttp2): another implementation of HTTP/2 than ours, at its edges and under a little load.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { mustRun } from '../process.mjs';
import { equal, must } from './expect.mjs';

const REQUESTS = 2_000;

export const cases = {
  'nghttp: GET over h2, with extended CONNECT on offer': get,
  'nghttp: 30 requests at once on one connection': multiplexed,
  'nghttp: windows of 127 bytes': (site) => whole(site, ['--window-bits=7', '--connection-window-bits=16'], 20_000),
  'nghttp: padded frames': (site) => whole(site, ['--padding=200'], 100_000),
  'nghttp: a head in CONTINUATION': continuation,
  'nghttp: no dynamic table': (site) => whole(site, ['--header-table-size=0'], 1_000),
  'nghttp: a table of 100 bytes on its side': (site) => whole(site, ['--encoder-header-table-size=100'], 1_000),
  'nghttp: POST with a trailer': upload,
  'h2load: 10 connections, 10 streams each': (site) => load(site, ['-c10', '-m10'], 'h2'),
  'h2load: 1 connection, 100 streams': (site) => load(site, ['-c1', '-m100'], 'h2'),
  'h2load: HTTP/1.1': (site) => load(site, ['-c10', '--h1'], 'http/1.1'),
  'h2load: POST': (site) => load(site, ['-c4', '-m10', '-d', body(site, 10_000)], 'h2'),
};

function body(site, bytes) {
  const file = join(site.folder, `body-${bytes}`);
  writeFileSync(file, Buffer.alloc(bytes, 'x'));
  return file;
}

/** nghttp has no resolver of its own: it is told the name in a header. */
function nghttp(site, args, ...paths) {
  const urls = paths.map((path) => `https://${site.address}${path}`);
  return mustRun('nghttp', ['--timeout=20', '--no-verify-peer', '-H', `:authority: edge.test:${site.port}`, ...args, ...urls]);
}

async function get(site) {
  const output = await nghttp(site, ['--verbose', '--null-out'], '/nghttp');
  must(output.includes('The negotiated protocol: h2'), 'h2 by ALPN', output);
  must(/SETTINGS_ENABLE_CONNECT_PROTOCOL\(0x08\):1|UNKNOWN\(0x08\):1/.test(output), 'ENABLE_CONNECT_PROTOCOL', output);
  must(output.includes(':status: 200'), 'status 200', output);
  must(!/GOAWAY frame .*error_code=(?!NO_ERROR)/s.test(output.replaceAll('\n', ' ')), 'no error', output);
}

async function multiplexed(site) {
  const output = await nghttp(site, ['--stat', '--null-out', '--multiply=30'], '/nghttp?size=5000');
  const answered = output.match(/\s200\s+\S+\s+\/nghttp/g) ?? [];
  equal(answered.length, 30, 'requests answered with 200');
}

async function whole(site, args, bytes) {
  const output = await nghttp(site, ['--stat', '--null-out', ...args], `/nghttp?size=${bytes}`);
  const [, size] = output.match(/\s200\s+(\S+)\s+\/nghttp/) ?? [];
  // In K and M of 1,024.
  const wanted = bytes < 1_024 ? String(bytes) : `${Math.floor(bytes / 1_024)}K`;
  equal(size, wanted, 'bytes of the response');
}

async function continuation(site) {
  // nghttp makes its head longer than two frames; that is above our limit, and 431 says so.
  const output = await nghttp(site, ['--continuation', '--verbose', '--null-out'], '/nghttp-continuation');
  must(output.includes('continuation-test-'), 'a head for CONTINUATION', output);
  must(output.includes(':status: 431'), '431', output);
}

async function upload(site) {
  // With a length HTTP/1.1 has no place for trailers.
  const output = await nghttp(site, ['--no-content-length', '-d', body(site, 100_000), '-H', 'trailer: x-sum', '--trailer', 'x-sum: 42'], '/nghttp-post');
  const seen = JSON.parse(output);
  equal([seen.method, seen.bytes], ['POST', 100_000], 'method and body at the shard');
  equal(seen.trailers, ['x-sum', '42'], 'trailers at the shard');
}

async function load(site, args, protocol) {
  const output = await mustRun('h2load', ['-n', String(REQUESTS), '-T20', ...args, `https://${site.address}/h2load?size=100`]);
  must(output.includes(`Application protocol: ${protocol}`), protocol, output);
  must(
    output.includes(`${REQUESTS} total, ${REQUESTS} started, ${REQUESTS} done, ${REQUESTS} succeeded, 0 failed, 0 errored, 0 timeout`),
    'every request to succeed',
    output,
  );
  must(output.includes(`${REQUESTS} 2xx, 0 3xx, 0 4xx, 0 5xx`), '2xx for each', output);
}
