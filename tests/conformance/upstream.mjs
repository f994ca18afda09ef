// Node's http server as a shard: it tells in X-Saw what it was asked, and on a second port everything that arrived.
//
//   node upstream.mjs HOST PORT CONTROL_PORT
//
// A request with X-Answer is answered with exactly those bytes (base64); with X-Answer-Close the connection ends behind them.
// An upgrade is accepted when X-Answer is missing, and its bytes are echoed.
import http from 'node:http';

const [host, port, controlPort] = process.argv.slice(2);
const seen = [];
let connections = 0;

const answer = (request, socket) => {
  socket.write(Buffer.from(request.headers['x-answer'], 'base64'));
  socket.raw = true;
  if (request.headers['x-answer-close']) socket.end();
};

const server = http.createServer({ keepAliveTimeout: 60_000, requestTimeout: 0 }, (request, response) => {
  const entry = {
    connection: request.socket.number,
    method: request.method,
    target: request.url,
    version: request.httpVersion,
    headers: request.rawHeaders,
    body: '',
    trailers: [],
    complete: false,
    status: 200,
  };
  seen.push(entry);
  const pieces = [];
  request.on('data', (piece) => pieces.push(piece));
  request.on('end', () => {
    entry.body = Buffer.concat(pieces).toString('latin1');
    entry.trailers = request.rawTrailers;
    entry.complete = true;
    if (request.headers['x-answer']) {
      answer(request, request.socket);
    } else if (request.socket.raw) {
      request.socket.write(`HTTP/1.1 200 OK\r\nX-Saw: ${request.url}\r\nContent-Length: 2\r\n\r\nok`);
    } else {
      const text = `node ${request.method}\n`;
      response.writeHead(200, { 'X-Saw': request.url, 'Content-Length': text.length });
      response.end(text);
    }
  });
  request.on('error', () => {});
});
server.on('connection', (socket) => {
  socket.number = ++connections;
  socket.on('error', () => {});
});
server.on('upgrade', (request, socket, head) => {
  seen.push({
    connection: socket.number, method: request.method, target: request.url, version: request.httpVersion,
    headers: request.rawHeaders, body: '', trailers: [], complete: true, status: 101,
  });
  if (request.headers['x-answer']) {
    // Node reads no more HTTP here.
    answer(request, socket);
    socket.end();
    return;
  }
  socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n');
  if (head.length) socket.write(head);
  socket.pipe(socket);
});
// What this server does not take for HTTP: nothing of it may have come through.
server.on('clientError', (error, socket) => {
  const text = error.rawPacket ? error.rawPacket.toString('latin1') : '';
  seen.push({
    connection: socket.number, method: '', target: text, version: '', headers: [], body: '', trailers: [],
    complete: error.code === 'ECONNRESET', status: 400, error: String(error.code),
  });
  socket.destroy();
});
server.listen(Number(port), host);

http.createServer((request, response) => {
  const tag = decodeURIComponent(request.url.slice(1));
  const found = seen.filter((entry) => entry.target.includes(tag));
  response.end(JSON.stringify(found));
}).listen(Number(controlPort), host);
