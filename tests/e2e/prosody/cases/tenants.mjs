// A tenant is part of the key, the case of letters is not.
import assert from 'node:assert/strict';
import { mustMeet, shardOf } from '../meeting.mjs';

const ROOM = 'standup';

export async function tenantsApart({ mesh, shards, crowd }) {
  const [a1, a2, b1] = mesh.nodes;
  // The local region comes first, so who opens a room decides in which region it lives.
  const conferences = [
    { tenant: 'acme', order: [a1, b1, a2] },
    { tenant: 'umbrella', order: [b1, a1, a2] },
    { tenant: undefined, order: [b1, a2, a1] },
  ].map(({ tenant, order }) =>
    order.map((node, i) => crowd.invite({ room: ROOM, tenant, node, transport: i % 2 === 0 ? 'ws' : 'bosh' })),
  );
  for (const people of conferences) await crowd.joinInTurn(people);
  await mustMeet(conferences);
  crowd.mustBeUndisturbed();

  const regions = conferences.map((people) => shards.find((shard) => shard.name === shardOf(people)).region);
  assert.deepEqual(regions, ['region-a', 'region-b', 'region-b'], 'each tenant has a conference of its own, opened near it');
}

export async function lettersOfAnyCase({ mesh, crowd }) {
  const [a1, a2, b1] = mesh.nodes;
  const rooms = ['Weekly', 'ALLHANDS', 'retro'].map((room) => [
    crowd.invite({ room, node: a1, transport: 'ws' }),
    crowd.invite({ room, node: b1, transport: 'ws', spelled: room.toUpperCase() }),
    crowd.invite({ room, node: a2, transport: 'bosh', spelled: room.toLowerCase() }),
  ]);
  await Promise.all(rooms.map((people) => crowd.joinInTurn(people)));
  await mustMeet(rooms);
  crowd.mustBeUndisturbed();
}
