// A shard dies: its people meet again on another one, and nobody else notices.
import assert from 'node:assert/strict';
import { mustMeet, shardOf } from '../meeting.mjs';
import { shardChosenBy } from '../../mesh.mjs';
import { until } from '../../until.mjs';

const ROOMS = 18;
const REJOIN_MS = 30_000;
const HEARD_MS = 5000;
const BACK_MS = 20_000;
const CHAT_EVERY_MS = 100;

export async function killedShard({ mesh, shards, crowd }) {
  const rooms = Array.from({ length: ROOMS }, (_, i) =>
    mesh.nodes.map((_, j) => {
      const node = mesh.nodes[(i + j) % mesh.nodes.length];
      return crowd.invite({ room: `kill-${i}`, node, transport: (i + j) % 2 === 0 ? 'ws' : 'bosh' });
    }),
  );
  await Promise.all(rooms.map((people) => crowd.joinInTurn(people)));
  await mustMeet(rooms);

  const victim = fullest(shards.filter((shard) => shard.region === 'region-a'), rooms);
  const hit = rooms.filter((people) => shardOf(people) === victim.name);
  const others = rooms.filter((people) => shardOf(people) !== victim.name);
  assert.ok(hit.length > 0 && others.length > 0, 'there are rooms on the shard that dies and on others');

  const chat = new Chat(others);
  try {
    await victim.process.kill();
    const cameBack = (people) => people.every((person) => person.joined && person.shard !== victim.name);
    const killedAt = performance.now();
    await until(() => hit.every(cameBack), REJOIN_MS, () => `not back: ${troubles(hit)}`);
    console.log(`# ${hit.length} rooms of ${victim.name} were back after ${Math.round(performance.now() - killedAt)} ms`);
    await mustMeet(hit);
  } finally {
    chat.end();
  }

  await until(() => chat.lost() === 0, HEARD_MS, () => `${chat.lost()} messages of undisturbed rooms were lost`);
  crowd.mustBeUndisturbed(others.flat());

  await victim.start();
  await takesNewConferences(victim, mesh);
}

/** Everybody in `rooms` says a numbered sentence again and again. */
class Chat {
  #said = 0;

  constructor(rooms) {
    this.rooms = rooms;
    this.timer = setInterval(() => this.#sayNext(), CHAT_EVERY_MS);
    this.#sayNext();
  }

  end() {
    clearInterval(this.timer);
  }

  /** How many sentences somebody of the same room has not heard. */
  lost() {
    let lost = 0;
    for (const people of this.rooms) {
      for (const speaker of people) {
        for (let n = 1; n <= this.#said; n += 1) {
          lost += people.filter((person) => !person.hears(speaker, `sentence ${n}`)).length;
        }
      }
    }
    return lost;
  }

  #sayNext() {
    this.#said += 1;
    for (const person of this.rooms.flat()) person.say(`sentence ${this.#said}`);
  }
}

function troubles(rooms) {
  const away = rooms.flat().filter((person) => !person.joined);
  return away.map((person) => `${person}: ${person.trouble}`).join('; ');
}

function fullest(shards, rooms) {
  const count = (shard) => rooms.filter((people) => shardOf(people) === shard.name).length;
  return shards.reduce((most, shard) => (count(shard) > count(most) ? shard : most));
}

async function takesNewConferences(shard, mesh) {
  const node = mesh.nodes.find(({ region }) => region === shard.region);
  let asked = 0;
  const chosen = async () => {
    asked += 1;
    return (await shardChosenBy(node, `after-${asked}`)) === shard.name;
  };
  await until(chosen, BACK_MS, () => `${shard.name} is back, but no new conference is placed on it`);
}
