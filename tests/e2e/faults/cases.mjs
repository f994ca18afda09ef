// What happens to nodes and the paths between them, and what people may notice of it.
import { equal, must } from '../clients/expect.mjs';
import { elapse, until } from '../until.mjs';
import { Poller, Talker } from './people.mjs';
import { Site } from './site.mjs';

const ROOMS = Number(process.env.FAULTS_ROOMS || 300);
/** The rooms of which two sides are equal, and those where the first has more. */
const SIZES = [
  { first: 2, second: 3 },
  { first: 3, second: 2 },
  { first: 2, second: 2 },
];

/** Runs `body` on a site, which is stopped in any case, and left where it is when something failed. */
async function on(options, body) {
  const site = await Site.start(options);
  let keep = true;
  try {
    const told = await body(site);
    site.mesh.mustRun();
    keep = false;
    return told;
  } catch (error) {
    error.message += ` (logs: ${site.folder})`;
    throw error;
  } finally {
    await site.stop({ keep });
  }
}

/** So many things at once at most. */
async function several(things, each, atOnce = 100) {
  for (let from = 0; from < things.length; from += atOnce) await Promise.all(things.slice(from, from + atOnce).map(each));
}

const seconds = (ms) => `${(ms / 1000).toFixed(2)} s`;

/** Every fifth person polls, the others talk. */
function person(number, room, nodes) {
  const addresses = nodes.map((node) => node.address);
  return number % 5 === 0 ? new Poller(room, addresses) : new Talker(room, addresses);
}

/** Rooms that people opened on both sides of a cut, on different shards: `{ name, sizes, first, second }`, people in the last two. */
function openRooms(sides, count) {
  let people = 0;
  return Array.from({ length: count }, (_, n) => {
    const sizes = SIZES[n % SIZES.length];
    const room = { name: `room${n}`, sizes };
    const enter = (side, size) => Array.from({ length: size }, () => person((people += 1), room.name, side));
    room.first = enter(sides[0], sizes.first);
    room.second = enter(sides[1], sizes.second);
    return room;
  });
}

const everybody = (room) => [...room.first, ...room.second];

/** What is wrong with a room after it was healed; nothing if all of its people are on one shard. */
const apart = (room) => new Set(everybody(room).map((one) => one.shard ?? 'nowhere')).size !== 1 || everybody(room).some((one) => !one.shard);

async function halves({ binary, ctl }) {
  return on({ binary, ctl, shards: 4 }, async (site) => {
    const sides = [site.nodes.slice(0, 2), site.nodes.slice(2)];
    await site.cut(...sides);
    // Each side sees two shards of its own, so that no room is on one shard by chance.
    site.mesh.hides = (node, shard) => sides[0].includes(node) === shard.id > 2;
    site.mesh.writeDiscovery();
    const lists = async () => {
      const statuses = (await Promise.all(site.nodes.map((node) => site.ask(node, 'status')))).flat();
      return statuses.every((status) => status.shards.length === 2);
    };
    await until(lists, 10_000, () => 'every node lists two shards');
    const rooms = openRooms(sides, ROOMS);
    for (const room of rooms) await several(everybody(room), (one) => one.enter());
    const shardOf = (people) => {
      const shards = new Set(people.map((one) => one.shard));
      equal(shards.size, 1, 'shards of one side of a room');
      return [...shards][0];
    };
    for (const room of rooms) room.on = [shardOf(room.first), shardOf(room.second)];
    site.mesh.hides = () => false;
    site.mesh.writeDiscovery();
    // Sessions over BOSH are counted by a sweep of each second.
    const pollers = rooms.flatMap(everybody).filter((one) => one instanceof Poller).length;
    let counted = 0;
    const all = async () => {
      const statuses = (await Promise.all(site.nodes.map((node) => site.ask(node, 'status')))).flat();
      counted = statuses.reduce((sum, status) => sum + status.bosh_sessions, 0);
      return counted === pollers;
    };
    await until(all, 10_000, () => `${counted} of ${pollers} BOSH sessions are counted`);

    const healed = Date.now();
    site.heal(...sides);
    const equalAt = await site.tablesEqual(20_000);
    await until(() => rooms.every((room) => !apart(room)), 20_000, () => {
      const split = rooms.filter(apart);
      return `${split.length} rooms are split, such as ${JSON.stringify(everybody(split[0]).map((one) => [one.shard, one.closes]))}`;
    });
    const wholeAt = Date.now();
    // Whoever would be moved once more would be now.
    await elapse(2_000);
    equal(rooms.filter(apart).length, 0, 'rooms split again');

    const moved = { few: 0, many: 0, ties: 0, tiesWrong: 0 };
    const errors = [];
    let lastClosed = 0;
    let lastBack = 0;
    for (const { first, second, sizes, on: places } of rooms) {
      for (const one of [...first, ...second]) {
        must(one.closes <= 1, 'a person moves once at most', JSON.stringify(one.events));
        errors.push(...(one.errors ?? []));
        for (const { at, closed } of one.events.filter((event) => event.at > healed)) {
          if (closed) lastClosed = Math.max(lastClosed, at);
          else lastBack = Math.max(lastBack, at);
        }
      }
      const movers = [first, second].map((people) => people.filter((one) => one.closes > 0).length);
      if (sizes.first === sizes.second) {
        moved.ties += movers[0] + movers[1];
        const loser = first[0].shard === places[0] ? 1 : 0;
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
    equal(errors.join(', '), '', 'errors that people saw over BOSH');
    const divergences = (await Promise.all(site.nodes.map((node) => site.ask(node, 'divergences', 'list')))).flat();
    equal(divergences.length, rooms.length, 'divergences that are listed');
    equal(await site.total('table_divergences'), rooms.length, 'divergences that are counted');
    must(equalAt - healed < 2_000, 'tables equal in 2 s', seconds(equalAt - healed));
    must(lastBack - healed < 5_000, 'everybody back in 5 s', seconds(lastBack - healed));
    for (const one of rooms.flatMap(everybody)) one.leave();
    return (
      `${rooms.length} rooms: tables equal after ${seconds(equalAt - healed)}, last session closed after ${seconds(lastClosed - healed)}, ` +
      `last one back after ${seconds(lastBack - healed)}, whole after ${seconds(wholeAt - healed)}; ` +
      `moved ${moved.few} of the smaller sides, ${moved.many} of the larger, ${moved.ties} of ties; 0 rooms left split`
    );
  });
}

export const CASES = {
  'halves: rooms opened on both sides of a cut': halves,
};
