// What happens to shards, and what people may notice of it.
import { setTimeout as delay } from 'node:timers/promises';
import { equal, must } from '../clients/expect.mjs';
import { mustRun, run } from '../process.mjs';
import { onSite } from '../on.mjs';
import { until } from '../until.mjs';
import { Load, Person, ask, failed, join, kinds } from './client.mjs';
import { Site } from './site.mjs';

/** As the issue has it: one failed check, a second apart. */
const QUICK = 'check = "http"\ninter = "1s"\nfall = 1\nrise = 2\ncheck_timeout = "1s"\nserver_timeout = "5s"\n';
const SHUTDOWN = `${QUICK}on_marked_down = "shutdown-sessions"\n`;

/** The target of a request that belongs to no session: a conference ends one `expire` after the last of them. */
const asked = (room) => `/conference-request/v1?room=${room}`;

/** What a BOSH client sends and waits for. */
const POLL = { method: 'POST', body: "<body rid='1' xmlns='http://jabber.org/protocol/httpbind'/>" };

const rooms = (count, tag) => Array.from({ length: count }, (_, n) => `${tag}${n}`);

const on = (options, body) => onSite(Site, options, body);

/** Where each room is, by its first join through nodes in turn. */
async function place(site, names, target = join) {
  const places = new Map();
  for (let from = 0; from < names.length; from += 50) {
    const some = names.slice(from, from + 50);
    const answers = await Promise.all(some.map((room, n) => ask(site.addresses[(from + n) % site.addresses.length], target(room))));
    some.forEach((room, n) => {
      must(answers[n].status === 200, `a join of ${room}`, JSON.stringify(answers[n]));
      places.set(room, answers[n].shard);
    });
  }
  return places;
}

/** Asks every node about every room; answers the rooms that not all have on one shard, and where the others are. */
async function whole(site, names) {
  const split = [];
  const places = new Map();
  for (let from = 0; from < names.length; from += 50) {
    await Promise.all(
      names.slice(from, from + 50).map(async (room) => {
        const answers = await Promise.all(site.addresses.map((address) => ask(address, join(room))));
        const shards = new Set(answers.map((answer) => answer.shard ?? answer.error ?? answer.status));
        if (shards.size === 1) places.set(room, [...shards][0]);
        else split.push(`${room}: ${[...shards]}`);
      }),
    );
  }
  return { split, places };
}

const of = (places, shard) => [...places].filter(([, where]) => where === shard).map(([room]) => room);

/** Everybody in: so many people in each room. */
async function people(site, names, each = 1) {
  const all = names.flatMap((room) => Array.from({ length: each }, () => new Person(room, site.addresses)));
  for (let from = 0; from < all.length; from += 50) await Promise.all(all.slice(from, from + 50).map((person) => person.enter()));
  return all;
}

async function killed({ binary }) {
  return on({ binary, backend: SHUTDOWN }, async (site) => {
    await site.seen('s1', 1);
    const places = await place(site, rooms(90, 'k'));
    const [lost, kept] = [of(places, 's1'), [...places.keys()].filter((room) => places.get(room) !== 's1')];
    must(lost.length >= 15, `a third of the rooms on s1, not ${lost.length}`);
    const [hit, others] = [await people(site, lost.slice(0, 20)), await people(site, kept.slice(0, 20))];
    const moves = await site.total('table_moved_total');
    const load = new Load({ addresses: site.addresses, targets: lost.map(join), perSecond: 40, fresh: true });
    const polls = new Load({ addresses: site.addresses, targets: lost.map((room) => `${join(room)}&held=200`), perSecond: 20, options: POLL });
    await delay(1_000);
    const at = Date.now();
    await site.shard('s1').process.kill();
    const seen = await site.seen('s1', 0);
    await until(() => hit.every((person) => person.shard && person.closes > 0), 10_000, () => 'everybody is back');
    await delay(1_500);
    const results = [...(await load.stop()), ...(await polls.stop())];
    const first = Math.min(...results.filter((result) => result.status === 200 && result.shard !== 's1').map((result) => result.at + result.tookMs)) - at;
    const late = failed(results.filter((result) => result.at > seen));
    equal(late.length, 0, `requests after the last node saw it: ${kinds(late)}`);
    const broken = results.filter((result) => result.error);
    equal(broken.length, 0, `requests answered by a closed connection: ${kinds(broken)}`);
    const closed = Math.max(...hit.map((person) => person.events.find((event) => event.closed).at)) - at;
    must(closed < 1_000, `its tunnels closed in a second, not ${closed} ms`);
    must(first < 1_000, `rooms served elsewhere in a second, not ${first} ms`);
    const { split, places: after } = await whole(site, lost);
    equal(split, [], 'rooms that are not on one shard for everyone');
    equal(of(after, 's1').length, 0, 'rooms on the dead shard');
    equal((await site.total('table_moved_total')) - moves, lost.length, 'moves');
    equal(others.reduce((sum, person) => sum + person.closes, 0), 0, 'closed tunnels of other shards');
    for (const person of hit) equal(person.shard, after.get(person.room), `${person.room}: its person`);
    await site.shard('s1').start();
    await site.seen('s1', 1);
    await until(async () => of(await place(site, rooms(30, `new${Date.now()}`)), 's1').length > 0, 10_000, () => 's1 gets new rooms');
    await delay(2_000);
    equal([...hit, ...others].filter((person) => person.closes > (hit.includes(person) ? 1 : 0)).length, 0, 'people disturbed by its return');
    equal((await whole(site, lost)).split, [], 'rooms split by its return');
    for (const person of [...hit, ...others]) person.leave();
    const bad = failed(results);
    equal(kinds(bad), 'none', 'requests not answered 200');
    return `first served elsewhere ${Math.round(first)} ms after the kill, last node saw it after ${seen - at} ms, tunnels closed in ${closed} ms; ` +
      `${results.length} requests, not answered 200: ${kinds(bad)}; ${lost.length} rooms moved once each`;
  });
}

async function stopped({ binary }) {
  return on({ binary, backend: SHUTDOWN }, async (site) => {
    await site.seen('s1', 1);
    const places = await place(site, rooms(60, 'p'));
    const lost = of(places, 's1');
    const hit = await people(site, lost.slice(0, 10));
    const targets = lost.map((room) => `${join(room)}&held=200`);
    const load = new Load({ addresses: site.addresses, targets, perSecond: 40, fresh: true });
    const polls = new Load({ addresses: site.addresses, targets, perSecond: 20, options: POLL });
    await delay(1_000);
    const at = Date.now();
    site.shard('s1').pause();
    const seen = await site.seen('s1', 0);
    await until(() => hit.every((person) => person.closes > 0 && person.shard && person.shard !== 's1'), 10_000, () => 'everybody is back');
    const back = Date.now() - at;
    await delay(1_000);
    const results = [...(await load.stop()), ...(await polls.stop())];
    equal(kinds(failed(results)), 'none', 'requests not answered 200');
    const longest = Math.max(...results.map((result) => result.tookMs));
    must(longest < 6_000, `no request hangs past its timeout of 5 s, not ${Math.round(longest)} ms`);
    must(back < 5_000, `everybody back in 5 s, not ${back} ms`);
    const late = failed(results.filter((result) => result.at > seen));
    equal(late.length, 0, `requests after the last node saw it: ${kinds(late)}`);
    equal((await whole(site, lost)).split, [], 'rooms that are not on one shard for everyone');
    site.shard('s1').resume();
    await site.seen('s1', 1);
    await delay(2_000);
    equal(hit.filter((person) => person.closes > 1).length, 0, 'people disturbed by its return');
    for (const person of hit) person.leave();
    return `last node saw it after ${seen - at} ms, people back after ${back} ms, longest request ${Math.round(longest)} ms; ` +
      `${results.length} requests, not answered 200: ${kinds(failed(results))}`;
  });
}

async function thousand({ binary }) {
  return on({ binary, nodes: 3, shards: 2, backend: QUICK, expire: '120s' }, async (site) => {
    await site.seen('s1', 1);
    const places = await place(site, rooms(2_000, 't'));
    const lost = of(places, 's1').slice(0, 1_000);
    must(lost.length >= 900, `half of the rooms on s1, not ${lost.length}`);
    const moves = await site.total('table_moved_total');
    await site.shard('s1').process.kill();
    // All nodes at once, each about every room.
    const { split, places: after } = await whole(site, lost);
    equal(split, [], 'rooms that are not on one shard for everyone');
    equal(of(after, 's2').length, lost.length, 'rooms on the other shard');
    equal((await site.total('table_moved_total')) - moves, lost.length, 'moves');
    return `${lost.length} rooms, each moved once`;
  });
}

async function cut({ binary }) {
  return on({ binary, nodes: 6, shards: 3, backend: SHUTDOWN, ways: true }, async (site) => {
    await site.seen('s1', 1);
    const names = rooms(120, 'c');
    const places = await place(site, names);
    const own = of(places, 's1');
    const moves = await site.total('table_moved_total');
    const told = [];
    for (const nodes of [['n1'], ['n1', 'n2']]) {
      const through = site.nodes.filter((node) => nodes.includes(node.name));
      const before = await site.total('requests_relayed_total');
      const load = new Load({ addresses: site.addresses, targets: names.map(join), perSecond: 100 });
      await Promise.all(nodes.map((node) => site.way(node, 's1').cut()));
      await delay(2_000);
      const inside = through.flatMap((node) => own.slice(0, 5).map((room) => new Person(room, [node.address])));
      for (const person of inside) equal(await person.enter(), 's1', `${person.room} over a WebSocket`);
      await delay(1_000);
      const results = await load.stop();
      equal(kinds(failed(results)), 'none', 'requests not answered 200');
      for (const result of results) {
        const room = result.target.split('room=')[1];
        equal(result.shard, places.get(room), `${room} through ${result.address}`);
      }
      const relayed = (await site.total('requests_relayed_total')) - before;
      must(relayed > 0, 'requests went by a peer');
      const streams = await site.total('relay_streams', 'direction="out"');
      must(streams >= inside.length, `${inside.length} tunnels by a peer, not ${streams}`);
      equal((await site.total('table_moved_total')) - moves, 0, 'moves');
      for (const person of inside) {
        equal(person.closes, 0, 'closed tunnels by a peer');
        person.leave();
      }
      await Promise.all(nodes.map((node) => site.way(node, 's1').open()));
      const still = async () => {
        const count = await site.total('requests_relayed_total');
        await Promise.all(through.flatMap((node) => own.slice(0, 10).map((room) => ask(node.address, join(room)))));
        return (await site.total('requests_relayed_total')) === count;
      };
      await until(still, 10_000, () => 'requests go directly again');
      told.push(`${nodes.length} cut: ${results.length} requests, ${relayed} by a peer, ${inside.length} tunnels by a peer`);
    }
    return `${told.join('; ')}; none failed, none moved, direct again`;
  });
}

async function flapping({ binary }) {
  return on({ binary, backend: 'check = "http"\ninter = "100ms"\nfall = 1\nrise = 1\n' }, async (site) => {
    await site.seen('s1', 1);
    const places = await place(site, rooms(60, 'f'));
    const own = of(places, 's1');
    const moves = await site.total('table_moved_total');
    const load = new Load({ addresses: site.addresses, targets: own.map(join), perSecond: 60 });
    for (let turn = 0; turn < 20; turn += 1) {
      site.shard('s1').tell({ health: turn % 2 ? 200 : 500 });
      await delay(250);
    }
    const results = await load.stop();
    const moved = (await site.total('table_moved_total')) - moves;
    equal(kinds(failed(results)), 'none', 'requests not answered 200');
    must(moved <= own.length, `at most one move of each of ${own.length} rooms, not ${moved}`);
    const downs = await site.total('shard_downs_total', '"s1"');
    must(downs > 0, 'the nodes see that it flaps');
    must(downs <= 3 * 10, `at most 10 times down at each node, not ${downs}`);
    site.shard('s1').tell({ health: 200 });
    equal((await whole(site, own)).split, [], 'rooms that are not on one shard for everyone');
    return `${downs} times down over 3 nodes in 5 s, ${moved} of ${own.length} rooms moved`;
  });
}

async function rolling({ binary }) {
  return on({ binary, shards: 4, backend: `${SHUTDOWN}rise = 1\n`.replace('rise = 2\n', '') }, async (site) => {
    await Promise.all(site.shards.map((shard) => site.seen(shard.name, 1)));
    const names = rooms(40, 'r');
    const inside = await people(site, names, 2);
    const load = new Load({ addresses: site.addresses, targets: names.map(join), perSecond: 60, fresh: true });
    for (const shard of site.shards) {
      await shard.process.kill();
      await site.seen(shard.name, 0);
      await shard.start();
      await site.seen(shard.name, 1);
      const together = () => names.every((room) => {
        const shards = inside.filter((person) => person.room === room).map((person) => person.shard);
        return shards.every((one) => one && one === shards[0]);
      });
      await until(together, 10_000, () => 'every room is whole again');
    }
    const results = await load.stop();
    // A room that has moved less than 30 s ago waits on its shard.
    equal(kinds(failed(results).filter((result) => result.status !== 503)), 'none', 'requests neither served nor told to come again');
    equal((await whole(site, names)).split, [], 'rooms that are split');
    for (const person of inside) person.leave();
    return `4 shards, ${inside.length} people in ${names.length} rooms, whole each time; ${results.length} requests, not answered 200: ${kinds(failed(results))}`;
  });
}

async function drained({ binary, ctl }) {
  return on({ binary, backend: 'check = "http"\ninter = "1s"\n', expire: '2s' }, async (site) => {
    await site.seen('s1', 1);
    const places = await place(site, rooms(60, 'd'), asked);
    const own = of(places, 's1');
    const inside = await people(site, own.slice(0, 5));
    const stays = new Load({ addresses: site.addresses, targets: own.map(asked), perSecond: 40 });
    let fresh = 0;
    const news = [];
    const waiting = run(ctl, [...site.everywhere, 'shard', 'drain', 's1', '--wait', '--timeout', '60s'], { withinMs: 70_000 });
    await until(async () => (await drains(site, ctl, 's1')) === site.nodes.length, 10_000, () => 'every node drains s1');
    for (; fresh < 100; fresh += 1) news.push(await ask(site.addresses[fresh % 3], asked(`fresh${fresh}`)));
    await delay(2_000);
    const results = await stays.stop();
    equal(kinds(failed([...results, ...news])), 'none', 'requests not answered 200');
    equal(results.filter((result) => result.shard !== 's1').length, 0, 'its conferences elsewhere');
    equal(news.filter((answer) => answer.shard === 's1').length, 0, 'new conferences on it');
    equal(inside.reduce((sum, person) => sum + person.closes, 0), 0, 'closed tunnels');
    for (const person of inside) person.leave();
    const { code, output } = await waiting;
    equal(code, 0, `--wait: ${output}`);
    must(/shard s1: empty after/.test(output), '--wait tells the end', output);
    return `${results.length} requests of ${own.length} rooms stayed, ${fresh} new rooms elsewhere; ${output.trim().split('\n').at(-1)}`;
  });
}

/** On how many nodes a shard is drained. */
async function drains(site, ctl, shard) {
  const states = await Promise.all(site.nodes.map(async (node) => {
    const said = await mustRun(ctl, ['--node', node.admin, '--output', 'json', 'status']);
    return JSON.parse(said).shards.find((one) => one.name === shard).state;
  }));
  return states.filter((state) => state === 'drain').length;
}

/** One node's discovery lags: it has not heard of a shard that the others know. */
async function unlisted({ binary }) {
  return on({ binary, shards: 2, backend: QUICK }, async (site) => {
    await site.seen('s1', 1);
    const places = await place(site, rooms(40, 'u'));
    const own = of(places, 's2');
    site.mesh.hides = (node, shard) => node.name === 'n1' && shard.name === 's2';
    site.mesh.writeDiscovery();
    await until(async () => (await site.metric(site.nodes[0], 'shard_conferences', '"s2"')) === 0, 10_000, () => 'n1 lists s2 no more');
    const moves = await site.total('table_moved_total');
    const { split, places: after } = await whole(site, own);
    equal(split, [], 'rooms that are not on one shard for everyone');
    equal(of(after, 's2').length, own.length, 'rooms where they were');
    equal((await site.total('table_moved_total')) - moves, 0, 'moves');
    return `${own.length} rooms on a shard that one node does not know: none moved`;
  });
}

export const CASES = {
  'a shard is killed': killed,
  'a shard is stopped, and takes connections still': stopped,
  'a thousand rooms of a dead shard, seen at three nodes at once': thousand,
  'the way from one node to a shard is cut, then from two of six': cut,
  'a shard is drained under load, and it is told when it is empty': drained,
  'a shard that one node has not heard of': unlisted,
  'a check that flaps': flapping,
  'every shard of a release is restarted, one after another': rolling,
};
