// A node whose clock is hours wrong all at once: what becomes of those who sit in rooms, of rooms that begin, and of moves that operators order.
import { existsSync, readdirSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { equal, must } from '../clients/expect.mjs';
import { onSite } from '../on.mjs';
import { run } from '../process.mjs';
import { elapse, until } from '../until.mjs';
import { Poller, Talker } from './people.mjs';
import { Site } from './site.mjs';

const HOURS = 5;
const ROOMS = 60;
const LIBRARY = 'faketime/libfaketimeMT.so.1';

/** Debian's libfaketime for processes with threads, in the folder of this machine's architecture. */
function library() {
  const folders = readdirSync('/usr/lib').filter((name) => existsSync(`/usr/lib/${name}/${LIBRARY}`));
  must(folders.length > 0, `/usr/lib/*/${LIBRARY} is there (Debian package libfaketime)`);
  return `/usr/lib/${folders[0]}/${LIBRARY}`;
}

/** The clocks of one process. The kernel's boot-time clock, which is read without libc, stays right in any case. */
class Clock {
  constructor(folder, { monotonic }) {
    this.file = join(folder, 'clock');
    // Whoever kept what the file says for a second would jump within a second.
    this.env = { LD_PRELOAD: library(), FAKETIME_TIMESTAMP_FILE: this.file, FAKETIME_NO_CACHE: '1' };
    if (!monotonic) this.env.FAKETIME_DONT_FAKE_MONOTONIC = '1';
    this.wrongBy(0);
  }

  wrongBy(hours) {
    writeFileSync(`${this.file}.new`, `${hours < 0 ? '-' : '+'}${Math.abs(hours) * 3_600}`);
    renameSync(`${this.file}.new`, this.file);
  }
}

const apart = ({ people }) => people.some(({ shard }) => !shard || shard !== people[0].shard);
const said = (rooms) => rooms.filter(apart).map(({ name, people }) => `${name}: ${people.map((one) => one.shard)}`).join('; ');
const everybody = (rooms) => rooms.flatMap(({ people }) => people);
const seconds = (ms) => `${(ms / 1000).toFixed(2)} s`;

/** Waits until everybody is where the others of the room are; answers how long it took. */
async function whole(rooms, withinMs = 5_000) {
  const began = Date.now();
  await until(() => !rooms.some(apart), withinMs, () => said(rooms));
  return Date.now() - began;
}

/** Three people for each, through three of the nodes; every fifth polls, but none through `wrong`: see `late`. */
function openRooms(nodes, wrong) {
  return Array.from({ length: ROOMS }, (_, n) => {
    const name = `room${n}`;
    const through = (k) => {
      const node = nodes[(n + k) % nodes.length];
      return new ((n * 3 + k) % 5 === 0 && node !== wrong ? Poller : Talker)(name, [node.address]);
    };
    return { name, people: [0, 1, 2].map(through) };
  });
}

async function enterAll(rooms) {
  const enter = async ({ people }) => {
    for (const one of people) await one.enter();
  };
  await Promise.all(rooms.map(enter));
}

/** First joins that race through the node with the wrong clock and another one, 100 rooms a second; answers what was refused. */
async function race(rooms) {
  const refused = [];
  const entering = [];
  for (const { people } of rooms) {
    const enter = async (one) => {
      while (!(await one.enter().catch((error) => void refused.push(error.message)))) await delay(one.pause());
    };
    entering.push(...people.map(enter));
    await delay(10);
  }
  await Promise.all(entering);
  return refused;
}

function born(tag, count, wrong, right) {
  return Array.from({ length: count }, (_, n) => {
    const name = `${tag}${n}`;
    return { name, people: [wrong, right[n % right.length]].map(({ address }) => new Talker(name, [address])) };
  });
}

/** An operator's order to a node: elsewhere than the people are, and than the last order said. */
async function move(site, node, room) {
  room.to = site.shards.find(({ name }) => name !== room.people[0].shard && name !== room.to).name;
  // One that no home answered in time binds others less: it is given once more.
  const answered = async () => {
    const { code, output } = await run(site.ctl, ['--node', `unix:${site.orders(node)}`, '--output', 'json', 'table', 'set', room.name, room.to]);
    must(code === 0 || output.includes('"outcome":"alone"'), `${node.name} takes the order`, output);
    return code === 0;
  };
  await until(answered, 5_000, () => `a home answers ${node.name} about ${room.name}`);
}

/** Orders to one node, the other, and both in turn: the last one counts. */
async function moveAll(site, rooms, one, other) {
  for (const [n, room] of rooms.entries()) {
    for (const node of [[one], [other], [one, other], [other, one]][n % 4]) await move(site, node, room);
  }
  const misplaced = () => rooms.filter(({ people, to }) => people.some(({ shard }) => shard !== to));
  const seen = () => misplaced().map(({ name, people, to }) => `${name} to ${to}: ${people.map(({ shard }) => shard)}`).join('; ');
  const began = Date.now();
  await until(() => misplaced().length === 0, 5_000, seen);
  return Date.now() - began;
}

/** Waits until each node is connected to all others and has found since now that their digests are its own. */
async function agreed(site) {
  const began = Date.now();
  await site.tablesEqual(5_000);
  const since = Date.now();
  let apart = [];
  const agree = async () => {
    const peers = (await Promise.all(site.nodes.map((node) => site.ask(node, 'status')))).flatMap(([status]) => status.peers);
    const now = Date.now();
    apart = peers.filter(({ link, agreement, agreed_ms }) => link !== 'reconciled' || agreement !== 'agreed' || now - agreed_ms <= since);
    return apart.length === 0 && peers.length === site.nodes.length * (site.nodes.length - 1);
  };
  await until(agree, 15_000, () => JSON.stringify(apart));
  return Date.now() - began;
}

/** What one jump does; `monotonic`: of the clock that timers go by, too, as after a pause of hours. */
const jump = (hours, { monotonic = false } = {}) => async ({ binary, ctl }) => {
  let clock;
  const prepared = (folder) => {
    clock = new Clock(folder, { monotonic });
  };
  const envOf = ({ name }) => (name === 'n4' ? clock.env : {});
  return onSite(Site, { binary, ctl, nodes: 4, prepared, envOf }, async (site) => {
    const [wrong, ...right] = [site.nodes[3], ...site.nodes.slice(0, 3)];
    const restarts = () => site.metric(wrong, 'table_restarts_in_place');
    const rooms = openRooms(site.nodes, wrong);
    await enterAll(rooms);
    equal(said(rooms), '', 'rooms that are split before anything happened');
    const ordered = rooms.slice(0, 12);
    await site.tablesEqual(5_000);
    const before = new Map(everybody(rooms).map((one) => [one, { closes: one.closes, shard: one.shard }]));
    equal(await restarts(), 0, 'restarts in place before anything happened');

    clock.wrongBy(hours);
    const jumpedAt = Date.now();
    const first = born('wrong', 40, wrong, right);
    const refused = await race(first);
    const wholeAfter = await whole([...rooms, ...first]);
    const noticed = async () => (await site.metric(right[0], 'table_digests_clock_apart')) > 0;
    await until(noticed, 5_000, () => 'the others see that its clock is wrong');
    equal(await restarts(), hours > 0 ? 1 : 0, 'restarts in place after the jump');
    const movedAfter = await moveAll(site, ordered, right[0], wrong);
    const agreedAfter = await agreed(site);

    let setRight = '';
    const last = born('right', 30, wrong, right);
    // No kernel's monotonic clock goes back.
    if (!monotonic) {
      clock.wrongBy(0);
      refused.push(...(await race(last)));
      const wholeAgain = await whole([...rooms, ...first, ...last]);
      const movedAgain = await moveAll(site, ordered, wrong, right[1]);
      setRight = `; set right: whole ${seconds(wholeAgain)} later, moves done in ${seconds(movedAgain)}, agreed in ${seconds(await agreed(site))}`;
      equal(await restarts(), 1, 'restarts in place after it was set right');
    }
    // Whoever would be moved once more would be now.
    await elapse(1_000);
    const all = [...rooms, ...first, ...(monotonic ? [] : last)];
    equal(said(all), '', 'rooms that are split at the end');
    const table = await site.table(wrong);
    equal(rooms.filter(({ to, name }) => to && !table.get(name).startsWith(`${to} `)).map(({ name }) => name), [], 'orders that were overwritten');

    const disturbed = [...before].filter(([one, then]) => !ordered.some(({ people }) => people.includes(one)) && one.closes > then.closes).map(([one]) => one);
    const others = disturbed.filter((one) => !(monotonic && one.addresses[0] === wrong.address));
    equal(others.map(({ room, addresses, events }) => [room, addresses, events]), [], 'people who were disturbed in rooms that nobody moved');
    equal(disturbed.filter((one) => one.shard !== before.get(one).shard).length, 0, 'people who are elsewhere in rooms that nobody moved');
    const back = Math.max(0, ...disturbed.flatMap(({ events }) => events.filter(({ at, shard }) => shard && at > jumpedAt).map(({ at }) => at - jumpedAt)));
    must(back < 5_000, 'its people back in 5 s', back);
    if (!monotonic) equal(refused, [], 'joins that were refused');
    // Who comes in while the node starts anew may be elsewhere than the others for a moment.
    const newcomers = everybody([...first, ...last]);
    equal(newcomers.filter((one) => one.closes > 1).map(({ room, events }) => [room, events]), [], 'newcomers who were moved twice');
    const movers = newcomers.filter((one) => one.closes > 0).length;
    for (const one of everybody([...rooms, ...first, ...last])) one.leave();
    const timeouts = monotonic ? `, ${disturbed.length} of its own people, whose tunnels' timeouts have passed, back on their shards ${seconds(back)} after` : '';
    return (
      `${rooms.length} rooms and ${first.length + (monotonic ? 0 : last.length)} new ones: whole ${seconds(wholeAfter)} after the race, ${ordered.length} rooms moved in ${seconds(movedAfter)}, ` +
      `agreed in ${seconds(agreedAfter)}${setRight}; ${others.length} others disturbed${timeouts}, ${movers} newcomers moved, ${refused.length} joins refused`
    );
  });
};

/** Who comes into rooms through a node in the moment in which it starts anew, and knows nothing: its own people show where a room is. */
async function late({ binary, ctl }) {
  let clock;
  const prepared = (folder) => {
    clock = new Clock(folder, { monotonic: false });
  };
  const envOf = ({ name }) => (name === 'n3' ? clock.env : {});
  return onSite(Site, { binary, ctl, nodes: 3, delayMs: 75, prepared, envOf }, async (site) => {
    const [other, , wrong] = site.nodes;
    const order = (what) => Promise.all(site.nodes.flatMap((node) => site.shards.slice(1).map(({ name }) => site.ask(node, 'shard', what, name))));
    // All on one shard, where most of them are by no hash.
    await order('drain');
    const rooms = Array.from({ length: 240 }, (_, n) => {
      const name = `room${n}`;
      return { name, people: [wrong, other].map(({ address }) => new Talker(name, [address])) };
    });
    await enterAll(rooms);
    await order('ready');
    await site.tablesEqual(5_000);
    equal(everybody(rooms).filter(({ shard }) => shard !== 's1').length, 0, 'people who are elsewhere before anything happened');
    clock.wrongBy(HOURS);
    const newcomers = rooms.map(({ name }) => ({ name, people: [new Talker(name, [wrong.address])] }));
    equal(await race(newcomers), [], 'joins that were refused');
    equal(await site.metric(wrong, 'table_restarts_in_place'), 1, 'restarts in place');
    const old = everybody(rooms);
    for (const [n, room] of rooms.entries()) room.people.push(...newcomers[n].people);
    const astray = rooms.filter(apart).length;
    const wholeAfter = await whole(rooms);
    await elapse(2_000);
    equal(said(rooms), '', 'rooms that are split at the end');
    const events = (people) => people.map(({ room, addresses, events }) => [room, addresses[0], ...events.map(({ at, shard }) => `${at} ${shard ?? 'closed'}`)].join(' '));
    const disturbed = old.filter(({ closes }) => closes > 0);
    equal(events(disturbed), [], `people who were disturbed because others came in (${disturbed.length})`);
    for (const one of everybody(rooms)) one.leave();
    return `${rooms.length} rooms, somebody comes into each while a node starts anew: ${astray} of them elsewhere at first, whole after ${seconds(wholeAfter)}, ${disturbed.length} others disturbed`;
  });
}

export const CLOCK = {
  'clock forwards: the wall clock of a node is five hours ahead all at once': jump(HOURS),
  'clock of timers: the monotonic one jumps, too, like a pause of five hours': jump(HOURS, { monotonic: true }),
  'clock late: people come into rooms through a node that starts anew': late,
  ...(process.env.FAULTS_LONG ? { 'clock backwards: five hours behind': jump(-HOURS) } : {}),
};
