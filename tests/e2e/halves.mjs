// Rooms that people opened on both sides of a cut, on different shards: `{ sizes, first, second, on }`, people in `first` and `second`,
// and in `on` the shard of each. A person has a `shard`, and a number of `closes`.
import { equal, must } from './clients/expect.mjs';

/** Sides of which the second is larger, the first, and none. */
const SIZES = [
  { first: 2, second: 3 },
  { first: 3, second: 2 },
  { first: 2, second: 2 },
];

/** So many rooms, called `tag` and a number; `invite(side, name)` answers somebody of side 0 or 1. */
export function openRooms(count, invite, tag = 'room') {
  return Array.from({ length: count }, (_, n) => {
    const sizes = SIZES[n % SIZES.length];
    const name = `${tag}${n}`;
    const [first, second] = [sizes.first, sizes.second].map((size, side) => Array.from({ length: size }, () => invite(side, name)));
    return { name, sizes, first, second };
  });
}

export const everybody = (room) => [...room.first, ...room.second];

/** Notes where each side of each room is; fails unless every side is on one shard. */
export function noteShards(rooms) {
  const shardOf = (people) => {
    const shards = new Set(people.map((one) => one.shard));
    equal(shards.size, 1, 'shards of one side of a room');
    return [...shards][0];
  };
  for (const room of rooms) room.on = [shardOf(room.first), shardOf(room.second)];
}

/** Fails unless exactly the people of the smaller sides were moved, once each, and of ties exactly one side; answers how many. */
export function mustMoveTheFewer(rooms) {
  const moved = { few: 0, many: 0, ties: 0, tiesWrong: 0 };
  for (const { first, second, sizes, on } of rooms) {
    for (const one of [...first, ...second]) must(one.closes <= 1, 'a person moves once at most', JSON.stringify(one.events));
    const movers = [first, second].map((people) => people.filter((one) => one.closes > 0).length);
    if (sizes.first === sizes.second) {
      moved.ties += movers[0] + movers[1];
      const loser = first[0].shard === on[0] ? 1 : 0;
      if (movers[loser] !== [first, second][loser].length || movers[1 - loser] !== 0) moved.tiesWrong += 1;
      continue;
    }
    const few = sizes.first < sizes.second ? 0 : 1;
    moved.few += movers[few];
    moved.many += movers[1 - few];
  }
  const uneven = rooms.filter(({ sizes }) => sizes.first !== sizes.second);
  const expected = uneven.reduce((sum, { sizes }) => sum + Math.min(sizes.first, sizes.second), 0);
  equal(moved.many, 0, 'people of the larger sides who were moved');
  equal(moved.few, expected, 'people of the smaller sides who were moved');
  equal(moved.tiesWrong, 0, 'ties of which not exactly one side was moved');
  return moved;
}
