// A WebSocket that is open and silent keeps its conference where it is; when everybody has left, the conference ends.
import assert from 'node:assert/strict';
import { mustMeet, shardOf } from '../meeting.mjs';
import { EXPIRE_MS, shardChosenBy } from '../../mesh.mjs';
import { elapse, until } from '../../until.mjs';

const REGION = 'region-a';
const APPLIED_MS = 10_000;
const CANARY_EVERY_MS = EXPIRE_MS / 4;
const CANARIES = 12;
const ROOMS = CANARIES + 8;

export async function silentTunnelHoldsItsRoom({ mesh, shards, crowd }) {
  const [a1] = mesh.nodes;
  const silent = Array.from({ length: ROOMS }, (_, i) => crowd.invite({ room: `silent-${i}`, node: a1, transport: 'ws' }));
  await crowd.joinAtOnce(silent);
  const bytes = () => silent.map((person) => person.wireBytes);
  const before = bytes();
  const drained = shards.filter((shard) => shard.region === REGION);
  await elapse(3 * EXPIRE_MS);
  assert.deepEqual(bytes(), before, 'nothing crossed the silent WebSockets');

  // From here on the plain hash of every node answers another shard than the one where these rooms live.
  await withDrained(mesh, drained, async () => {
    const rooms = silent.map((person) => [
      person,
      ...mesh.nodes.map((node, j) => crowd.invite({ room: person.room, node, transport: j % 2 === 0 ? 'ws' : 'bosh' })),
    ]);
    await crowd.joinAtOnce(rooms.flatMap((people) => people.slice(1)));
    await mustMeet(rooms);
    for (const people of rooms) {
      assert.ok(includes(drained, shardOf(people)), `${people[0]} stayed on its shard`);
    }
    crowd.mustBeUndisturbed();

    await crowd.leave();
    await conferencesEnd(mesh, drained, silent.map((person) => person.room), crowd);
  });
}

/** Runs `then` while `drained`, the shards of a region, take no new conferences, and every node knows it. */
async function withDrained(mesh, drained, then) {
  const set = async (state) => {
    for (const shard of drained) shard.state = state;
    mesh.writeDiscovery();
    const near = mesh.nodes.filter((node) => node.region === REGION);
    await Promise.all(near.map((node) => mustPlace(node, drained, state === 'ready')));
  };
  await set('drain');
  try {
    await then();
  } finally {
    await set('ready');
  }
}

// A room that nobody has asked for goes by the plain hash, so it shows which discovery file a node has read.
async function mustPlace(node, drained, there) {
  let asked = 0;
  const placed = async () => {
    asked += 1;
    const room = `probe-${there}-${node.name}-${asked}`;
    return includes(drained, await shardChosenBy(node, room)) === there;
  };
  await until(placed, APPLIED_MS, () => `${node.name} has not applied the shards' new state`);
}

// Asking for a room renews its entry, so each is asked once: some as canaries, one after the other, until one has ended; the rest
// was left at the same moment and must have ended one `expire` later at the latest.
async function conferencesEnd(mesh, drained, rooms, crowd) {
  const [node] = mesh.nodes;
  const canaries = rooms.slice(0, CANARIES);
  const ended = async () => {
    await elapse(CANARY_EVERY_MS);
    return !includes(drained, await shardChosenBy(node, canaries.shift()));
  };
  await until(ended, (CANARIES - 1) * CANARY_EVERY_MS, () => 'rooms that everybody has left are still in the table');
  await elapse(EXPIRE_MS);
  const again = rooms
    .slice(CANARIES)
    .map((room) => mesh.nodes.map((node) => crowd.invite({ room, node, transport: 'ws' })));
  await crowd.joinAtOnce(again.flat());
  await mustMeet(again);
  for (const people of again) assert.ok(!includes(drained, shardOf(people)), `${people[0]}: a new conference avoids drained shards`);
}

function includes(shards, name) {
  return shards.some((shard) => shard.name === name);
}
