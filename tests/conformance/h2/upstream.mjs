// The real server behind the proxy: Node's own http server. It answers as the query of a request asks, speaks WebSocket
// (RFC 6455, text and binary echo), and writes one JSON line to stdout for everything that reaches it.
//   node upstream.mjs ADDRESS PORT
import { createHash } from 'node:crypto';
import { createServer } from 'node:http';

const [address, port] = process.argv.slice(2);
const MAGIC = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11';
const KEPT_BYTES = 4096;
const PATTERN = Buffer.from(Uint8Array.from({ length: 251 }, (_, index) => index));

/** What a connection was last asked for. */
const latest = new WeakMap();

const tell = (fact) => process.stdout.write(`${JSON.stringify(fact)}\n`);
const asked = (url) => new URLSearchParams(url.split('?')[1] ?? '');

/** What a request looked like here. */
function head(request) {
  return { method: request.method, url: request.url, headers: request.rawHeaders };
}

const server = createServer({ keepAliveTimeout: 60_000, requestTimeout: 0, headersTimeout: 0 }, (request, response) => {
  const wish = asked(request.url);
  // Said at once: a test may want to know of a request whose body never ends.
  tell({ kind: 'head', ...head(request) });
  request.on('error', (error) => tell({ kind: 'aborted', url: request.url, code: error.code }));
  response.on('close', () => {
    if (!response.writableFinished) tell({ kind: 'abandoned', url: request.url });
  });
  latest.set(request.socket, request.url);
  if (wish.has('early')) return respond(request, response, wish, Buffer.from('early'));
  if (wish.has('live')) {
    // Echoes each piece as it comes, and reads no faster than it can write.
    response.writeHead(200, { 'content-type': 'application/octet-stream' });
    response.flushHeaders();
    request.pipe(response);
    return undefined;
  }
  const pieces = [];
  request.on('data', (piece) => pieces.push(piece));
  request.on('end', () => respond(request, response, wish, Buffer.concat(pieces)));
  return undefined;
});

function respond(request, response, wish, body) {
  const seen = {
    ...head(request),
    bytes: body.length,
    sha256: createHash('sha256').update(body).digest('hex'),
    body: body.subarray(0, KEPT_BYTES).toString('latin1'),
    trailers: request.rawTrailers,
  };
  tell({ kind: 'request', ...seen });
  if (wish.has('hang')) return;
  if (wish.has('hints')) response.writeEarlyHints({ link: '</style.css>; rel=preload; as=style' });
  if (wish.has('status')) response.statusCode = Number(wish.get('status'));
  if (wish.has('hop')) {
    response.setHeader('connection', 'keep-alive, x-hop');
    response.setHeader('x-hop', 'this connection only');
    response.setHeader('keep-alive', 'timeout=5');
    response.setHeader('proxy-connection', 'keep-alive');
  }
  if (wish.has('trailers')) {
    response.setHeader('trailer', 'x-sum');
    response.write('body');
    response.addTrailers({ 'x-sum': '42' });
    response.end();
  } else if (wish.has('size')) {
    response.end(filler(Number(wish.get('size'))));
  } else if (wish.has('break')) {
    response.setHeader('content-length', '1000');
    response.write('only this');
    setImmediate(() => response.socket.destroy());
  } else if (response.statusCode === 204 || response.statusCode === 304) {
    response.end();
  } else {
    const text = Buffer.from(JSON.stringify(seen));
    response.setHeader('content-type', 'application/json');
    response.setHeader('content-length', text.length);
    response.end(request.method === 'HEAD' ? undefined : text);
  }
}

/** Bytes that tell when one of them is missing: 0 to 250, over and over. */
function filler(size) {
  return Buffer.alloc(size, PATTERN);
}

server.on('connection', (socket) => {
  socket.on('close', () => tell({ kind: 'closed', url: latest.get(socket) }));
});

server.on('upgrade', (request, socket, first) => {
  const wish = asked(request.url);
  tell({ kind: 'upgrade', ...head(request) });
  socket.on('error', (error) => tell({ kind: 'gone', url: request.url, how: error.code }));
  socket.on('end', () => {
    tell({ kind: 'gone', url: request.url, how: 'end' });
    socket.end();
  });
  if (wish.has('refuse')) {
    socket.end(`HTTP/1.1 ${wish.get('refuse')} No\r\nContent-Length: 7\r\nConnection: close\r\n\r\nrefused`);
    return;
  }
  const key = request.headers['sec-websocket-key'];
  const valid = key && Buffer.from(key, 'base64').length === 16 && request.headers['sec-websocket-version'] === '13';
  if (!valid || request.headers.upgrade?.toLowerCase() !== 'websocket') {
    socket.end('HTTP/1.1 400 Bad Request\r\nContent-Length: 12\r\nConnection: close\r\n\r\nno handshake');
    return;
  }
  const accept = createHash('sha1').update(key + MAGIC).digest('base64');
  const protocol = request.headers['sec-websocket-protocol']?.split(',')[0].trim();
  socket.write(
    `HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept}\r\n` +
      `${protocol ? `Sec-WebSocket-Protocol: ${protocol}\r\n` : ''}X-Shard: upstream\r\n\r\n`,
  );
  socket.setNoDelay(true);
  let buffer = first;
  socket.on('data', (piece) => {
    buffer = Buffer.concat([buffer, piece]);
    for (;;) {
      const frame = take(buffer);
      if (!frame) return;
      buffer = buffer.subarray(frame.size);
      hear(request, socket, frame);
    }
  });
});

function hear(request, socket, { opcode, payload, masked }) {
  if (!masked) {
    tell({ kind: 'unmasked', url: request.url });
    socket.destroy();
  } else if (opcode === 8) {
    socket.end(frameOf(8, payload));
  } else if (opcode === 9) {
    socket.write(frameOf(10, payload));
  } else if (opcode === 1 && payload.equals(Buffer.from('please close'))) {
    socket.write(frameOf(8, Buffer.from([0x03, 0xe8])));
    socket.end();
  } else if (opcode === 1 && payload.equals(Buffer.from('please break'))) {
    socket.resetAndDestroy();
  } else if (opcode === 1 && payload.toString().startsWith('please send ')) {
    socket.write(frameOf(2, filler(Number(payload.toString().slice(12)))));
  } else if (opcode !== 10) {
    socket.write(frameOf(opcode, payload));
  }
}

/** The first whole frame of `buffer`, unmasked; nothing when it is not all there yet. */
function take(buffer) {
  if (buffer.length < 2) return undefined;
  const masked = (buffer[1] & 0x80) !== 0;
  let length = buffer[1] & 0x7f;
  let at = 2;
  if (length === 126) {
    if (buffer.length < 4) return undefined;
    length = buffer.readUInt16BE(2);
    at = 4;
  } else if (length === 127) {
    if (buffer.length < 10) return undefined;
    length = Number(buffer.readBigUInt64BE(2));
    at = 10;
  }
  const mask = masked ? buffer.subarray(at, at + 4) : undefined;
  at += masked ? 4 : 0;
  if (buffer.length < at + length) return undefined;
  const payload = Buffer.from(buffer.subarray(at, at + length));
  if (mask) for (let i = 0; i < length; i += 1) payload[i] ^= mask[i & 3];
  return { opcode: buffer[0] & 0x0f, payload, masked, size: at + length };
}

function frameOf(opcode, payload) {
  const { length } = payload;
  let start;
  if (length < 126) start = Buffer.from([0x80 | opcode, length]);
  else if (length < 65536) {
    start = Buffer.from([0x80 | opcode, 126, 0, 0]);
    start.writeUInt16BE(length, 2);
  } else {
    start = Buffer.from([0x80 | opcode, 127, 0, 0, 0, 0, 0, 0, 0, 0]);
    start.writeBigUInt64BE(BigInt(length), 2);
  }
  return Buffer.concat([start, payload]);
}

server.on('connect', (request, socket) => {
  tell({ kind: 'connect', ...head(request) });
  socket.end('HTTP/1.1 200 OK\r\n\r\n');
});
server.on('clientError', (error, socket) => {
  // Connections that end between requests, or inside of one that its client broke off, are no messages.
  if (error.code !== 'ECONNRESET' && error.code !== 'HPE_INVALID_EOF_STATE') tell({ kind: 'broken', code: error.code, raw: error.rawPacket?.toString('latin1') });
  socket.destroy();
});
server.listen(Number(port), address, () => tell({ kind: 'listening', port: server.address().port }));
// Whoever started this ends it by closing the pipe, or by dying.
process.stdin.resume().on('end', () => process.exit(0));
