// New rooms joined through all nodes in the same moment: one shard each.
import { mustMeet } from '../meeting.mjs';

const ROOMS = 30;

export async function firstJoinsAtOnce({ mesh, crowd }) {
  const rooms = Array.from({ length: ROOMS }, (_, i) =>
    mesh.nodes.map((node, j) =>
      crowd.invite({ room: `race-${i}`, node, transport: (i + j) % 2 === 0 ? 'ws' : 'bosh' }),
    ),
  );
  await crowd.joinAtOnce(rooms.flat());
  await mustMeet(rooms);
  crowd.mustBeUndisturbed();
}
