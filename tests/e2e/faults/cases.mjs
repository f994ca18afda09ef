// What happens to nodes and the paths between them, and what people may notice of it.
import { setTimeout as delay } from 'node:timers/promises';
import { equal, must } from '../clients/expect.mjs';
import { everybody, mustMoveTheFewer, noteShards, openRooms as roomsOpened } from '../halves.mjs';
import { onSite } from '../on.mjs';
import { elapse, until } from '../until.mjs';
import { CLOCK } from './clock.mjs';
import { DISK } from './disk.mjs';
import { Fleet } from './haproxies.mjs';
import { MONITOR } from './monitor.mjs';
import { Poller, Talker } from './people.mjs';
import { Site } from './site.mjs';

const ROOMS = Number(process.env.FAULTS_ROOMS || 300);
/** Rooms that are opened behind HAProxies and behind nodes. */
const BESIDE = Math.min(ROOMS, 300);

const on = (options, body) => onSite(Site, options, body);

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

/** See halves.mjs. */
function openRooms(sides, count, tag) {
  let people = 0;
  return roomsOpened(count, (side, room) => person((people += 1), room, sides[side]), tag);
}

/** Lets each node place new conferences on these shards alone: sides with shards of their own place rooms apart. */
async function places(site, takes) {
  const order = ([node, shard]) => site.ask(node, 'shard', takes(node, shard) ? 'ready' : 'drain', shard.name);
  await several(site.nodes.flatMap((node) => site.shards.map((shard) => [node, shard])), order, 4);
}

/** What is wrong with a room after it was healed; nothing if all of its people are on one shard. */
const apart = (room) => new Set(everybody(room).map((one) => one.shard ?? 'nowhere')).size !== 1 || everybody(room).some((one) => !one.shard);

/** Rooms opened on both sides of a cut behind which `first` of four nodes are; `direction`: see Site.cut. */
const halves = (first, direction, count = ROOMS) => async ({ binary, ctl }) => {
  return on({ binary, ctl, shards: 4 }, async (site) => {
    const sides = [site.nodes.slice(0, first), site.nodes.slice(first)];
    await site.cut(...sides, direction);
    await places(site, (node, shard) => sides[0].includes(node) === shard.id <= 2);
    const rooms = openRooms(sides, count);
    for (const room of rooms) await several(everybody(room), (one) => one.enter());
    noteShards(rooms);
    await places(site, () => true);
    await site.boshSessions(rooms.flatMap(everybody).filter((one) => one instanceof Poller).length);

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

    const moved = mustMoveTheFewer(rooms);
    const errors = rooms.flatMap(everybody).flatMap((one) => one.errors ?? []);
    const events = rooms.flatMap(everybody).flatMap((one) => one.events).filter(({ at }) => at > healed);
    const last = (wanted) => Math.max(...events.filter(({ closed }) => Boolean(closed) === wanted).map(({ at }) => at));
    const [lastClosed, lastBack] = [last(true), last(false)];
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
      `moved ${moved.few} of the smaller sides, none of the larger, ${moved.ties} of ties; 0 rooms left split`
    );
  });
};

/** Two people a room who come in through two nodes within a few milliseconds. */
function pairs(count, [one, other]) {
  return Array.from({ length: count }, (_, n) => {
    const name = `race${n}`;
    return { name, first: [new Talker(name, [one.address])], second: [new Talker(name, [other.address])] };
  });
}

/** Lets everybody in, `perSecond` rooms a second; `meanwhile(n)` is called before each. Answers what was refused. */
async function race(rooms, perSecond, meanwhile = () => {}) {
  const refused = [];
  const began = performance.now();
  const entering = [];
  for (const [n, room] of rooms.entries()) {
    meanwhile(n);
    const enter = (one) => one.enter().catch((error) => refused.push(error.message));
    entering.push(...everybody(room).map(enter));
    await delay(Math.max(0, began + ((n + 1) * 1_000) / perSecond - performance.now()));
  }
  await Promise.all(entering);
  return refused;
}

const said = (rooms) => rooms.filter(apart).map((room) => `${room.name}: ${everybody(room).map((one) => one.shard)}`).join('; ');

/** `placing(site)` may let nodes differ about new conferences; `through` are the two of four nodes that people come in by. */
const racing = (placing = () => {}, through = [0, 1]) => async ({ binary, ctl }) => {
  return on({ binary, ctl, delayMs: 75 }, async (site) => {
    await placing(site);
    const rooms = pairs(ROOMS, through.map((n) => site.nodes[n]));
    const refused = await race(rooms, 100);
    equal(refused, [], 'joins that were refused');
    equal(said(rooms), '', 'rooms that two first joins split');
    equal(rooms.flatMap(everybody).filter((one) => one.closes > 0).length, 0, 'people who were moved');
    for (const one of rooms.flatMap(everybody)) one.leave();
    return `${rooms.length} rooms, 75 ms from node to node one way: 0 split, 0 moved`;
  });
};

async function racingHome({ binary, ctl }) {
  return on({ binary, ctl, delayMs: 75 }, async (site) => {
    const rooms = pairs(ROOMS, site.nodes);
    const victim = site.nodes[3];
    const kill = Math.floor(ROOMS / 2);
    const refused = await race(rooms, 100, (n) => n === kill && victim.process.child.kill('SIGKILL'));
    equal(refused, [], 'joins that were refused');
    const split = rooms.filter(apart).length;
    const began = Date.now();
    await until(() => !rooms.some(apart), 20_000, () => said(rooms));
    const wholeAt = Date.now();
    await elapse(2_000);
    equal(said(rooms), '', 'rooms that are split again');
    const moved = rooms.flatMap(everybody).filter((one) => one.closes > 0).length;
    must(rooms.flatMap(everybody).every((one) => one.closes <= 1), 'nobody moves twice');
    for (const one of rooms.flatMap(everybody)) one.leave();
    await victim.process.ended;
    victim.process = undefined;
    return `${rooms.length} rooms, a node that is home of a quarter of them killed meanwhile: 0 joins refused, ${split} split at first, whole ${seconds(wholeAt - began)} later, ${moved} people moved`;
  });
}

/** The same rooms behind HAProxies, beside ours. Nothing is asked of HAProxy but that the rooms were really split. */
async function halvesBeside(world) {
  const theirs = await onSite(Fleet, {}, async (fleet) => {
    const sides = [fleet.nodes.slice(0, 2), fleet.nodes.slice(2)];
    await fleet.cut(...sides);
    await fleet.places((node, shard) => sides[0].includes(node) === shard.id <= 2);
    const rooms = openRooms(sides, BESIDE);
    // Two who come at once through two of them may be placed apart, also without a cut.
    await several(rooms.flatMap(({ first, second }) => [first[0], second[0]]), (one) => one.enter());
    await several(rooms.flatMap(({ first, second }) => [...first.slice(1), ...second.slice(1)]), (one) => one.enter());
    noteShards(rooms);
    equal(rooms.filter(({ on }) => on[0] === on[1]).length, 0, 'rooms that are not split before healing');
    const differed = await fleet.differing();
    await fleet.places(() => true);
    await fleet.heal(...sides);
    await fleet.linked(fleet.nodes, fleet.nodes.length - 1);
    await elapse(30_000);
    const split = rooms.filter(apart).length;
    const differ = await fleet.differing();
    const table = await fleet.nodes[0].table();
    const shardIn = (room) => fleet.shards.find(({ id }) => id + 10 === table.get(room.name))?.name;
    const elsewhere = rooms.flatMap((room) => everybody(room).filter((one) => one.shard !== shardIn(room)));
    const closed = rooms.flatMap(everybody).filter((one) => one.closes > 0);
    const many = rooms.flatMap(({ first, second, sizes }) => (sizes.first > sizes.second ? first : sizes.first < sizes.second ? second : []));
    for (const one of rooms.flatMap(everybody)) one.leave();
    return (
      `HAProxy: ${split} of ${rooms.length} rooms still split 30 s after healing, ${differ} entries differ (${differed} before healing), ` +
      `${closed.length} of ${rooms.flatMap(everybody).length} people were moved, ${elsewhere.length} are elsewhere than the first one's table says, ` +
      `${elsewhere.filter((one) => many.includes(one)).length} of them from larger sides`
    );
  });
  return `${theirs}\n     shardgate: ${await halves(2, 'both', BESIDE)(world)}`;
}

/** As two regions that place new conferences on shards of their own. */
async function racingBeside(world) {
  const own = (site) => (node, shard) => site.nodes.indexOf(node) < 2 === shard.id <= 2;
  const through = [0, 2];
  const theirs = await onSite(Fleet, { delayMs: 75 }, async (fleet) => {
    await fleet.places(own(fleet));
    const rooms = pairs(ROOMS, through.map((n) => fleet.nodes[n]));
    const refused = await race(rooms, 100);
    await elapse(5_000);
    const told = `HAProxy: ${rooms.filter(apart).length} of ${rooms.length} rooms split, ${await fleet.differing()} entries differ 5 s later, ${refused.length} joins refused`;
    for (const one of rooms.flatMap(everybody)) one.leave();
    return told;
  });
  return `${theirs}\n     shardgate: ${await racing((site) => places(site, own(site)), through)(world)}`;
}

async function flapping({ binary, ctl }) {
  return on({ binary, ctl }, async (site) => {
    const sides = [site.nodes.slice(0, 2), site.nodes.slice(2)];
    const enter = (rooms) => several(rooms, async (room) => {
      for (const one of everybody(room)) await one.enter();
    });
    const before = openRooms(sides, 50);
    await enter(before);
    equal(said(before), '', 'rooms that are split before anything happened');
    const born = [];
    for (let times = 0; times < 5; times += 1) {
      await site.cut(...sides);
      await places(site, (node, shard) => sides[0].includes(node) === shard.id <= 2);
      const rooms = openRooms(sides, 20, `cut${times}-`);
      await enter(rooms);
      born.push(...rooms);
      await places(site, () => true);
      site.heal(...sides);
      await site.linked(site.nodes, site.nodes.length - 1);
      await until(() => ![...before, ...born].some(apart), 20_000, () => said([...before, ...born]));
      await site.tablesEqual(20_000);
    }
    await elapse(2_000);
    equal(said([...before, ...born]), '', 'rooms that are split');
    const twice = born.flatMap(everybody).filter((one) => one.closes > 1);
    equal(twice.map((one) => one.events), [], 'people who were moved twice');
    const moved = (rooms) => rooms.flatMap(everybody).filter((one) => one.closes > 0).length;
    equal(moved(before), 0, 'people who were moved, though their room was on one shard all the time');
    for (const one of [...before, ...born].flatMap(everybody)) one.leave();
    return `5 cuts, ${born.length} rooms opened in them on both sides: 0 split, ${moved(born)} people moved once, none twice; ${before.length} rooms of before: 0 split, 0 moved`;
  });
}

async function zombie({ binary, ctl }) {
  return on({ binary, ctl, nodes: 3 }, async (site) => {
    const [awake, , sleeper] = site.nodes;
    const rooms = Array.from({ length: Math.min(ROOMS, 100) }, (_, n) => {
      const name = `room${n}`;
      return { name, first: [new Talker(name, [awake.address])], second: [new Talker(name, [sleeper.address])] };
    });
    await several(rooms, async (room) => {
      for (const one of everybody(room)) await one.enter();
    });
    equal(said(rooms), '', 'rooms that are split before anything happened');
    sleeper.process.child.kill('SIGSTOP');
    await site.linked([awake], 1);
    const moved = rooms.slice(0, rooms.length / 2);
    for (const room of moved) {
      const to = site.shards.find((shard) => shard.name !== room.first[0].shard).name;
      await site.ask(awake, 'table', 'set', room.name, to);
      room.to = to;
    }
    await until(() => moved.every((room) => room.first[0].shard === room.to), 20_000, () => 'the people who are awake have moved');
    // So long that it must not believe what it knew.
    await elapse(31_000);
    const resumed = Date.now();
    sleeper.process.child.kill('SIGCONT');
    await until(() => !rooms.some(apart), 20_000, () => said(rooms));
    const wholeAt = Date.now();
    await site.tablesEqual(20_000);
    const wrong = moved.filter((room) => room.first[0].shard !== room.to);
    equal(wrong.map((room) => room.name), [], 'decisions that the sleeper overwrote');
    const disturbed = rooms.slice(rooms.length / 2).flatMap(everybody).filter((one) => one.closes > 0).length;
    equal(disturbed, 0, 'people of rooms that nobody moved who were disturbed');
    must(wholeAt - resumed < 5_000, 'its people where they belong in 5 s', seconds(wholeAt - resumed));
    for (const one of rooms.flatMap(everybody)) one.leave();
    return `${rooms.length} rooms, ${moved.length} of them moved while a node stood still for 31 s: its people are right ${seconds(wholeAt - resumed)} after it goes on, 0 others disturbed`;
  });
}

const ALWAYS = {
  'halves: rooms opened on both sides of a cut': halves(2, 'both'),
  'racing: two first joins of each room, nodes 75 ms apart': racing(),
  'racing home: a home is killed in the middle': racingHome,
};

/** What takes a minute or more. */
const LONG = {
  'isolated: rooms opened at a node alone and at the others': halves(1, 'both', 300),
  'one way: rooms opened while only one side hears the other': halves(2, 'there', 300),
  'beside HAProxy: rooms opened on both sides of a cut': halvesBeside,
  'beside HAProxy: two first joins of each room, 75 ms apart': racingBeside,
  'flapping: a link that breaks and heals': flapping,
  'zombie: a node stands still while others decide': zombie,
};

export const CASES = { ...ALWAYS, ...CLOCK, ...DISK, ...MONITOR, ...(process.env.FAULTS_LONG ? LONG : {}) };
