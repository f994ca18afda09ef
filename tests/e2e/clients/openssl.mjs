// openssl s_client: versions, ciphers, certificates, resumption, staples.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { equal, must } from './expect.mjs';
import { NAME, OTHER_NAME } from './site.mjs';

const WITHIN_MS = 15_000;
const REQUEST = `GET /s_client HTTP/1.1\r\nHost: ${NAME}\r\nConnection: close\r\n\r\n`;
// OpenSSL 3 offers what is old only when it is told not to care.
const OLD = '@SECLEVEL=0';
const HANDSHAKE_FAILURE = /handshake failure|SSL alert number 40/;
// rustls says handshake_failure to a client whose only versions are unknown to it.
const NO_SUCH_VERSION = /alert protocol version|SSL alert number (70|40)/;

export const cases = {
  'openssl: TLS 1.3': (site) => served(site, ['-tls1_3'], /New, TLSv1\.3, Cipher is TLS_/),
  'openssl: TLS 1.2': (site) => served(site, ['-tls1_2'], /New, TLSv1\.2, Cipher is ECDHE-ECDSA-/),
  'openssl: TLS 1.2 with ChaCha20': (site) => served(site, ['-tls1_2', '-cipher', 'ECDHE-ECDSA-CHACHA20-POLY1305'], /Cipher is ECDHE-ECDSA-CHACHA20-POLY1305/),
  'openssl: TLS 1.1 is refused': (site) => refused(site, ['-tls1_1', '-cipher', `ALL${OLD}`], NO_SUCH_VERSION),
  'openssl: TLS 1.0 is refused': (site) => refused(site, ['-tls1', '-cipher', `ALL${OLD}`], NO_SUCH_VERSION),
  'openssl: RSA key exchange is refused': (site) => refused(site, weak('AES128-GCM-SHA256'), HANDSHAKE_FAILURE),
  'openssl: CBC is refused': (site) => refused(site, weak('ECDHE-RSA-AES128-SHA:ECDHE-ECDSA-AES256-SHA384'), HANDSHAKE_FAILURE),
  'openssl: 3DES is refused': (site) => refused(site, weak('DES-CBC3-SHA'), HANDSHAKE_FAILURE, { mayLack: true }),
  'openssl: unauthenticated and empty ciphers are refused': (site) => refused(site, weak('aNULL:eNULL'), HANDSHAKE_FAILURE),
  'openssl: SNI chooses the certificate': sni,
  'openssl: no SNI and an unknown one get the default certificate': noSni,
  'openssl: a client for RSA alone gets the RSA certificate, over TLS 1.2': (site) =>
    keyIs(site, ['-tls1_2', '-cipher', 'ECDHE-RSA-AES128-GCM-SHA256'], 'RSA'),
  'openssl: a client for RSA alone gets the RSA certificate, over TLS 1.3': (site) =>
    keyIs(site, ['-tls1_3', '-sigalgs', 'rsa_pss_rsae_sha256'], 'RSA'),
  'openssl: others get the ECDSA certificate': (site) => keyIs(site, ['-tls1_3'], 'ECDSA'),
  'openssl: TLS 1.3 sessions resume': (site) => resumed(site, '-tls1_3', /Reused, TLSv1\.3/),
  'openssl: TLS 1.2 sessions resume': (site) => resumed(site, '-tls1_2', /Reused, TLSv1\.2/),
  'openssl: the OCSP response is stapled': (site) => served(site, ['-status'], /OCSP Response Status: successful[^]*Cert Status: good/),
  'openssl: ALPN h2 before http/1.1': (site) => alpn(site, 'http/1.1,h2', /ALPN protocol: h2/),
  'openssl: ALPN http/1.1 alone': (site) => alpn(site, 'http/1.1', /ALPN protocol: http\/1\.1/),
  'openssl: an unknown ALPN is refused': (site) => refused(site, ['-alpn', 'gopher'], /no application protocol|SSL alert number 120/),
  'openssl: no compression, and renegotiation is secured': (site) => served(site, ['-tls1_2'], /Secure Renegotiation IS supported[^]*Compression: NONE/),
};

function weak(ciphers) {
  return ['-tls1_2', '-cipher', `${ciphers}${OLD}`];
}

/** Runs s_client with `input` until the server closes; answers its status and all output. */
async function client(site, args, { input = REQUEST, name = NAME } = {}) {
  const sni = name ? ['-servername', name] : ['-noservername'];
  const all = ['s_client', '-connect', site.address, ...sni, '-CAfile', site.ca, '-ign_eof', ...args];
  const child = spawn('openssl', all, { stdio: ['pipe', 'pipe', 'pipe'] });
  const bound = setTimeout(() => child.kill('SIGKILL'), WITHIN_MS);
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (piece) => (output += piece));
  child.stdin.on('error', () => {});
  child.stdin.end(input);
  const [code] = await once(child, 'close');
  clearTimeout(bound);
  return { code, output };
}

async function served(site, args, wanted) {
  const { output } = await client(site, args);
  must(wanted.test(output), `${wanted}`, output);
  must(/Verify return code: 0 \(ok\)|Verification: OK/.test(output), 'a certificate that the CA has signed', output);
  must(/HTTP\/1\.1 200 OK/.test(output), 'HTTP/1.1 200', output);
  return output;
}

async function refused(site, args, wanted, { mayLack = false } = {}) {
  const { code, output } = await client(site, args);
  // Debian's openssl is built without some of what must be refused; that is no less refused.
  if (mayLack && /no cipher match/.test(output)) return;
  must(code !== 0 && wanted.test(output), `a refusal: ${wanted}`, output);
  must(!/HTTP\/1\.1/.test(output), 'no answer', output);
}

async function sni(site) {
  for (const name of [NAME, OTHER_NAME]) {
    const { output } = await client(site, [], { name });
    must(output.includes(`subject=CN = ${name}`), `the certificate of ${name}`, output);
  }
}

async function noSni(site) {
  for (const name of ['', 'unknown.test']) {
    const { output } = await client(site, [], { name });
    must(output.includes(`subject=CN = ${NAME}`), `the default certificate for ${name || 'no name'}`, output);
    must(/HTTP\/1\.1 200 OK/.test(output), 'HTTP/1.1 200', output);
  }
}

async function keyIs(site, args, kind) {
  const output = await served(site, args, /Server public key is|Peer signature type/);
  const type = output.match(/Peer signature type: (\S+)/)?.[1] ?? '';
  equal(type.startsWith('RSA') ? 'RSA' : type, kind, 'signature by the key of the certificate');
}

async function resumed(site, version, wanted) {
  const file = join(site.folder, `session${version}`);
  await served(site, [version, '-sess_out', file], /New, TLSv1/);
  must(existsSync(file), `a session in ${file}`);
  await served(site, [version, '-sess_in', file], wanted);
}

async function alpn(site, offered, wanted) {
  // No request: the protocol of the connection may be h2. Q ends s_client when it is not told to ignore the end of input.
  const { output } = await client(site, ['-alpn', offered, '-no_ign_eof'], { input: 'Q\n' });
  must(wanted.test(output), `${wanted}`, output);
}
