// Two regions lose each other, people open the same rooms in both, and the regions find each other again.
import assert from 'node:assert/strict';
import { everybody, mustMoveTheFewer, noteShards, openRooms } from '../../halves.mjs';
import { elapse } from '../../until.mjs';
import { mustMeet } from '../meeting.mjs';
import { XMLHttpRequest } from '../xhr.mjs';

const ROOMS = 30;
/** A held request as long as production's, so that nobody is back only because his would have ended anyway. */
const BOSH_WAIT_S = 60;
const BACK_MS = 5000;
const REGIONS = ['region-a', 'region-b'];

export async function healedCut({ network, crowd }) {
  const nodes = REGIONS.flatMap((region) => [1, 2].map((n) => ({ name: `cut-${region}-${n}`, region })));
  const cut = await network(nodes, { expire: '60s' });
  try {
    return await heal(cut, crowd);
  } finally {
    await crowd.leave();
    await cut.stop();
  }
}

async function heal(network, crowd) {
  const sides = REGIONS.map((region) => network.nodes.filter((node) => node.region === region));
  await network.cut(...sides);
  // Each region places a new conference on shards of its own.
  let invited = 0;
  const rooms = openRooms(ROOMS, (side, room) => {
    invited += 1;
    const transport = invited % 2 === 0 ? 'ws' : 'bosh';
    return crowd.invite({ room: `cut-${room}`, node: sides[side][(invited >> 1) % 2], transport, waitS: BOSH_WAIT_S, alone: true });
  });
  const people = rooms.flatMap(everybody);
  await crowd.joinAtOnce(people);
  await mustMeet(rooms.flatMap(({ first, second }) => [first, second]));
  noteShards(rooms);
  assert.equal(rooms.filter(({ on }) => on[0] === on[1]).length, 0, 'rooms that are not split');
  const polling = people.filter(({ transport }) => transport === 'bosh');
  await network.boshSessions(polling.length);
  crowd.mustBeUndisturbed();

  XMLHttpRequest.failures.length = 0;
  const healedAt = performance.now();
  network.heal(...sides);
  await mustMeet(rooms.map(everybody));
  const wholeAt = performance.now();
  // Whoever would be moved once more would be now.
  await elapse(2000);
  await mustMeet(rooms.map(everybody));
  const moved = mustMoveTheFewer(rooms);
  assert.deepEqual(XMLHttpRequest.failures, [], 'BOSH requests that were not answered 200');

  const story = people.filter(({ closes }) => closes > 0).map(({ transport, events }) => {
    const [, { at: lostAt, lost }, { at: backAt }] = events;
    return { transport, reason: lost, lost: lostAt - healedAt, back: backAt - healedAt, away: backAt - lostAt };
  });
  const reasons = new Set(story.filter(({ transport }) => transport === 'bosh').map(({ reason }) => reason));
  assert.deepEqual([...reasons], ['item-not-found'], 'why BOSH sessions ended');
  const most = (what) => Math.round(Math.max(...story.map((one) => one[what])));
  assert.ok(most('back') < BACK_MS, `the last one is back after ${most('back')} ms: closed after ${most('lost')} at most, away for ${most('away')}`);
  const of = (transport) => {
    const away = story.filter((one) => one.transport === transport).map((one) => one.away).sort((a, b) => a - b);
    return `${away.length} over ${transport} (away for ${Math.round(away[away.length >> 1])} ms, at most ${Math.round(away.at(-1))})`;
  };
  return (
    `${ROOMS} rooms of ${people.length} people: whole ${Math.round(wholeAt - healedAt)} ms after healing, the last connection closed after ${most('lost')} ms, the last one back after ${most('back')} ms; ` +
    `moved ${moved.few} of the smaller sides, ${moved.ties} of ties, nobody else: ${of('ws')}, ${of('bosh')}`
  );
}
