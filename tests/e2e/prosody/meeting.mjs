// What it means to meet: everybody of a room is on one shard, sees everybody and hears everybody.
import assert from 'node:assert/strict';
import { Person } from './person.mjs';
import { DeadlinePassed, until } from '../until.mjs';

const MEET_MS = 20_000;

/** People who joined the same conference did not meet. */
export class DidNotMeet extends Error {
  constructor(message, roomsSplit) {
    super(message);
    this.roomsSplit = roomsSplit;
  }
}

/** The people of one test case. */
export class Crowd {
  #people = [];

  /** Somebody new, not connected yet. */
  invite(person) {
    const invited = new Person({ name: `p${this.#people.length + 1}`, ...person });
    this.#people.push(invited);
    return invited;
  }

  /** Joins `people` one after the other. */
  async joinInTurn(people) {
    for (const person of people) await person.join();
    return people;
  }

  joinAtOnce(people) {
    return Promise.all(people.map((person) => person.join()));
  }

  /** Fails when somebody's connection was lost, although they came back: a good proxy gives no reason for it. */
  mustBeUndisturbed(people = this.#people) {
    const disturbed = people.filter((person) => person.closes > 0);
    const shown = disturbed.slice(0, 3).map((person) => `${person}: ${person.trouble}`).join('; ');
    assert.equal(disturbed.length, 0, `${disturbed.length} people were disconnected, for example ${shown}`);
  }

  async leave() {
    await Promise.all(this.#people.map((person) => person.leave()));
    this.#people = [];
  }
}

/** Fails with `DidNotMeet` unless in each of `rooms` (arrays of people) everybody sees and hears everybody, on one shard. */
export async function mustMeet(rooms, withinMs = MEET_MS) {
  try {
    await until(() => rooms.every(everybodySees), withinMs, () => `in ${report(rooms, everybodySees)}`);
    const text = `hello ${Math.random().toString(36).slice(2)}`;
    for (const person of rooms.flat()) person.say(text);
    const hear = (people) => everyPair(people, (a, b) => a.hears(b, text));
    await until(() => rooms.every(hear), withinMs, () => `messages were lost in ${report(rooms, hear)}`);
  } catch (error) {
    if (!(error instanceof DeadlinePassed)) throw error;
    throw new DidNotMeet(error.message, rooms.filter((people) => shardsOf(people).length > 1).length);
  }
  const split = rooms.filter((people) => shardsOf(people).length !== 1);
  if (split.length > 0) throw new DidNotMeet(`rooms on several shards: ${split.map(describe).join('; ')}`, split.length);
}

/** The one shard of a room that has met. */
export function shardOf(people) {
  return people[0].shard;
}

function shardsOf(people) {
  return [...new Set(people.map((person) => person.shard))];
}

function everybodySees(people) {
  return everyPair(people, (a, b) => a.sees(b));
}

function everyPair(people, holds) {
  return people.every((a) => people.every((b) => holds(a, b)));
}

function report(rooms, holds) {
  const apart = rooms.filter((people) => !holds(people));
  const shown = apart.slice(0, 2).map(describe).join('; ');
  return `${apart.length} of ${rooms.length} rooms not everybody met everybody, for example ${shown}`;
}

function describe(people) {
  return `${people[0].room}: ${people.join(', ')}`;
}
