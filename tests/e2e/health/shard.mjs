// A shard: Node's http server with WebSockets, a health page, and an agent. It does what its parent says, one JSON object a line on stdin:
//   {"health": 500}   what /about/health answers
//   {"agent": "up drain 0%"}   what the agent says
// It ends with its stdin.
//
//   node shard.mjs NAME IP PORT AGENT_PORT
import { createServer } from 'node:http';
import { createServer as createAgent } from 'node:net';
import { createInterface } from 'node:readline';
import { echoTunnels } from '../websocket.mjs';

const [name, ip, port, agentPort] = process.argv.slice(2);
const state = { health: 200, agent: 'up ready 100%' };

const server = createServer((request, response) => {
  const url = new URL(request.url, 'http://shard');
  if (url.pathname === '/about/health') {
    response.writeHead(state.health).end('all is well\n');
    return;
  }
  request.resume();
  request.on('end', () => {
    // A held BOSH request.
    const heldMs = Number(url.searchParams.get('held') ?? 0);
    setTimeout(() => response.writeHead(200, { 'x-jitsi-shard': name }).end(name), heldMs);
  });
});

echoTunnels(server, name);

const agent = createAgent((socket) => {
  socket.on('error', () => socket.destroy());
  socket.end(`${state.agent}\n`);
});

const orders = createInterface({ input: process.stdin });
orders.on('line', (line) => Object.assign(state, JSON.parse(line)));
orders.on('close', () => process.exit(0));

server.keepAliveTimeout = 60_000;
agent.listen(Number(agentPort), ip, () => server.listen(Number(port), ip, () => console.log('listening')));
