// A shard: Node's http server with WebSockets and BOSH sessions as far as proxies and clients see them. It ends with its stdin.
//
//   node shard.mjs NAME IP PORT
//
// A request to /http-bind has a JSON body. Without `sid` it begins a session; with one that is known it is held for some seconds; with
// another one it is answered as Prosody answers it: `item-not-found`.
import { createServer } from 'node:http';
import { echoTunnels } from '../websocket.mjs';

const HELD_MS = 10_000;
const [name, ip, port] = process.argv.slice(2);
const sessions = new Set();

const server = createServer((request, response) => {
  let body = '';
  request.on('data', (part) => (body += part));
  request.on('end', () => {
    const answer = (said) => response.writeHead(200, { 'x-jitsi-shard': name }).end(JSON.stringify(said));
    if (!request.url.startsWith('/http-bind') || request.method !== 'POST') return answer({});
    const { sid } = JSON.parse(body);
    if (!sid) {
      const began = `${name}-${sessions.size}`;
      sessions.add(began);
      return answer({ sid: began });
    }
    if (!sessions.has(sid)) return answer({ condition: 'item-not-found' });
    const held = setTimeout(() => answer({}), HELD_MS);
    return response.on('close', () => clearTimeout(held));
  });
});

echoTunnels(server, name);

server.keepAliveTimeout = 60_000;
server.listen(Number(port), ip, 4096, () => console.log('listening'));
process.stdin.resume();
process.stdin.on('close', () => process.exit(0));
