// The same rooms through three nodes in two regions: everybody meets.
import { mustMeet } from '../meeting.mjs';

const ROOMS = 20;

/** One person per entry of `transports` in each room, each through the next node, one after the other. */
async function meet({ mesh, crowd }, prefix, transports, withinMs) {
  const rooms = Array.from({ length: ROOMS }, (_, i) =>
    transports.map((transport, j) => {
      // Rooms are opened by another node each, so every node has been the first for some of them.
      const node = mesh.nodes[(i + j) % mesh.nodes.length];
      return crowd.invite({ room: `${prefix}-${i}`, node, transport });
    }),
  );
  await Promise.all(rooms.map((people) => crowd.joinInTurn(people)));
  await mustMeet(rooms, withinMs);
  crowd.mustBeUndisturbed();
}

export function meetOverWebSocket(world, withinMs) {
  return meet(world, 'ws', ['ws', 'ws', 'ws'], withinMs);
}

export function meetOverBosh(world) {
  return meet(world, 'bosh', ['bosh', 'bosh', 'bosh']);
}

export function meetOverBoth(world) {
  return meet(world, 'both', ['ws', 'bosh', 'ws', 'bosh', 'ws', 'bosh']);
}
