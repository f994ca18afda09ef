// curl over HTTP/1.1 and HTTP/2: what it sends arrives, what it gets is whole.
import { createHash, randomBytes } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { mustRun } from '../process.mjs';
import { equal, must } from './expect.mjs';

const BODY_BYTES = 3_000_000;
const TOLD = '\\n%{http_version} %{http_code} %{ssl_verify_result}';

export const cases = Object.fromEntries(
  [
    ['1.1', '--http1.1'],
    ['2', '--http2'],
  ].flatMap(([version, option]) => [
    [`curl ${version}: GET`, (site) => get(site, version, option)],
    [`curl ${version}: POST of 3 MB`, (site) => post(site, version, option, 'Content-Type: application/octet-stream')],
    [`curl ${version}: POST without Expect`, (site) => post(site, version, option, 'Expect:')],
    [`curl ${version}: POST of unknown length`, (site) => post(site, version, option, 'Transfer-Encoding: chunked')],
    [`curl ${version}: HEAD`, (site) => head(site, version, option)],
    [`curl ${version}: 20 requests on one connection`, (site) => many(site, version, option)],
    [`curl ${version}: trailers of a response`, (site) => trailers(site, option)],
    [`curl ${version}: an answer cut short is an error`, (site) => cut(site, option)],
  ]),
);

/** Runs curl; answers the body and what `--write-out` tells. */
async function curl(site, ...args) {
  const output = await mustRun('curl', [...site.curl, '--write-out', TOLD, ...args]);
  const at = output.lastIndexOf('\n');
  const [version, status, verified] = output.slice(at + 1).split(' ');
  return { body: output.slice(0, at), version, status, verified };
}

async function get(site, version, option) {
  const answer = await curl(site, option, site.url('/curl?x=1'));
  equal([answer.version, answer.status, answer.verified], [version, '200', '0'], 'version, status and verification');
  const seen = JSON.parse(answer.body);
  equal([seen.method, seen.url], ['GET', '/curl?x=1'], 'method and target at the shard');
  const told = (await mustRun('curl', [...site.curl, option, '--head', site.url('/curl')])).toLowerCase();
  const lines = ['strict-transport-security: max-age=63072000', 'x-content-type-options: nosniff'];
  for (const line of lines) must(told.split('\r\n').includes(line), line, told);
}

async function post(site, version, option, header) {
  const file = join(site.folder, 'upload');
  const body = randomBytes(BODY_BYTES);
  writeFileSync(file, body);
  // HTTP/2 has no transfer-encoding: there the length is unknown because curl reads a pipe.
  const chunked = header.startsWith('Transfer-Encoding') && version === '2';
  const args = chunked ? [] : ['--header', header];
  const answer = await curl(site, option, ...args, '--data-binary', `@${file}`, site.url('/curl-post'));
  equal([answer.version, answer.status], [version, '200'], 'version and status');
  const { bytes, sha256 } = JSON.parse(answer.body);
  equal([bytes, sha256], [BODY_BYTES, createHash('sha256').update(body).digest('hex')], 'body at the shard');
}

async function head(site, version, option) {
  const answer = await curl(site, option, '--head', site.url('/curl-head'));
  equal([answer.version, answer.status], [version, '200'], 'version and status');
  must(/^content-length: [1-9][0-9]+\r?$/im.test(answer.body), 'the length that GET would have', answer.body);
}

async function many(site, version, option) {
  const urls = Array.from({ length: 20 }, (_, n) => site.url(`/curl-many?size=1000&n=${n}`));
  const output = await mustRun('curl', [
    ...[...site.curl, option, '--write-out', '%{stderr}%{http_version} %{http_code} %{num_connects} %{size_download}\\n'],
    ...urls.flatMap((url) => ['--output', '/dev/null', url]),
  ]);
  const lines = output.trim().split('\n');
  equal(lines[0], `${version} 200 1 1000`, 'the first');
  equal(lines.slice(1), Array(19).fill(`${version} 200 0 1000`), 'the others, on the same connection');
}

async function trailers(site, option) {
  const output = await mustRun('curl', [...site.curl, option, '--include', '--header', 'TE: trailers', site.url('/curl?trailers=1')]);
  must(/x-sum: 42\r?$/im.test(output), 'the trailer x-sum', output);
}

async function cut(site, option) {
  const told = await mustRun('sh', ['-c', 'curl "$@" >/dev/null 2>&1; echo $?', 'sh', ...site.curl, option, site.url('/curl?break=1')]);
  // 18: partial file, 92: an error of the stream, 56: the connection broke.
  must(['18', '92', '56'].includes(told.trim()), `curl fails, and says why: 18, 56 or 92, not ${told.trim()}`);
}
