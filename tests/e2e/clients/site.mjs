// What the clients meet: a CA with certificates (RSA and ECDSA for one name, another name beside it, an OCSP staple), Node's http
// server as the shard, and one shardgate in front of it.
import { randomBytes } from 'node:crypto';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { once } from 'node:events';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { connect } from 'node:tls';
import { Child, mustRun } from '../process.mjs';
import { until } from '../until.mjs';

// The range of this part and of conformance-h2, which uses 127.87.0.
const IP = '127.87.1.1';
const UPSTREAM_IP = '127.87.1.2';
const UPSTREAM = fileURLToPath(new URL('../../conformance/h2/upstream.mjs', import.meta.url));
const START_MS = 20_000;
const DAYS = '90';

export const NAME = 'edge.test';
export const OTHER_NAME = 'other.test';

export class Site {
  /** Makes the files and starts everything. */
  static async start(folder, binary) {
    const site = new Site();
    site.folder = folder;
    try {
      await site.#start(binary);
    } catch (error) {
      await site.stop();
      throw error;
    }
    return site;
  }

  async stop() {
    await this.node?.stop();
    await this.upstream?.stop();
  }

  /** `https://edge.test:PORT/path`. */
  url(path) {
    return `https://${NAME}:${this.port}${path}`;
  }

  /** What curl needs to find the node behind its name and to trust it. */
  get curl() {
    return ['--silent', '--show-error', '--max-time', '20', '--cacert', this.ca, '--resolve', `${NAME}:${this.port}:${IP}`];
  }

  /** `IP:PORT`. */
  get address() {
    return `${IP}:${this.port}`;
  }

  get ip() {
    return IP;
  }

  async #start(binary) {
    const certs = join(this.folder, 'certs');
    mkdirSync(certs);
    const authority = await Authority.make(this.folder);
    this.ca = authority.cert;
    const rsa = await authority.issue(join(certs, 'edge.pem.rsa'), [NAME], ['rsa:2048']);
    await authority.issue(join(certs, 'edge.pem.ecdsa'), [NAME], EC);
    await authority.issue(join(certs, 'other.pem'), [OTHER_NAME], EC);
    await authority.staple(certs, ['edge.pem.rsa', 'edge.pem.ecdsa', 'other.pem']);
    this.rsa = rsa;
    const log = join(this.folder, 'upstream.log');
    const upstreamPort = await freePort(UPSTREAM_IP);
    // Its stdin stays open as long as this process lives.
    this.upstream = new Child('upstream', 'node', [UPSTREAM, UPSTREAM_IP, String(upstreamPort)], log, { stdin: 'pipe' });
    await until(() => readFileSync(log, 'utf8').includes('listening'), START_MS, () => 'the upstream listens');
    this.port = await freePort(IP);
    const discovery = join(this.folder, 'discovery.toml');
    writeFileSync(
      discovery,
      `live_release = "r"\n[[shards]]\nname = "s1"\nid = 1\nregion = "test"\nrelease = "r"\naddress = "${UPSTREAM_IP}:${upstreamPort}"\n`,
    );
    const config = join(this.folder, 'shardgate.toml');
    writeFileSync(
      config,
      `[node]\nid = "edge"\nregion = "test"\n[frontend]\nworkers = 1\n` +
        `hsts = "max-age=63072000"\nresponse_headers = ["X-Content-Type-Options: nosniff"]\n` +
        `[[listeners]]\nname = "https"\nlisten = ["${IP}:${this.port}"]\nprotocol = "https"\n` +
        `[tls]\ndirectory = "${certs}"\n[discovery]\nfile = "${discovery}"\n` +
        `[[admin]]\nlisten = "unix:${join(this.folder, 'admin.sock')}"\nserve = ["health"]\n`,
    );
    this.node = new Child('shardgate', binary, ['serve', '--config', config], join(this.folder, 'shardgate.log'));
    await until(() => this.node.mustRun() ?? handshakes(this.port), START_MS, () => 'shardgate takes TLS');
  }
}

const EC = ['ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1'];

/** A CA of our own, made by openssl. */
class Authority {
  static async make(folder) {
    const authority = new Authority();
    Object.assign(authority, { folder, cert: join(folder, 'ca.pem'), key: join(folder, 'ca.key'), index: join(folder, 'ca.index') });
    await openssl(
      ...['req', '-x509', '-newkey', ...EC, '-nodes', '-days', DAYS, '-subj', '/CN=shardgate test CA'],
      ...['-addext', 'keyUsage=critical,keyCertSign,cRLSign,digitalSignature'],
      ...['-keyout', authority.key, '-out', authority.cert],
    );
    writeFileSync(authority.index, '');
    return authority;
  }

  /** Chain and key in one file, as HAProxy's `crt` wants it. */
  async issue(path, names, key) {
    const [request, privateKey, extensions] = ['csr', 'key', 'ext'].map((end) => join(this.folder, `leaf.${end}`));
    writeFileSync(
      extensions,
      'basicConstraints=CA:FALSE\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth\n' +
        'subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n' +
        `subjectAltName=${names.map((name) => `DNS:${name}`).join(',')}\nauthorityInfoAccess=OCSP;URI:http://ocsp.test/\n`,
    );
    const serial = `0x1${randomBytes(15).toString('hex')}`;
    await openssl('req', '-new', '-newkey', ...key, '-nodes', '-subj', `/CN=${names[0]}`, '-keyout', privateKey, '-out', request);
    await openssl(
      ...['x509', '-req', '-in', request, '-CA', this.cert, '-CAkey', this.key, '-set_serial', serial, '-days', DAYS, '-sha256'],
      ...['-extfile', extensions, '-out', path],
    );
    // The responder signs only for certificates that stand in the CA's index, each with another subject.
    const printed = (await openssl('x509', '-in', path, '-noout', '-serial')).trim().split('=')[1];
    writeFileSync(this.index, `V\t491231235959Z\t\t${printed}\tunknown\t/CN=${printed}\n`, { flag: 'a' });
    writeFileSync(path, readFileSync(privateKey), { flag: 'a' });
    return path;
  }

  /** `NAME.ocsp` beside each: a response of the CA that the certificate is good. */
  async staple(folder, names) {
    for (const name of names) {
      const path = join(folder, name);
      await openssl(
        ...['ocsp', '-index', this.index, '-CA', this.cert, '-rsigner', this.cert, '-rkey', this.key, '-ndays', '7'],
        ...['-issuer', this.cert, '-cert', path, '-respout', `${path}.ocsp`],
      );
    }
  }
}

function openssl(...args) {
  return mustRun('openssl', args, { withinMs: 20_000 });
}

async function freePort(ip) {
  const server = createServer().listen(0, ip);
  await once(server, 'listening');
  const { port } = server.address();
  server.close();
  await once(server, 'close');
  return port;
}

async function handshakes(port) {
  const socket = connect({ port, host: IP, servername: NAME, rejectUnauthorized: false });
  try {
    await once(socket, 'secureConnect');
    return true;
  } catch {
    return false;
  } finally {
    socket.destroy();
  }
}
